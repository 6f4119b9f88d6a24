//! `logtier push`: sends a file or stdin as the log of an instance.
//!
//! Each batch carries a key made of the push's key and the batch's number, so that sending it
//! again after a lost answer stores nothing twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::client::{Call, Client, ClientError, Patience, shows_progress};
use super::output::{count, number};
use super::record::NewRecord;
use super::split::{BATCH_BYTES, Batch, LONGEST_LINE, Splitter};
use super::{Exit, Session, args, spool};
use crate::clock::{Clock, random_u32};
use crate::ingest::{Defaults, decode_bulk};
use crate::model::AttemptKey;

/// A slow writer's lines are sent after so long, full batch or not.
const LINGER: Duration = Duration::from_millis(500);
/// How often progress is drawn.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// How many refused lines are named; the rest is counted.
const SHOWN_REJECTED: usize = 10;

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// Whose log this is
    #[arg(required_unless_present = "spool")]
    instance: Option<String>,
    /// What to send; "-" is stdin, and so is nothing at all
    file: Option<PathBuf>,
    #[command(flatten)]
    about: About,
    /// The worker that wrote it
    #[arg(long)]
    source: Option<String>,
    /// A line is a message (text) or a record (ndjson)
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A key that makes pushing the same file again harmless; a random one if not given
    #[arg(long)]
    key: Option<String>,
    /// The encoding of text that is not UTF-8, such as gbk
    #[arg(long)]
    charset: Option<String>,
    /// Say afterwards that the instance is over
    #[arg(long, value_name = "OUTCOME", num_args = 0..=1, require_equals = true, default_missing_value = "succeeded")]
    finish: Option<FinishedAs>,
    /// How long a daemon that does not answer, or is busy, is waited for
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = args::span)]
    retry_for: Duration,
    /// First deliver what earlier runs of `exec` had to leave in a spool, whichever daemon it was meant for
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    spool: Option<Option<PathBuf>>,
}

/// What is known of an attempt besides its lines.
#[derive(Debug, Clone, Args)]
pub(super) struct About {
    /// The job that the instance is a run of
    #[arg(long)]
    pub(super) job: Option<String>,
    /// Which attempt; 1 if not given
    #[arg(long, value_name = "N", value_parser = args::number)]
    pub(super) attempt: Option<u64>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = args::label)]
    pub(super) labels: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Ndjson,
    /// By the first line: records if it is one; lines among them that are none are kept as text
    #[default]
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FinishedAs {
    Succeeded,
    Failed,
    Cancelled,
}

