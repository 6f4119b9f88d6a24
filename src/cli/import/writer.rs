//! Brings one log into the daemon: what is stored, what is missing, the end.

use std::borrow::Cow;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plain::PlainLine;
use super::report::{Brought, Skip};
use super::stored::{Stored, StoredLog};
use super::{End, Importer, Lines, Log, Source, Target};
use crate::cli::client::{Call, ClientError};
use crate::cli::record::NewRecord;
use crate::cli::split::{BATCH_BYTES, BATCH_LINES};
use crate::model::{Level, Timestamp};
use crate::protocol::known::Fingerprint;
use crate::protocol::powerjob;

/// How often another writer of the same instance may be faster before the import gives up on it.
const MAX_RACES: u32 = 5;

/// Why a try ended before the log was in.
#[derive(Debug)]
enum Stop {
    /// Another writer appended in between: compare again.
    Raced,
    Skip(Skip),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Importer<'_> {
    pub(super) async fn bring<S: Source>(&self, source: &S, log: &Log<S::Key>) -> anyhow::Result<Brought> {
        for _ in 0..MAX_RACES {
            match self.try_to_bring(source, log).await {
                Ok(brought) => return Ok(brought),
                Err(Stop::Skip(why)) => return Ok(Brought::Skipped(why)),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Raced) => {}
            }
        }
        bail!("someone else writes to instance {} all the time; import it when it is over", log.target.instance)
    }

    async fn try_to_bring<S: Source>(&self, source: &S, log: &Log<S::Key>) -> Result<Brought, Stop> {
        let stored = match self.stored(&log.target).await? {
            Stored::Nothing => StoredLog::default(),
            Stored::Some(stored) => *stored,
            Stored::Gone => return Err(Stop::Skip(Skip::Gone)),
            Stored::TooLarge => return Err(Stop::Skip(Skip::TooLarge)),
        };
        let mut writer = Writer::new(self, &log.target, stored);
        let mut lines = source.lines(log);
        let mut offset = 0;
        loop {
            let piece = source.read(&log.key, offset).await?.ok_or(Stop::Skip(Skip::Vanished))?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            lines.push(&piece, &mut writer);
            self.progress.borrow_mut().read(piece.len());
            writer.send_full().await?;
        }
        if offset == 0 {
            return Err(Stop::Skip(Skip::Empty));
        }
        lines.finish(&mut writer);
        writer.send_all().await?;
        writer.end().await
    }
}

impl Lines {
    fn push(&mut self, piece: &[u8], writer: &mut Writer<'_>) {
        match self {
            Self::PowerJob(parser) => never(parser.push(piece, |line| writer.powerjob(line))),
            Self::Plain(parser) => parser.push(piece, |line| writer.plain(line)),
        }
    }

    fn finish(self, writer: &mut Writer<'_>) {
        match self {
            Self::PowerJob(parser) => never(parser.finish(|line| {
                // A file may lack its last line break; the log goes on all the same.
                writer.powerjob(powerjob::Line { partial: false, ..line })
            })),
            Self::Plain(parser) => parser.finish(|line| writer.plain(line)),
        }
    }
}

fn never(result: Result<(), std::convert::Infallible>) {
    let Ok(()) = result;
}

/// What the daemon answers to a batch.
#[derive(Debug, Deserialize)]
struct Appended {
    next_line: u64,
    #[serde(default)]
    rejected: Vec<Value>,
}

/// Gathers the lines that are missing into batches and sends them.
struct Writer<'a> {
    importer: &'a Importer<'a>,
    target: &'a Target,
    stored: StoredLog,
    declared: bool,
    /// Whole batches that wait, and the one that grows.
    full: Vec<Vec<u8>>,
    batch: Vec<u8>,
    batch_lines: u64,
    new: u64,
    known: u64,
    last_ts: Option<Timestamp>,
}

impl<'a> Writer<'a> {
    fn new(importer: &'a Importer<'a>, target: &'a Target, stored: StoredLog) -> Self {
        Self {
            importer,
            target,
            stored,
            declared: false,
            full: Vec::new(),
            batch: Vec::new(),
            batch_lines: 0,
            new: 0,
            known: 0,
            last_ts: None,
        }
    }

    fn powerjob(&mut self, line: powerjob::Line<'_>) -> Result<(), std::convert::Infallible> {
        let message = self.in_utf8(line.message);
        let line = powerjob::Line { message: &message, ..line };
        self.add(line.ts, line.fingerprint(), |json| {
            line.record().write_json(json);
            json.push(b'\n');
        });
        Ok(())
    }

    fn plain(&mut self, line: PlainLine<'_>) {
        let PlainLine { ts, level, message, partial } = line;
        let message = self.in_utf8(message);
        let print = Fingerprint::of(ts, level.map_or("", Level::as_str), "", &message);
        let record = NewRecord { ts: Some(ts), level, source: "", message: &message, partial };
        self.add(ts, print, |json| record.write(json));
    }

