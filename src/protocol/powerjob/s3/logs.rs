//! Log files: taken apart into lines, put together again.
//!
//! # What a file means where something is stored already
//!
//! | the file | what is done |
//! | --- | --- |
//! | is a placeholder | nothing: PowerJob had no log, which is not to say that there is none |
//! | has the same bytes as the newest attempt | nothing |
//! | begins with what is stored of it | the rest is appended: a `PUT` that was cut off, or live lines and their file |
//! | has no line that is not stored already, in whatever order | nothing: live lines came in another order, or a server stored the file of an earlier run once more |
//! | completes live lines | the lines that are missing are appended |
//! | is another file than before | a new attempt |

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono_tz::Tz;
use futures::Stream;
use md5::{Digest as _, Md5};
use s3s::{S3Error, S3Result, s3_error};
use tokio::sync::Semaphore;

use super::compare::{self, CompareError, Missing};
use super::spool::Received;
use super::{Described, unavailable};
use crate::ingest::{AppendError, Batch, Defaults, EndError, Facts, decode_bulk};
use crate::model::{App, AttemptKey, AttemptNo, AttemptState, Labels};
use crate::protocol::Parts;
use crate::protocol::known::KnownLines;
use crate::protocol::powerjob::attempts::next;
use crate::protocol::powerjob::log_file::{self, LogFile};
use crate::protocol::powerjob::{InstanceId, Line, Parser, is_placeholder};
use crate::read::{ReadError, View};

/// Records of one batch, in bytes of JSON: a few chunks, far below a commit's bound.
const BATCH_BYTES: usize = 512 << 10;

/// Another writer of the same instance may be faster so often.
const MAX_ROUNDS: u32 = 5;

/// Older attempts whose lines a file is compared with.
const MAX_ATTEMPTS: u32 = 16;

/// Sizes and digests of logs that are remembered: 100 bytes each.
const MAX_MEASURED: usize = 4096;

/// The label of an attempt that came as a file.
const FILE_LABEL: &str = "file";

/// A log that can be given out.
pub struct OpenLog {
    pub described: Described,
    view: View,
}

pub struct Logs {
    parts: Parts,
    app: App,
    zone: Tz,
    measured: Mutex<HashMap<Measured, Measure>>,
    /// One comparison line by line at a time: it takes up to 200 MB.
    comparing: Semaphore,
}

/// The catalog's id of an attempt, and a range of its lines, which never change.
type Measured = (i64, u64, u64);

/// Size and MD5 of a file.
type Measure = (u64, [u8; 16]);

/// What is to be done with a file.
enum Plan {
    /// All of it is stored. Its attempt, where that ends with the file.
    Nothing(Option<AttemptNo>),
    Append(Append),
}

struct Append {
    attempt: AttemptNo,
    /// The next line of the attempt; another writer that is faster means another plan.
    at_line: u64,
    /// From this byte of the file on …
    offset: u64,
    /// … or, of the whole file, only the lines that are missing.
    only: Option<Missing>,
    /// The attempt is of this file and nothing else.
    is_new: bool,
}

/// Why a file is not stored as planned.
enum StoreError {
    /// Another writer was faster: plan again.
    Raced,
    S3(S3Error),
}

impl From<S3Error> for StoreError {
    fn from(error: S3Error) -> Self {
        Self::S3(error)
    }
}

impl Logs {
    pub fn new(parts: Parts, app: App, zone: Tz) -> Self {
        Self { parts, app, zone, measured: Mutex::default(), comparing: Semaphore::new(1) }
    }

    /// The newest attempt, if PowerJob may have it.
    pub async fn open(&self, id: InstanceId) -> S3Result<OpenLog> {
        let view = match self.parts.reader.open(&self.app, &id.instance(), None).await {
            Ok(view) => view,
            Err(ReadError::NeverLogged | ReadError::Gone { .. }) => return Err(s3_error!(NoSuchKey)),
            Err(error) => return Err(unavailable("a log cannot be looked up", &error)),
        };
        if view.attempt.next_line == 0 && !is_file(&view) {
            return Err(s3_error!(NoSuchKey));
        }
        if !view.is_final() {
            tracing::info!(instance = %id, "a log that still grows is not given to PowerJob, which would keep a part of it");
            return Err(s3_error!(ServiceUnavailable, "the log still grows"));
        }
        let (bytes, md5) = self.measure(&view).await.map_err(|error| unavailable("a log cannot be read", &error))?;
        let described = Described { bytes, md5, modified: view.attempt.written_at };
        Ok(OpenLog { described, view })
    }