impl FinishedAs {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What the daemon answers to a batch.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Appended {
    #[serde(default)]
    attempt: Option<u64>,
    #[serde(default)]
    first_line: u64,
    #[serde(default)]
    lines: u64,
    #[serde(default)]
    next_line: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    error: String,
}

/// What a refusal says of each line, where all lines of a batch were refused.
fn all_rejected(error: &ClientError) -> Option<Appended> {
    let ClientError::Problem(problem) = error else { return None };
    problem.body.get("rejected")?;
    serde_json::from_value(problem.body.clone()).ok()
}

/// The call that declares an attempt with its job and labels.
pub(super) fn declare_call(app: &str, instance: &str, about: &About) -> Call {
    let mut body = serde_json::Map::new();
    if let Some(job) = &about.job {
        body.insert("job".to_owned(), job.as_str().into());
    }
    if let Some(attempt) = about.attempt {
        body.insert("attempt".to_owned(), attempt.into());
    }
    if !about.labels.is_empty() {
        let labels: BTreeMap<_, _> = about.labels.iter().cloned().collect();
        body.insert("labels".to_owned(), serde_json::json!(labels));
    }
    Call::on_instance(Method::PUT, app, instance, "").json(&Value::Object(body))
}

/// The call that appends lines; `key` makes it safe to repeat.
pub(super) fn append_call(app: &str, instance: &str, attempt: Option<u64>, key: &str) -> Call {
    Call::on_instance(Method::POST, app, instance, "/records")
        .query_opt("attempt", attempt)
        .header(HeaderName::from_static("idempotency-key"), key)
}

/// The call that says that an attempt is over.
pub(super) fn finish_call(
    app: &str,
    instance: &str,
    about: &About,
    outcome: Option<FinishedAs>,
    lines: Option<u64>,
) -> Call {
    let members = [
        ("attempt", about.attempt.map(Value::from)),
        ("job", about.job.as_deref().map(Value::from)),
        ("outcome", outcome.map(|outcome| outcome.as_str().into())),
        ("lines", lines.map(Value::from)),
    ];
    let body = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    Call::on_instance(Method::POST, app, instance, "/finish").json(&Value::Object(body))
}

/// Shows the warnings that an answer may carry.
pub(super) fn show_warnings(answer: &Value) {
    let listed = answer.get("warnings").and_then(Value::as_array).into_iter().flatten();
    for warning in listed.chain(answer.get("warning")).filter_map(Value::as_str) {
        eprintln!("logtier: warning: {warning}");
    }
}

pub(super) async fn push(session: &mut Session, args: PushArgs) -> anyhow::Result<Exit> {
    if let Some(dir) = &args.spool {
        let root = dir.clone().map_or_else(spool::default_root, Ok)?;
        spool::deliver_waiting(&session.client, &root, spool::Whose::Everyones, &mut Patience::new(args.retry_for))
            .await?;
    }
    let Some(instance) = &args.instance else { return Ok(Exit::Done) };
    let input: Box<dyn AsyncRead + Unpin> = match args.file.as_deref() {
        Some(file) if file.as_os_str() != "-" => {
            Box::new(tokio::fs::File::open(file).await.with_context(|| format!("open {}", file.display()))?)
        }
        _ => Box::new(tokio::io::stdin()),
    };
    let mut patience = Patience::new(args.retry_for);
    if args.about.job.is_some() || !args.about.labels.is_empty() {
        let call = declare_call(&session.app, instance, &args.about);
        show_warnings(&session.client.json_patiently(&call, &mut patience).await?);
    }
    let mut pusher = Pusher::new(session, instance, &args, patience);
    let sent = pusher.send_all(input).await;
    pusher.end_progress();
    sent.map_err(|error| pusher.broken_off(error))?;
    let (mut patience, flawed) = (pusher.patience.clone(), pusher.rejected > 0);
    eprintln!("{}", pusher.summary());
    if let Some(outcome) = args.finish {
        let lines = pusher.whole_log();
        let call = finish_call(&session.app, instance, &args.about, Some(outcome), lines);
        show_warnings(&session.client.json_patiently(&call, &mut patience).await?);
        eprintln!("finished {}/{instance} as {}", session.app, outcome.as_str());
    }
    Ok(if flawed { Exit::Flawed } else { Exit::Done })
}

/// What to do next, which stands for whatever the causes advise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Advice(String);

/// Sends one stream of lines.
struct Pusher<'a> {
    client: &'a Client,
    clock: &'a Clock,
    app: &'a str,
    instance: &'a str,
    args: &'a PushArgs,
    /// Batch keys are this and the batch's number.
    key: String,
    batches: u64,
    format: Format,
    /// The first line was a record, in the format `auto`.
    among_records: bool,
    patience: Patience,
    /// Lines read, and records that the daemon took and refused of them.
    read: u64,
    taken: u64,
    rejected: u64,
    bytes: u64,
    /// The lines that this push got, from the first to after the last.
    range: Option<(u64, u64)>,
    /// Whether nobody else wrote in between.
    alone: bool,
    attempt: Option<u64>,
    drawn: Option<Instant>,
}

impl<'a> Pusher<'a> {
    fn new(session: &'a Session, instance: &'a str, args: &'a PushArgs, patience: Patience) -> Self {
        let key = args.key.clone().unwrap_or_else(|| format!("push-{}-{:08x}", session.clock.new_ulid(), random_u32()));
        Self {
            client: &session.client,
            clock: &session.clock,
            app: &session.app,
            instance,
            args,
            key,
            batches: 0,
            format: args.format,
            among_records: false,
            patience,
            read: 0,
            taken: 0,
            rejected: 0,
            bytes: 0,
            range: None,
            alone: true,
            attempt: None,
            drawn: None,
        }
    }