    /// Takes a line, unless it is stored already.
    fn add(&mut self, ts: Timestamp, print: Fingerprint, write: impl FnOnce(&mut Vec<u8>)) {
        self.last_ts = self.last_ts.max(Some(ts));
        if !self.stored.lines.is_empty() && self.stored.lines.take(print) {
            self.known += 1;
            return;
        }
        write(&mut self.batch);
        self.batch_lines += 1;
        if self.batch_lines == BATCH_LINES || self.batch.len() >= BATCH_BYTES {
            self.batch_lines = 0;
            self.full.push(std::mem::take(&mut self.batch));
        }
    }

    /// Honours `--charset`; bytes that are wrong in it stay as they are.
    fn in_utf8<'m>(&self, message: &'m [u8]) -> Cow<'m, [u8]> {
        let Some(charset) = self.importer.common.charset else { return message.into() };
        match charset.decode_without_bom_handling_and_without_replacement(message) {
            Some(Cow::Owned(text)) => text.into_bytes().into(),
            _ => message.into(),
        }
    }

    async fn send_full(&mut self) -> Result<(), Stop> {
        for batch in std::mem::take(&mut self.full) {
            self.send(batch).await?;
        }
        Ok(())
    }

    async fn send_all(&mut self) -> Result<(), Stop> {
        self.send_full().await?;
        match std::mem::take(&mut self.batch) {
            batch if batch.is_empty() => Ok(()),
            batch => self.send(batch).await,
        }
    }

    /// Appends a batch at the line where it belongs, or nowhere.
    async fn send(&mut self, batch: Vec<u8>) -> Result<(), Stop> {
        self.declare().await?;
        // The key makes it safe to ask again after a lost answer; the line, to have been killed before.
        let key = format!("import-{}", self.importer.clock.new_ulid());
        let lines = memchr::memchr_iter(b'\n', &batch).count() as u64;
        let call = self
            .call(Method::POST, "/records")
            .query("attempt", self.target.attempt)
            .query("at_line", self.stored.next_line)
            .header(HeaderName::from_static("idempotency-key"), key)
            .body("application/x-ndjson", batch.into());
        let answer = self.importer.client.json_patiently::<Appended>(&call, &mut self.importer.patience()).await;
        let appended = match answer {
            Err(error) if error.status() == Some(409) => return Err(Stop::Raced),
            answer => self.or_gone(answer)?,
        };
        if let Some(first) = appended.rejected.first() {
            return Err(anyhow::anyhow!("the daemon refused a line: {first}").into());
        }
        self.stored.next_line = appended.next_line;
        self.new += lines;
        Ok(())
    }

    /// Says whose log it is and when it began, once.
    async fn declare(&mut self) -> Result<(), Stop> {
        if std::mem::replace(&mut self.declared, true) {
            return Ok(());
        }
        let Target { attempt, job, labels, started_at, .. } = self.target;
        let mut body = json!({ "attempt": attempt.get(), "labels": labels, "started_at": started_at.to_string() });
        if let Some(job) = job {
            body["job"] = job.as_str().into();
        }
        let call = self.call(Method::PUT, "").json(&body);
        let answer = self.importer.client.json_patiently::<Value>(&call, &mut self.importer.patience()).await;
        self.or_gone(answer)?;
        Ok(())
    }

    async fn end(mut self) -> Result<Brought, Stop> {
        let mut other_outcome = false;
        if let End::Over { outcome, at } = self.target.end
            && (self.new > 0 || !self.stored.finished)
        {
            self.declare().await?;
            let last = self.last_ts.unwrap_or(self.target.started_at.timestamp());
            let at = at.map_or(last, crate::model::Millis::timestamp);
            let mut body = json!({ "attempt": self.target.attempt.get(), "finished_at": at.to_string() });
            if let Some(outcome) = outcome {
                body["outcome"] = outcome.as_str().into();
            }
            let call = self.call(Method::POST, "/finish").json(&body);
            let answer = self.importer.client.json_patiently::<Value>(&call, &mut self.importer.patience()).await;
            match answer {
                // Someone finished it otherwise; the lines are there, and that is what we owe.
                Err(error) if error.status() == Some(409) => other_outcome = true,
                answer => drop(self.or_gone(answer)?),
            }
        } else if self.new == 0 {
            return Ok(Brought::AlreadyThere);
        }
        Ok(Brought::Lines { new: self.new, known: self.known, other_outcome })
    }

    fn call(&self, method: Method, tail: &str) -> Call {
        Call::on_instance(method, self.importer.app, self.target.instance.as_str(), tail)
    }

    /// 410: its retention ended, or someone deleted it.
    fn or_gone<T>(&self, answer: Result<T, ClientError>) -> Result<T, Stop> {
        match answer {
            Err(error) if error.status() == Some(410) => Err(Stop::Skip(Skip::Gone)),
            answer => Ok(answer.with_context(|| format!("write to instance {}", self.target.instance))?),
        }
    }
}
