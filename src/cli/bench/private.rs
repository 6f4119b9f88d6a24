//! A daemon of one's own, and a look at its tiers from outside.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::process::Process;
use super::sql;
use crate::app;
use crate::catalog::Catalog;
use crate::cli::client::{Call, Client};
use crate::clock::Clock;
use crate::cold::Store;
use crate::config::{self, Config};
use crate::db::{Db, Engine};

/// A first start makes 16 shards of tables; on a slow disk that takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Apps of this program begin so, and no others may be there: it archives everything at once.
pub(super) const APP_PREFIX: &str = "bench-";

/// A daemon that this process started, and the tiers that it works on.
pub(super) struct Private {
    child: Child,
    /// Of the embedded tiers; removed at the end.
    folder: Option<PathBuf>,
    pub(super) client: Client,
    pub(super) catalog: Catalog,
    pub(super) store: Store,
    pub(super) daemon: Process,
    /// Only where it runs on this machine as this user.
    pub(super) database: Option<Process>,
    pub(super) zstd_level: i32,
}

impl Private {
    /// Starts a daemon on the tiers of `config`, or on embedded ones in a temporary folder.
    pub(super) async fn start(config: Option<&Path>, clock: &Clock) -> anyhow::Result<Self> {
        let folder = match config {
            Some(_) => None,
            None => {
                let folder = std::env::temp_dir().join(format!("logtier-bench-{}", clock.new_ulid()));
                std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
                Some(folder)
            }
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut env = config::process_env();
        env.extend(overrides(port, folder.as_deref()));
        let settings = Config::load(config, &env)?;
        let cluster = app::open_hot_tier(&settings, clock).await?;
        let database = database_of(&cluster.servers()[0]).await;
        let catalog = Catalog::new(cluster);
        let store = app::open_store(&settings)?;
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.arg("serve").env_clear().envs(env).stdin(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().context("start a daemon")?;
        let token = settings.server.token.as_ref().map(|token| token.expose().to_owned());
        let client = Client::new(&format!("http://127.0.0.1:{port}"), token, clock.clone())?;
        let daemon = Process::new(child.id().unwrap_or(0));
        let zstd_level = settings.cold.zstd_level;
        let mut private = Self { child, folder, client, catalog, store, daemon, database, zstd_level };
        private.wait_until_up(clock).await?;
        Ok(private)
    }

    async fn wait_until_up(&mut self, clock: &Clock) -> anyhow::Result<()> {
        let started = clock.instant();
        let apps: Value = loop {
            match self.client.json(&Call::new(Method::GET, "/apps")).await {
                Ok(apps) => break apps,
                Err(error) if started.elapsed() > START_TIMEOUT => return Err(error).context("wait for the daemon"),
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended at once ({status}); what it said stands above");
            }
            clock.sleep(Duration::from_millis(50)).await;
        };
        let names = apps["apps"].as_array().into_iter().flatten();
        match names.filter_map(Value::as_str).find(|app| !app.starts_with(APP_PREFIX)) {
            Some(app) => bail!(
                "the database holds logs of \"{app}\"; this archives everything at once, so it wants an empty \
                 database and an empty bucket"
            ),
            None => Ok(()),
        }
    }

    /// CPU seconds so far of the daemon, and of the database.
    pub(super) fn cpu(&self) -> (f64, f64) {
        let database = self.database.map_or(0.0, |process| process.cpu().as_secs_f64());
        (self.daemon.cpu().as_secs_f64(), database)
    }

    pub(super) fn db(&self) -> &Arc<Db> {
        &self.catalog.cluster.servers()[0]
    }

    /// Stops the daemon as an operator would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM)?;
        }
        self.child.wait().await?;
        self.catalog.cluster.close().await;
        Ok(())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Nothing runs by itself, and what is finished is due at once.
fn overrides(port: u16, folder: Option<&Path>) -> Vec<(String, String)> {
    let mut env = vec![
        ("LOGTIER_SERVER__LISTEN", format!("127.0.0.1:{port}")),
        ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s".to_owned()),
        ("LOGTIER_ARCHIVE__MAX_DELAY", "0s".to_owned()),
        ("LOGTIER_ARCHIVE__PURGE_GRACE", "1s".to_owned()),
        ("LOGTIER_ARCHIVE__SCHEDULE", "0 0 1 1 *".to_owned()),
        ("LOGTIER_LOG__LEVEL", "warn".to_owned()),
    ];
    if let Some(folder) = folder {
        env.push(("LOGTIER_DATA_DIR", folder.display().to_string()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn database_of(db: &Db) -> Option<Process> {
    if db.engine() == Engine::Sqlite {
        return None;
    }
    let file = sql::pid_file(db).await?;
    let pid = std::fs::read_to_string(file).ok()?;
    Some(Process::new(pid.trim().parse().ok()?))
}
