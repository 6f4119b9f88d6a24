//! `logtier import`: brings the logs that other systems stored into a running daemon, with their own times.
//!
//! # Every line once
//!
//! A journal on disk remembers which logs are done, so that a second import, or one after a kill, goes on with the
//! rest. It is a shortcut, not what safety rests on: a log whose instance is known to the daemon already is compared
//! line by line with what is stored there, and only what is missing is appended. Each batch says at which line it
//! belongs, so that of two writers one is refused and compares again. So a log may be imported by two imports at
//! once, or after its lines came another way, or again without its journal.
//!
//! # Bounds
//!
//! A log is read in pieces and never held whole. As many logs are under way as `--parallel` says. What is
//! remembered of a source (ids, places of chunks) is bounded in the source's own file.
//!
//! Invariant: nothing here writes to what it imports from.

mod files;
mod gridfs;
mod journal;
mod mysql;
mod objects;
mod pattern;
mod plain;
mod powerjob;
mod progress;
mod report;
mod sql;
mod stored;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use encoding_rs::Encoding;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use self::journal::Journal;
use self::progress::Progress;
use self::report::{Brought, Report, Skip};
use super::client::{Call, Client, Patience};
use super::{Exit, Session, args};
use crate::clock::Clock;
use crate::model::{AttemptNo, Instance, Job, Labels, Millis, Outcome};

/// A piece of a log that is read at once: far below `max_allowed_packet`, far above the cost of a request.
const PIECE_BYTES: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// PowerJob's stored logs: its MySQL table, its bucket, or a dump of its MongoDB
    Powerjob(powerjob::PowerjobArgs),
    /// A tree of log files
    Files(files::FilesArgs),
}

/// What every import understands.
#[derive(Debug, Args)]
struct Common {
    /// Say what would be imported, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The encoding of the files, if it is not UTF-8, such as gbk
    #[arg(long, value_name = "NAME", value_parser = charset)]
    charset: Option<&'static Encoding>,
    /// How many logs are under way at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Look again at logs that were imported before; lines that are there are not repeated
    #[arg(long)]
    again: bool,
    /// Where to remember what is done [default: a file under $XDG_STATE_HOME/logtier/import]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// How long a daemon that does not answer, or is busy, is waited for
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = args::span)]
    retry_for: Duration,
}

fn charset(name: &str) -> Result<&'static Encoding, String> {
    let found = Encoding::for_label(name.as_bytes()).filter(|found| found.is_ascii_compatible());
    found.ok_or_else(|| format!("\"{name}\" is no encoding in which lines can be found, expected one such as gbk"))
}

impl ImportCommand {
    /// What `--url` names where it is no http address is the source; then another url is the daemon's.
    pub(super) fn adopt(&mut self, url: &mut String) {
        let Self::Powerjob(powerjob::PowerjobArgs { from, .. }) = self else { return };
        if from.is_none() && !url.starts_with("http://") && !url.starts_with("https://") {
            let daemon = std::env::var("LOGTIER_URL").ok().filter(|daemon| !daemon.is_empty());
            let daemon = daemon.unwrap_or_else(|| super::DEFAULT_URL.to_owned());
            *from = Some(std::mem::replace(url, daemon));
        }
    }
}

pub(super) async fn import(session: &mut Session, command: ImportCommand) -> anyhow::Result<Exit> {
    match command {
        ImportCommand::Powerjob(args) => powerjob::import(session, args).await,
        ImportCommand::Files(args) => files::import(session, args).await,
    }
}

/// Prints the report, also of an import that failed half-way.
fn conclude(session: &mut Session, report: &Report, result: anyhow::Result<()>) -> anyhow::Result<Exit> {
    for line in report.lines(session.clock.instant()) {
        session.out.line(&line)?;
    }
    result.context("stopped; the same command goes on where it stopped")?;
    Ok(report.exit())
}

/// A stored log, and where it belongs.
#[derive(Debug)]
struct Log<K> {
    /// What people know it by.
    name: String,
    /// Changes with its content, as far as the source tells.
    version: String,
    bytes: u64,
    target: Target,
    /// How the source finds it.
    key: K,
}