    pub fn stream(&self, log: &OpenLog) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
        log_file::stream(&self.parts.reader, &log.view, log.view.attempt.lines(), self.zone)
    }

    /// Size and MD5 of the file. PowerJob asks for them and then for the file, so they are remembered: the lines of
    /// an attempt never change.
    async fn measure(&self, view: &View) -> Result<Measure, ReadError> {
        let lines = view.attempt.lines();
        let key = (view.attempt.id.get(), lines.start(), lines.end());
        if let Some(known) = self.measured.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*known);
        }
        let (mut bytes, mut md5) = (0, Md5::new());
        let mut file = LogFile::open(&self.parts.reader, view, lines, self.zone);
        while let Some(piece) = file.next().await? {
            bytes += piece.len() as u64;
            md5.update(&piece);
        }
        let measured = (bytes, md5.finalize().into());
        let mut known = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_MEASURED {
            known.clear();
        }
        known.insert(key, measured);
        Ok(measured)
    }

    /// Stores a file, as far as it is not stored; answers after the last commit.
    pub async fn put(&self, id: InstanceId, file: &mut Received) -> S3Result<()> {
        if file.bytes == file.head.len() as u64 && is_placeholder(&file.head) {
            self.parts.metrics.powerjob_placeholders.inc();
            tracing::info!(instance = %id, "PowerJob stored a placeholder, which is dropped");
            return Ok(());
        }
        for _ in 0..MAX_ROUNDS {
            let append = match self.plan(id, file).await? {
                Plan::Nothing(Some(attempt)) => return self.finish(id, attempt, Labels::default()).await,
                Plan::Nothing(None) => return Ok(()),
                Plan::Append(append) => append,
            };
            let labels = if append.is_new { file_label(id) } else { Labels::default() };
            match self.append(id, file, &append, &labels).await {
                Ok(()) => return self.finish(id, append.attempt, labels).await,
                Err(StoreError::Raced) => {}
                Err(StoreError::S3(error)) => return Err(error),
            }
        }
        Err(s3_error!(ServiceUnavailable, "the instance is written to by too many at once"))
    }

    async fn plan(&self, id: InstanceId, file: &mut Received) -> S3Result<Plan> {
        let newest = match self.parts.reader.show(&self.app, &id.instance(), None).await {
            Ok(view) => view.attempt.attempt,
            Err(ReadError::NeverLogged) => return Ok(Plan::new_attempt(AttemptNo::FIRST)),
            Err(error) => return Err(unavailable("a log cannot be looked up", &error)),
        };
        let view = match self.parts.reader.open(&self.app, &id.instance(), Some(newest)).await {
            Ok(view) => view,
            Err(ReadError::Gone { .. }) => {
                return Err(s3_error!(InvalidObjectState, "the log of this instance is expired or deleted"));
            }
            Err(error) => return Err(unavailable("a log cannot be looked up", &error)),
        };
        let rest = |offset| Append {
            attempt: newest,
            at_line: view.attempt.next_line,
            offset,
            only: None,
            is_new: view.attempt.next_line == 0,
        };
        let is_whole = view.attempt.state == AttemptState::Finished && is_file(&view);
        match compare::bytes(&self.parts.reader, &view, self.zone, file).await.map_err(compare_failed)? {
            compare::Bytes::Equal => Ok(Plan::Nothing(Some(newest))),
            compare::Bytes::Prefix(offset) if !is_whole => Ok(Plan::Append(rest(offset))),
            _ => self.plan_by_lines(id, &view, file).await,
        }
    }

    async fn plan_by_lines(&self, id: InstanceId, view: &View, file: &mut Received) -> S3Result<Plan> {
        let newest = view.attempt.attempt;
        let another = Plan::new_attempt(next(newest));
        let Ok(_one_at_a_time) = self.comparing.acquire().await else { return Err(s3_error!(ServiceUnavailable)) };
        let mut known = KnownLines::default();
        if !self.add_log(view, &mut known).await? {
            return Ok(another);
        }
        let mut missing = self.missing(id, file, &mut known).await?;
        if missing.missing == 0 {
            return Ok(Plan::Nothing(Some(newest)));
        }
        let completes_live_lines = missing.known() > 0 && !is_file(view);
        // Whatever else an older attempt has, too.
        let mut known = KnownLines::default();
        let all = self.parts.reader.attempts(&self.app, &id.instance(), MAX_ATTEMPTS).await;
        let all = all.map_err(|error| unavailable("a log cannot be looked up", &error))?;
        for attempt in all {
            match self.parts.reader.open(&self.app, &id.instance(), Some(attempt)).await {
                Ok(view) if self.add_log(&view, &mut known).await? => {}
                Ok(_) => return Ok(another),
                Err(ReadError::Gone { .. }) => {}
                Err(error) => return Err(unavailable("a log cannot be looked up", &error)),
            }
        }
        missing = self.missing(id, file, &mut known).await?;
        if missing.missing == 0 {
            return Ok(Plan::Nothing(None));
        }
        if !completes_live_lines {
            return Ok(another);
        }
        let at_line = view.attempt.next_line;
        Ok(Plan::Append(Append { attempt: newest, at_line, offset: 0, only: Some(missing), is_new: false }))
    }

    /// False where there are too many lines to compare.
    async fn add_log(&self, view: &View, known: &mut KnownLines) -> S3Result<bool> {
        let added = compare::add_log(&self.parts.reader, view, known).await;
        Ok(added.map_err(|error| unavailable("a log cannot be read", &error))?.is_ok())
    }

    async fn missing(&self, id: InstanceId, file: &mut Received, known: &mut KnownLines) -> S3Result<Missing> {
        let missing = compare::lines(file, self.parser(id), known).await;
        missing.map_err(|error| unavailable("cannot read the spool", &error))
    }

    fn parser(&self, id: InstanceId) -> Parser {
        Parser::new(self.zone, id.created_at().timestamp())
    }

    async fn append(
        &self,
        id: InstanceId,
        file: &mut Received,
        append: &Append,
        labels: &Labels,
    ) -> Result<(), StoreError> {
        let key = AttemptKey { app: self.app.clone(), instance: id.instance(), attempt: append.attempt };
        let mut sink = Sink { logs: self, key, labels, at_line: append.at_line, records: Vec::new() };
        let mut filter = LineFilter { only: append.only.as_ref(), line: 0 };
        let mut parser = self.parser(id);
        let unreadable = |error: std::io::Error| unavailable("cannot read the spool", &error);
        let mut reading = file.read_from(append.offset).await.map_err(unreadable)?;
        loop {
            let piece = reading.next().await.map_err(unreadable)?;
            if piece.is_empty() {
                break;
            }
            let Ok(()) = parser.push(piece, |line| filter.push(line, &mut sink.records));
            if sink.records.len() >= BATCH_BYTES {
                sink.commit().await?;
            }
        }
        let Ok(()) = parser.finish(|line| filter.push(line, &mut sink.records));
        sink.commit().await
    }

    /// A stored file is the end of its instance; how it ended, PowerJob tells elsewhere or not at all.
    async fn finish(&self, id: InstanceId, attempt: AttemptNo, labels: Labels) -> S3Result<()> {
        let key = AttemptKey { app: self.app.clone(), instance: id.instance(), attempt };
        let facts = Facts { key, job: None, labels, started_at: Some(id.created_at()) };
        match self.parts.ingest.finish(facts, None, None).await {
            Ok(_) | Err(EndError::OtherOutcome { .. }) => Ok(()),
            Err(EndError::Gone { .. }) => Err(s3_error!(InvalidObjectState, "the log was deleted meanwhile")),
            Err(error) => Err(unavailable("an instance is not finished", &error)),
        }
    }
}

