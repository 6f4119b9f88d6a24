//! Reading a log page by page.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Session;
use super::args::Lines;
use super::client::{ClientError, Patience};
use super::logs::Selection;

/// The most records a page may have; the daemon ends it earlier at 8 MiB.
pub(super) const PAGE_LIMIT: u64 = 10_000;
/// How long a failing daemon is borne in the middle of a log.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);

/// A page of the reader; the records' own text is kept.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) attempt: Option<u64>,
    #[serde(default)]
    pub(super) attempt_final: bool,
    #[serde(default)]
    pub(super) records: Vec<Box<RawValue>>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    at_end: Option<bool>,
    /// The attempt's next line, if this page reaches its end.
    #[serde(skip)]
    pub(super) next_line: Option<u64>,
}

/// Where reading begins, and which way it goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    First,
    Range(Lines),
    Last(u64),
    /// From the end backwards.
    Newest,
    /// At a line; each page waits for lines up to so many seconds.
    Waiting {
        from: u64,
        secs: u64,
    },
}

impl From<Option<Lines>> for Start {
    fn from(lines: Option<Lines>) -> Self {
        lines.map_or(Self::First, Self::Range)
    }
}

/// Asks for one page after the other.
#[derive(Debug)]
pub(super) struct Pager {
    /// Its attempt is set by the first page, so that a new attempt does not mix in.
    pub(super) selection: Selection,
    pub(super) limit: u64,
    pub(super) cursor: Option<String>,
    start: Start,
    patience: Patience,
    at_end: bool,
}

impl Pager {
    pub(super) fn new(selection: &Selection, start: Start) -> Self {
        // The first page fails at once, since someone waits for an answer; later ones are worth some patience.
        let patience = Patience::new(Duration::ZERO);
        Self { selection: selection.clone(), limit: PAGE_LIMIT, cursor: None, start, patience, at_end: false }
    }

    /// The next page; `None` when the last said that it was the last. One that waits never ends.
    pub(super) async fn next(&mut self, session: &Session) -> Result<Option<Page>, ClientError> {
        if self.at_end {
            return Ok(None);
        }
        let (body, next_line) = self.fetch(session).await?;
        self.patience = Patience::new(PAGE_PATIENCE);
        let mut page: Page = serde_json::from_slice(&body).map_err(|error| session.client.senseless(&error))?;
        self.selection.attempt = self.selection.attempt.or(page.attempt);
        let at_end = page.at_end.unwrap_or(page.records.is_empty());
        let moved = page.next_cursor.is_some() && page.next_cursor != self.cursor;
        if !at_end && !moved {
            return Err(session.client.senseless(&"a page says that there is more, but not where"));
        }
        page.next_line = next_line.filter(|_| at_end || matches!(self.start, Start::Newest));
        page.attempt_final &= at_end;
        self.cursor = page.next_cursor.take().or(self.cursor.take());
        self.at_end = at_end && !matches!(self.start, Start::Waiting { .. });
        Ok(Some(page))
    }

    /// A page's body, and what the header says is the attempt's next line.
    async fn fetch(&mut self, session: &Session) -> Result<(bytes::Bytes, Option<u64>), ClientError> {
        let mut call = self.selection.call("/records").query("limit", self.limit).queries(&self.selection.filters);
        match self.start {
            Start::Range(Lines { to, .. }) => call = call.query_opt("to_line", to),
            Start::Newest => call = call.query("reverse", true),
            Start::Waiting { secs, .. } => call = call.query("wait", secs),
            Start::First | Start::Last(_) => {}
        }
        // What says where to begin is for the first page; the cursor knows it for the others.
        call = match (&self.cursor, self.start) {
            (Some(cursor), _) => call.query("cursor", cursor),
            (None, Start::Range(Lines { from, .. })) => call.query_opt("from_line", from),
            (None, Start::Waiting { from, .. }) => call.query("from_line", from),
            (None, Start::Last(n)) => call.query("last", n),
            (None, Start::First | Start::Newest) => call,
        };
        loop {
            let answer = session.client.send_patiently(&call, &mut self.patience).await?;
            let header = answer.headers().get("x-logtier-lines");
            let next_line = header.and_then(|value| value.to_str().ok()?.parse().ok());
            match session.client.bytes(answer).await {
                Ok(body) => return Ok((body, next_line)),
                Err(error) => match self.patience.failed(&error, session.clock.instant()) {
                    Some(wait) => session.clock.sleep(wait).await,
                    None => return Err(error),
                },
            }
        }
    }
}
