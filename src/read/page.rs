//! One page of records.

use std::ops::ControlFlow;

use super::lines::Wanted;
use super::sieve::Sieve;
use super::{Cost, Cursor, Filter, Lines, ReadError, Reader, Tiers, View};
use crate::model::{LineRange, Record};

/// How a page's records are sorted. Time order is a view of the page, not of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Line,
    Time,
}

/// What to put on a page.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    pub range: Option<LineRange>,
    pub limit: usize,
    pub filter: Filter,
    pub order: Order,
    /// From the end of the range backwards.
    pub reverse: bool,
}

/// A record with its number; `json` is without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub line: u64,
    pub json: Vec<u8>,
}

impl Line {
    /// `{"line":…,"ts":…}`: the record's JSON with its number in front.
    pub fn numbered_json(&self) -> Vec<u8> {
        let mut json = format!("{{\"line\":{},", self.line).into_bytes();
        json.extend_from_slice(self.json.get(1..).unwrap_or_default());
        json
    }
}

/// Some records, and where to go on.
#[derive(Debug, Clone)]
pub struct Page {
    pub lines: Vec<Line>,
    pub next: Cursor,
    /// Nothing more of the range is there now.
    pub at_end: bool,
    pub tiers: Tiers,
    pub cost: Cost,
}

/// A page also ends here, so that long lines do not make it large.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A page whose filter lets little through ends here, with a cursor to go on: about a second's work.
const MAX_SCANNED_BYTES: usize = 256 * 1024 * 1024;

impl Reader {
    /// The first (or, in reverse, last) records of the range that the filter lets through.
    pub async fn page(&self, view: &View, request: &PageRequest) -> Result<Page, ReadError> {
        let range = request.range.unwrap_or(LineRange::new(0, u64::MAX)).intersect(view.attempt.lines());
        let filter = &request.filter;
        let wanted = Wanted {
            backwards: request.reverse,
            at_once: if filter.is_empty() { request.limit as u64 } else { 1 },
            ..Wanted::of(range, filter)
        };
        let mut filling = Filling {
            lines: Lines::new(self.clone(), view, wanted),
            sieve: Sieve::new(filter.clone()),
            limit: request.limit,
            bytes: 0,
            scanned: 0,
            page: Page {
                lines: Vec::new(),
                next: Cursor {
                    attempt: view.attempt.attempt,
                    line: if request.reverse { range.end() } else { range.start() },
                },
                at_end: false,
                tiers: Tiers::default(),
                cost: Cost::default(),
            },
        };
        let mut page = if request.reverse {
            filling.backwards().await?;
            let mut page = filling.page();
            page.at_end = page.next.line <= range.start();
            page
        } else {
            filling.forwards(range.end()).await?;
            let mut page = filling.page();
            page.at_end = page.next.line >= range.end();
            page
        };
        if request.order == Order::Time {
            let ts = |line: &Line| Record::parse_json(&line.json).map(|record| record.ts).ok();
            page.lines.sort_by_key(|line| (ts(line), line.line));
            if request.reverse {
                page.lines.reverse();
            }
        }
        Ok(page)
    }
}

/// A page in the making.
struct Filling {
    lines: Lines,
    sieve: Sieve,
    limit: usize,
    bytes: usize,
    scanned: usize,
    page: Page,
}

impl Filling {
    async fn forwards(&mut self, end: u64) -> Result<(), ReadError> {
        while !self.is_done() {
            let Some(block) = self.lines.next().await? else {
                self.page.next.line = end;
                return Ok(());
            };
            let Self { sieve, lines, page, limit, bytes, .. } = self;
            let mut take = |line: u64, json: &[u8]| {
                if is_full(page, *limit, *bytes, json) {
                    page.next.line = line;
                    return Ok(ControlFlow::Break(()));
                }
                *bytes += json.len();
                page.lines.push(Line { line, json: json.to_vec() });
                Ok(ControlFlow::Continue(()))
            };
            if sieve.sift(lines, &block, &mut take).await?.is_break() {
                return Ok(());
            }
            self.page.next.line = block.lines.end();
            self.scanned += block.records.len();
        }
        Ok(())
    }

    async fn backwards(&mut self) -> Result<(), ReadError> {
        while !self.is_done() {
            let Some(block) = self.lines.next().await? else {
                self.page.next.line = 0;
                return Ok(());
            };
            // What matches is known in line order only, and no more of a block fits than it has.
            let mut found = Vec::new();
            let mut take = |line: u64, json: &[u8]| {
                found.push(Line { line, json: json.to_vec() });
                Ok(ControlFlow::Continue(()))
            };
            let _ = self.sieve.sift(&mut self.lines, &block, &mut take).await?;
            for line in found.into_iter().rev() {
                if is_full(&self.page, self.limit, self.bytes, &line.json) {
                    self.page.next.line = line.line + 1;
                    return Ok(());
                }
                self.bytes += line.json.len();
                self.page.lines.push(line);
            }
            self.page.next.line = block.lines.start();
            self.scanned += block.records.len();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.page.lines.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES || self.scanned >= MAX_SCANNED_BYTES
    }

    fn page(self) -> Page {
        Page { tiers: self.lines.touched(), cost: self.lines.cost(), ..self.page }
    }
}

/// Whether one more record is too much. A record alone is never too large.
fn is_full(page: &Page, limit: usize, bytes: usize, json: &[u8]) -> bool {
    page.lines.len() >= limit || (bytes + json.len() > MAX_PAGE_BYTES && bytes > 0)
}