#[derive(Debug, Clone)]
struct Target {
    instance: Instance,
    attempt: AttemptNo,
    job: Option<Job>,
    labels: Labels,
    /// When the instance began; lines without a time of their own have it.
    started_at: Millis,
    end: End,
}

/// What is known of the instance's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It runs.
    Open,
    /// It is over; without a time since its last line.
    Over { outcome: Option<Outcome>, at: Option<Millis> },
}

/// What a source comes upon.
#[derive(Debug)]
enum Found<K> {
    Log(Log<K>),
    Skipped { name: String, why: Skip },
}

/// Where logs are stored.
trait Source {
    /// How it finds a log again.
    type Key;

    /// Some more of what there is; `None` after the last.
    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<Found<Self::Key>>>>;

    /// At most [`PIECE_BYTES`] of a log from `offset` on, none at its end; `None` where the log is gone.
    async fn read(&self, key: &Self::Key, offset: u64) -> anyhow::Result<Option<Bytes>>;

    /// Cuts a log into lines.
    fn lines(&self, log: &Log<Self::Key>) -> Lines;
}

/// How a log's bytes become lines.
enum Lines {
    PowerJob(crate::protocol::powerjob::Parser),
    Plain(plain::PlainParser),
}

/// One run of an import.
struct Importer<'a> {
    client: &'a Client,
    clock: &'a Clock,
    app: &'a str,
    common: &'a Common,
    journal: RefCell<Journal>,
    report: RefCell<Report>,
    progress: RefCell<Progress>,
}

impl<'a> Importer<'a> {
    /// `source` names what is imported, without secrets.
    async fn new(session: &'a Session, common: &'a Common, source: &str) -> anyhow::Result<Self> {
        let Session { client, app, clock, .. } = session;
        let journal = match common.dry_run {
            true => Journal::none(),
            false => {
                let status: Value = client.json_patiently(&status_call(), &mut Patience::new(common.retry_for)).await?;
                let cluster = status.get("cluster_id").and_then(Value::as_str).unwrap_or_default();
                let path = common.journal.clone().map_or_else(|| journal::default_path(&[source, cluster, app]), Ok)?;
                Journal::open(&path).with_context(|| format!("open the journal {}", path.display()))?
            }
        };
        Ok(Self {
            client,
            clock,
            app,
            common,
            journal: RefCell::new(journal),
            report: RefCell::new(Report::new(clock.instant())),
            progress: RefCell::new(Progress::new(clock.clone())),
        })
    }

    /// Imports all that the source has; the report is there whether it worked or not.
    async fn run<S: Source>(self, source: &mut S) -> (Report, anyhow::Result<()>) {
        let result = self.all(source).await;
        self.progress.borrow_mut().end();
        (self.report.into_inner(), result)
    }

    async fn all<S: Source>(&self, source: &mut S) -> anyhow::Result<()> {
        while let Some(page) = source.next_page().await? {
            let source = &*source;
            let mut under_way = futures::stream::iter(page)
                .map(|found| self.one(source, found))
                .buffer_unordered(usize::from(self.common.parallel));
            while under_way.try_next().await?.is_some() {}
        }
        Ok(())
    }

    async fn one<S: Source>(&self, source: &S, found: Found<S::Key>) -> anyhow::Result<()> {
        let log = match found {
            Found::Log(log) => log,
            Found::Skipped { name, why } => {
                self.report.borrow_mut().skipped(&name, why);
                self.progress.borrow_mut().log_done();
                return Ok(());
            }
        };
        let done_before = !self.common.again && self.journal.borrow().holds(&log.name, &log.version);
        let brought = match done_before {
            true => Brought::Before,
            false if self.common.dry_run && log.bytes == 0 => Brought::Skipped(Skip::Empty),
            false if self.common.dry_run => Brought::Would,
            false => self.bring(source, &log).await.with_context(|| format!("import {}", log.name))?,
        };
        if matches!(brought, Brought::Lines { .. } | Brought::AlreadyThere) {
            self.journal.borrow_mut().note(&log.name, &log.version).context("write the journal")?;
        }
        self.report.borrow_mut().brought(&log.name, log.bytes, brought);
        self.progress.borrow_mut().log_done();
        Ok(())
    }
}

fn status_call() -> Call {
    Call::new(reqwest::Method::GET, "/status")
}
