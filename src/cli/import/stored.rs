//! What the daemon has of an instance already.

use std::convert::Infallible;

use anyhow::Context as _;
use reqwest::Method;
use serde::Deserialize;

use super::{Importer, Target};
use crate::cli::client::{Call, ClientError, Patience};
use crate::model::Record;
use crate::protocol::known::{Fingerprint, KnownLines, TooManyLines};
use crate::protocol::pieces::Pieces;

/// The instance as the daemon knows it.
#[derive(Debug)]
pub(super) enum Stored {
    Nothing,
    /// Expired or deleted: it takes no lines any more.
    Gone,
    TooLarge,
    Some(Box<StoredLog>),
}

#[derive(Debug, Default)]
pub(super) struct StoredLog {
    /// The lines of all its attempts.
    pub(super) lines: KnownLines,
    /// The next line of the attempt that is imported to, and whether that is over.
    pub(super) next_line: u64,
    pub(super) finished: bool,
}

#[derive(Debug, Deserialize)]
struct Summary {
    attempt: u32,
    attempts: Vec<u32>,
    state: String,
    lines: u64,
}

/// The most records of a page; it ends earlier at 8 MiB.
const PAGE_RECORDS: u64 = 10_000;

impl Importer<'_> {
    pub(super) async fn stored(&self, target: &Target) -> anyhow::Result<Stored> {
        let newest = match self.summary(target, None).await {
            Ok(summary) => summary,
            Err(error) if error.status() == Some(404) => return Ok(Stored::Nothing),
            Err(error) if error.status() == Some(410) => return Ok(Stored::Gone),
            Err(error) => return Err(error).context("ask for the instance"),
        };
        let mut stored = StoredLog::default();
        for &attempt in &newest.attempts {
            let summary = match self.summary(target, Some(attempt)).await {
                Ok(summary) => summary,
                Err(error) if error.status() == Some(410) && attempt != target.attempt.get() => continue,
                Err(error) if error.status() == Some(410) => return Ok(Stored::Gone),
                Err(error) => return Err(error).context("ask for the attempt"),
            };
            if summary.attempt == target.attempt.get() {
                (stored.next_line, stored.finished) = (summary.lines, summary.state != "open");
            }
            match self.read_lines(target, &summary, &mut stored.lines).await {
                Ok(()) => {}
                Err(error) if error.is::<TooManyLines>() => return Ok(Stored::TooLarge),
                Err(error) => return Err(error).context("read what is stored"),
            }
        }
        Ok(Stored::Some(Box::new(stored)))
    }

    async fn summary(&self, target: &Target, attempt: Option<u32>) -> Result<Summary, ClientError> {
        let call = Call::on_instance(Method::GET, self.app, target.instance.as_str(), "").query_opt("attempt", attempt);
        self.client.json_patiently(&call, &mut self.patience()).await
    }

    async fn read_lines(&self, target: &Target, summary: &Summary, known: &mut KnownLines) -> anyhow::Result<()> {
        let mut reader = Reader::default();
        let mut from = 0;
        while from < summary.lines {
            let call = Call::on_instance(Method::GET, self.app, target.instance.as_str(), "/records")
                .query("attempt", summary.attempt)
                .query("format", "ndjson")
                .query("from_line", from)
                .query("to_line", summary.lines)
                .query("limit", PAGE_RECORDS);
            let page = self.client.bytes_patiently(&call, &mut self.patience()).await?;
            let records = page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let before = from;
            for record in records {
                reader.record(&Record::parse_json(record)?, known)?;
                from += 1;
            }
            anyhow::ensure!(from > before, "the daemon gives no line {from} of {}", summary.lines);
        }
        reader.end_line(known)?;
        Ok(())
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.common.retry_for)
    }
}

/// Joins records that are pieces of one line, and cuts the line again as an import does.
#[derive(Debug, Default)]
struct Reader {
    text: Pieces,
    /// The line that the pieces belong to, without text.
    open: Option<Record<'static>>,
}

impl Reader {
    fn record(&mut self, record: &Record<'_>, known: &mut KnownLines) -> Result<(), TooManyLines> {
        let message = record.message_bytes();
        // Most lines are one record.
        if self.open.is_none() && !record.partial && message.len() <= crate::protocol::pieces::PIECE_BYTES {
            return known.add(Fingerprint::of_record(record, &message));
        }
        let open = self.open.get_or_insert_with(|| head_of(record));
        let mut result = Ok(());
        let Ok(()) = self.text.push(&message, |piece| {
            result = result.and_then(|()| known.add(Fingerprint::of_record(open, piece)));
            Ok::<_, Infallible>(())
        });
        result?;
        if record.partial { Ok(()) } else { self.end_line(known) }
    }

    fn end_line(&mut self, known: &mut KnownLines) -> Result<(), TooManyLines> {
        let Some(open) = self.open.take() else { return Ok(()) };
        known.add(Fingerprint::of_record(&open, self.text.rest()))?;
        self.text.clear();
        Ok(())
    }
}

fn head_of(record: &Record<'_>) -> Record<'static> {
    Record {
        ts: record.ts,
        level: record.level,
        source: record.source.clone().into_owned().into(),
        message: "".into(),
        attrs: record.attrs.clone().map(crate::model::Attrs::into_owned),
        raw: None,
        partial: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::protocol::pieces::PIECE_BYTES;

    #[test]
    fn pieces_of_any_size_are_the_line_that_they_make() {
        let message = "x".repeat(PIECE_BYTES + 100);
        let record = |text: &str, partial: bool| {
            let mut json = Vec::new();
            let message = text.to_owned().into();
            let ts = Timestamp::from_nanos(0);
            let record = Record { ts, level: None, source: "w".into(), message, attrs: None, raw: None, partial };
            record.write_json(&mut json);
            json
        };
        let (mut reader, mut known) = (Reader::default(), KnownLines::default());
        for (at, part) in message.as_bytes().chunks(100_000).enumerate() {
            let partial = (at + 1) * 100_000 < message.len();
            let json = record(std::str::from_utf8(part).expect("ASCII"), partial);
            reader.record(&Record::parse_json(&json).expect("a record"), &mut known).expect("few");
        }
        reader.record(&Record::parse_json(&record("short", false)).expect("a record"), &mut known).expect("few");
        let print = |text: &str| Fingerprint::of(Timestamp::from_nanos(0), "", "w", text.as_bytes());
        for piece in [&message[..PIECE_BYTES], &message[PIECE_BYTES..], "short"] {
            assert!(known.take(print(piece)), "{} bytes", piece.len());
        }
        assert!(known.is_empty());
    }
}