impl Plan {
    fn new_attempt(attempt: AttemptNo) -> Self {
        Self::Append(Append { attempt, at_line: 0, offset: 0, only: None, is_new: true })
    }
}

/// Lines of a file on their way into an attempt.
struct Sink<'s> {
    logs: &'s Logs,
    key: AttemptKey,
    labels: &'s Labels,
    at_line: u64,
    /// JSON, one a line.
    records: Vec<u8>,
}

impl Sink<'_> {
    async fn commit(&mut self) -> Result<(), StoreError> {
        let defaults = Defaults {
            key: Some(self.key.clone()),
            at_line: Some(self.at_line),
            max_record_bytes: self.logs.parts.max_record_bytes,
            ..Defaults::default()
        };
        let decoded = decode_bulk(&self.records, &defaults);
        self.records.clear();
        for batch in decoded.batches {
            let batch = Batch { labels: self.labels.clone(), ..batch };
            match self.logs.parts.ingest.append(batch).await {
                Ok(appended) => self.at_line = appended.next_line(),
                Err(AppendError::NotNextLine { .. }) => return Err(StoreError::Raced),
                Err(AppendError::Gone { .. }) => {
                    return Err(s3_error!(InvalidObjectState, "the log was deleted meanwhile").into());
                }
                Err(error) => return Err(unavailable("a file is not stored", &error).into()),
            }
        }
        Ok(())
    }
}

/// Lets through what is missing.
struct LineFilter<'m> {
    only: Option<&'m Missing>,
    line: usize,
}

impl LineFilter<'_> {
    fn push(&mut self, line: Line<'_>, records: &mut Vec<u8>) -> Result<(), Infallible> {
        if self.only.is_none_or(|missing| missing.is_missing.get(self.line).copied().unwrap_or(true)) {
            line.record().write_json(records);
            records.push(b'\n');
        }
        self.line += 1;
        Ok(())
    }
}

fn file_label(id: InstanceId) -> Labels {
    let label = BTreeMap::from([(FILE_LABEL.to_owned(), id.stored_name())]);
    Labels::new(label).unwrap_or_default()
}

/// Whether the attempt came as a file, and not from live lines.
fn is_file(view: &View) -> bool {
    view.attempt.labels.get(FILE_LABEL).is_some()
}

fn compare_failed(error: CompareError) -> S3Error {
    unavailable("a file cannot be compared with its log", &error)
}