    async fn send_all(&mut self, mut input: Box<dyn AsyncRead + Unpin>) -> anyhow::Result<()> {
        let mut splitter = Splitter::default();
        loop {
            while let Some(batch) = splitter.next_full() {
                self.send(batch).await?;
            }
            // What can be sent again with the same key must come out in the same batches each time.
            let hurry = splitter.holds_lines() && self.args.key.is_none() && !self.can_be_read_again();
            let reading = input.read_buf(splitter.buffer());
            let read = if hurry { tokio::time::timeout(LINGER, reading).await } else { Ok(reading.await) };
            match read {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error).context("read the input"),
                Err(_) => {
                    if let Some(batch) = splitter.next_lines() {
                        self.send(batch).await?;
                    }
                }
            }
        }
        while let Some(batch) = splitter.next_rest() {
            self.send(batch).await?;
        }
        Ok(())
    }

    async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        let key = format!("{}-{}", self.key, self.batches);
        self.batches += 1;
        let mut call = append_call(self.app, self.instance, self.args.about.attempt, &key)
            .query_opt("job", self.args.about.job.as_ref())
            .query_opt("source", self.args.source.as_ref());
        let first = self.read;
        match batch {
            Batch::Lines { bytes, lines } => {
                if self.format == Format::Auto && !self.among_records && !looks_like_records(&bytes) {
                    self.format = Format::Text;
                }
                (self.read, self.bytes) = (self.read + lines, self.bytes + bytes.len() as u64);
                call = match self.format {
                    Format::Ndjson => call.body("application/x-ndjson", bytes),
                    Format::Auto => {
                        self.among_records = true;
                        call.body("application/x-ndjson", with_text_as_records(bytes, self.attempt_key()))
                    }
                    _ => call.query_opt("charset", self.args.charset.as_ref()).body("text/plain", bytes),
                };
            }
            Batch::Piece { bytes, last } => {
                self.bytes += bytes.len() as u64;
                call = call.body("application/x-ndjson", self.piece(&bytes, last)?);
                self.read += u64::from(last);
            }
        }
        let appended = match self.client.json_patiently(&call, &mut self.patience).await {
            // Not one line of the batch was a record.
            Err(error) => all_rejected(&error).ok_or(error)?,
            Ok(appended) => appended,
        };
        self.note(&appended, first);
        self.draw_progress();
        Ok(())
    }

    /// What the records of this push may name; `None` where the daemon will refuse the names.
    fn attempt_key(&self) -> Option<AttemptKey> {
        let attempt = self.args.about.attempt.map_or(Ok(1), i64::try_from).ok()?;
        Some(AttemptKey {
            app: self.app.parse().ok()?,
            instance: self.instance.parse().ok()?,
            attempt: attempt.try_into().ok()?,
        })
    }

    /// A piece of a line that is too long for one body, as a record that the next goes on with.
    fn piece(&mut self, message: &[u8], last: bool) -> anyhow::Result<Bytes> {
        let line = self.read + 1;
        if self.format == Format::Ndjson || self.args.charset.is_some() {
            anyhow::bail!("line {line} is longer than {LONGEST_LINE} bytes, which only text in UTF-8 may be");
        }
        if !self.among_records {
            self.format = Format::Text;
        }
        let mut json = Vec::with_capacity(message.len() + 64);
        NewRecord { ts: None, level: None, source: "", message, partial: !last }.write(&mut json);
        Ok(json.into())
    }

    fn note(&mut self, appended: &Appended, first: u64) {
        self.taken += appended.lines;
        self.attempt = appended.attempt.or(self.attempt);
        if appended.lines > 0 {
            let (from, to) = (appended.first_line, appended.next_line);
            self.alone &= self.range.is_none_or(|(_, end)| end == from);
            self.range = Some((self.range.map_or(from, |(start, _)| start), to));
        }
        for rejected in &appended.rejected {
            if (self.rejected as usize) < SHOWN_REJECTED {
                eprintln!("logtier: line {} was refused: {}", first + rejected.index + 1, rejected.error);
            }
            self.rejected += 1;
        }
    }

    /// The number of lines that must be there when this push is the whole log.
    fn whole_log(&self) -> Option<u64> {
        match self.range {
            Some((0, end)) if self.alone => Some(end),
            _ => None,
        }
    }

    fn summary(&self) -> String {
        let mut text = format!("pushed {} to {}/{}", count(self.taken, "line"), self.app, self.instance);
        if let Some(attempt) = self.attempt.filter(|&attempt| attempt != 1) {
            text.push_str(&format!(", attempt {attempt}"));
        }
        if let Some((from, to)) = self.range {
            let among = if self.alone { "" } else { "among " };
            text.push_str(&format!(", {among}lines {from}..{to}"));
        }
        if self.taken + self.rejected > self.read {
            text.push_str(&format!(", from {} read: a long one takes several", number(self.read)));
        }
        if self.rejected > 0 {
            text.push_str(&format!("; {} refused", number(self.rejected)));
        }
        text
    }

    fn can_be_read_again(&self) -> bool {
        self.args.file.as_ref().is_some_and(|file| file.as_os_str() != "-")
    }

    /// The error of a push of which something was taken says how to go on, and no other advice.
    fn broken_off(&self, error: anyhow::Error) -> anyhow::Error {
        let taken = count(self.taken, "line");
        if matches!(error.downcast_ref(), Some(ClientError::Problem(problem)) if problem.status == 422) {
            return error.context(format!("{taken} taken before it failed"));
        }
        let again = match self.can_be_read_again() || self.args.key.is_some() {
            true => format!("push the same file again with --key {} to go on where it stopped", self.key),
            false => "nothing tells a second push of it from new lines; see --key".to_owned(),
        };
        error.context(Advice(format!("{taken} taken before it failed ({again})")))
    }

    fn draw_progress(&mut self) {
        let now = self.clock.instant();
        if !shows_progress() || self.drawn.is_some_and(|drawn| now.duration_since(drawn) < PROGRESS_EVERY) {
            return;
        }
        self.drawn = Some(now);
        eprint!("\r\x1b[K{}, {}", count(self.read, "line"), super::output::bytes(self.bytes));
    }

    fn end_progress(&self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Whether the first line that is not blank is a record.
fn looks_like_records(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let first = bytes.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    let Some(first) = first.filter(|line| line.first() == Some(&b'{')) else { return false };
    serde_json::from_slice::<Value>(first).is_ok_and(|record| record.get("message").is_some_and(Value::is_string))
}

/// A program that logs JSON also prints stack traces: where a batch holds a line that the daemon
/// would refuse as a record, such lines, empty ones too, become the messages of records.
fn with_text_as_records(bytes: Bytes, key: Option<AttemptKey>) -> Bytes {
    let max_record_bytes = BATCH_BYTES;
    let defaults = Defaults { key, max_record_bytes, ..Defaults::default() };
    if decode_bulk(&bytes, &defaults).rejected.is_empty() {
        return bytes;
    }
    let mut records = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    for line in bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|&b| b == b'\n') {
        if decode_bulk(line, &defaults).accepted == 1 {
            records.extend_from_slice(line);
            records.push(b'\n');
        } else {
            NewRecord { ts: None, level: None, source: "", message: line, partial: false }.write(&mut records);
        }
    }
    records.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::testing::{Answer, Seen, Server};
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content).expect("written");
        file
    }

    /// Counts lines as the daemon does.
    fn counting() -> impl FnMut(&Seen) -> Answer + Send + 'static {
        let mut next = 0;
        move |seen: &Seen| {
            if !seen.target.contains("/records") {
                return Answer::json(200, &serde_json::json!({"warnings": ["w"]}));
            }
            let (first, lines) = (next, seen.text().lines().count());
            next += lines;
            Answer::json(
                200,
                &serde_json::json!({"attempt": 1, "first_line": first, "lines": lines, "next_line": next}),
            )
        }
    }

    #[tokio::test]
    async fn a_file_goes_in_batches_with_keys() {
        let content: String = (0..4_500).map(|n| format!("line {n}\r\n")).collect();
        let file = file(content.as_bytes());
        let server = Server::with(counting()).await;
        let line = format!("push run-1 {} --job j --label a=b --key k --finish", file.path().display());
        assert_eq!(server.run(&line).await.0.expect("pushed"), Exit::Done);
        let seen = server.seen();
        assert_eq!((seen[0].method.as_str(), seen[0].text().as_str()), ("PUT", r#"{"job":"j","labels":{"a":"b"}}"#));
        let keys: Vec<_> = seen[1..4].iter().map(|seen| seen.header("idempotency-key")).collect();
        assert_eq!(keys, ["k-0", "k-1", "k-2"]);
        assert_eq!(seen[1].header("content-type"), "text/plain");
        assert_eq!(seen[1..4].iter().map(Seen::text).collect::<String>(), content);
        assert_eq!(seen[4].text(), r#"{"job":"j","lines":4500,"outcome":"succeeded"}"#);
    }

    #[tokio::test]
    async fn a_busy_daemon_is_asked_again_with_the_same_key() {
        let file = file(b"a\n\xFF\nb");
        let busy = Answer::problem(503, "queue is full").header("retry-after", "0");
        let limited = Answer::status(429).header("retry-after", "0");
        let taken = serde_json::json!({"attempt": 1, "first_line": 0, "lines": 3, "next_line": 3});
        let server = Server::start([busy, limited, Answer::json(200, &taken)]).await;
        let line = format!("push run-1 {}", file.path().display());
        assert_eq!(server.run(&line).await.0.expect("pushed"), Exit::Done);
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|request| request.header("idempotency-key") == seen[0].header("idempotency-key")));
        assert!(seen.iter().all(|request| &request.body[..] == b"a\n\xFF\nb"));
    }

    #[tokio::test]
    async fn for_good_means_at_once() {
        let file = file(b"a\n");
        let server = Server::start([Answer::problem(422, "the key was used for other content")]).await;
        let line = format!("push run-1 {} --key k", file.path().display());
        let error = format!("{:#}", server.run(&line).await.0.expect_err("refused"));
        assert!(error.contains("used for other content") && !error.contains("--key k"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_record_stays_as_text_unless_records_are_demanded() {
        let content = "{\"message\":\"a\"}\nTraceback:\n\n{\"msg\":1}\n{\"message\":\"b\",\"ts\":\"odd\"}\n";
        let mixed = file(content.as_bytes());
        let server = Server::with(counting()).await;
        let (exit, _) = server.run(&format!("push run-1 {}", mixed.path().display())).await;
        assert_eq!(exit.expect("pushed"), Exit::Done);
        let sent = server.seen()[0].text();
        let messages: Vec<String> = sent
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("a record")["message"].as_str().expect("text").to_owned()
            })
            .collect();
        assert_eq!(messages, ["a", "Traceback:", "", "{\"msg\":1}", "{\"message\":\"b\",\"ts\":\"odd\"}"]);

        let none = serde_json::json!({"detail": "no record", "accepted": 0, "rejected": [{"index": 0, "error": "no"}]});
        let server = Server::start([Answer::json(400, &none)]).await;
        let (exit, _) = server.run(&format!("push run-1 {} --format ndjson", mixed.path().display())).await;
        assert_eq!(exit.expect("pushed"), Exit::Flawed);
    }

    #[tokio::test]
    async fn records_are_known_by_the_first_line_and_refusals_are_told() {
        let file = file(b"\n{\"message\":\"a\"}\n{\"message\":3}\n");
        let taken = serde_json::json!({"attempt": 1, "first_line": 0, "lines": 1, "next_line": 1,
            "rejected": [{"index": 2, "error": "message must be text"}]});
        let server = Server::start([Answer::json(200, &taken)]).await;
        let (exit, _) = server.run(&format!("push run-1 {}", file.path().display())).await;
        assert_eq!(exit.expect("pushed"), Exit::Flawed);
        assert_eq!(server.seen()[0].header("content-type"), "application/x-ndjson");
    }

    #[tokio::test]
    async fn no_daemon_is_said_with_a_remedy() {
        let (exit, _) = super::super::testing::run_at("http://127.0.0.1:1", "finish run-1 --retry-for 0").await;
        let error = exit.expect_err("nobody listens");
        let client = error.downcast_ref::<ClientError>().expect("a client error");
        assert!(client.to_string().starts_with("no daemon answers at http://127.0.0.1:1"), "{client}");
        assert!(client.hint().is_some_and(|hint| hint.contains("logtier serve")));
    }
}
