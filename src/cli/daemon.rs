//! The commands that work on the tiers themselves and not through a daemon.

use std::path::Path;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, output::Out};
use crate::app;
use crate::clock::Clock;
use crate::config::{self, Config, LogFormat};
use crate::memory;
use crate::telemetry;

/// Runs the daemon until it is told to stop.
pub(super) fn serve(config: Option<&Path>) -> anyhow::Result<Exit> {
    let config = load(config)?;
    let format = match config.log.format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init_logging(format, &config.log.level).context("log.level")?;
    memory::keep_little();
    runtime()?.block_on(async {
        // Listening for signals first: whoever sees the daemon up may stop it.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // A terminal that is closed stops it in order, too.
        let mut hangup = signal(SignalKind::hangup())?;
        let listener = app::listen("server.listen", config.server.listen).await?;
        let _databases = app::take_databases(&config)?;
        let app = app::start_on(listener, &config, Clock::default()).await?;
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
        };
        tracing::info!(signal, "stopping: accepted requests finish first");
        let stopped = tokio::select! {
            in_time = app.shut_down() => in_time,
            // Whoever asks twice is in a hurry.
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        if stopped { Ok(Exit::Done) } else { anyhow::bail!("did not stop in time; what was acknowledged is safe") }
    })
}

/// Brings the tables of the hot tier to this version.
pub(super) fn migrate(config: Option<&Path>) -> anyhow::Result<Exit> {
    let config = load(config)?;
    runtime()?.block_on(async {
        let cluster = app::open_hot_tier(&config, &Clock::default()).await?;
        for (server, db) in config.hot.servers.iter().zip(cluster.servers()) {
            eprintln!(
                "{}: schema {}, {} of {} shards",
                server.url,
                crate::db::SCHEMA_VERSION,
                db.shards().len(),
                config.hot.shards
            );
        }
        cluster.close().await;
        Ok(Exit::Done)
    })
}

/// Reads the configuration and says what is wrong with it.
pub(super) fn check_config(config: Option<&Path>) -> anyhow::Result<Exit> {
    let config = load(config)?;
    for name in config::strangers(&config::process_env()) {
        eprintln!("logtier: {name} is no setting and is not looked at; LOGTIER_SERVER__LISTEN is [server] listen");
    }
    let mut out = Out::stdout();
    match &config.file {
        Some(file) => out.line(&format!("{} is in order", file.display()))?,
        None => out.line("no configuration file: embedded tiers with default settings")?,
    }
    for server in &config.hot.servers {
        let shards = &server.shards;
        out.line(&format!("hot tier   {} (shards {}-{})", server.url, shards.start, shards.end - 1))?;
    }
    out.line(&format!("cold tier  {}", config.cold.url))?;
    out.line(&format!("listen     {}", config.server.listen))?;
    for (name, address) in config.protocol.listeners() {
        out.line(&format!("listen     {address} ({name})"))?;
    }
    let schedule = &config.archive.schedule;
    out.line(&format!("archive    {schedule}"))?;
    let mut at = chrono::DateTime::from_timestamp_millis(Clock::default().now().get());
    for _ in 0..3 {
        at = at.and_then(|at| schedule.next_after(at));
        if let Some(next) = at {
            out.line(&format!("  next run {}", next.with_timezone(&schedule.zone()).to_rfc3339()))?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    Ok(Config::load(path, &config::process_env())?)
}

pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}
