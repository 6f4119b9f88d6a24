//! One page of records.

use super::{Cursor, Filter, ReadError, Reader, Tiers, View};
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
}

/// A page also ends here, so that long lines do not make it large.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A page whose filter lets little through ends here, with a cursor to go on: about a second's work.
const MAX_SCANNED_BYTES: usize = 256 * 1024 * 1024;

/// The same for reading backwards, in lines.
const MAX_SCANNED_LINES: u64 = 500_000;

/// Lines looked at before a range, to learn the level that its first records inherit.
pub(super) const LEVEL_LOOKBACK: u64 = 1_000;

/// Lines looked at a time when reading backwards.
const REVERSE_STEP: u64 = 2_000;

impl Reader {
    /// The first (or, in reverse, last) records of the range that the filter lets through.
    pub async fn page(&self, view: &View, request: &PageRequest) -> Result<Page, ReadError> {
        let range = request.range.unwrap_or(LineRange::new(0, u64::MAX)).intersect(view.attempt.lines());
        let mut page = if request.reverse {
            self.page_backwards(view, request, range).await?
        } else {
            self.page_forwards(view, request, range, usize::MAX).await?
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

    async fn page_forwards(
        &self,
        view: &View,
        request: &PageRequest,
        range: LineRange,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        let max_bytes = max_bytes.min(MAX_PAGE_BYTES);
        let mut page = Page {
            lines: Vec::new(),
            next: Cursor { attempt: view.attempt.attempt, line: range.start() },
            at_end: false,
            tiers: Tiers::default(),
        };
        let mut matcher = request.filter.matcher();
        let look_back = if request.filter.level.is_some() { LEVEL_LOOKBACK } else { 0 };
        let seen_from = range.start().saturating_sub(look_back).max(view.attempt.lines().start());
        let mut lines = self.lines(view, LineRange::new(seen_from, range.end()));
        let (mut bytes, mut scanned) = (0, 0);
        'page: while let Some(block) = lines.next().await? {
            for (line, json) in block.records() {
                let wanted = request.filter.is_empty() || matcher.matches(&Record::parse_json(json)?);
                if line < range.start() {
                    continue;
                }
                if wanted {
                    if page.lines.len() >= request.limit || (bytes + json.len() > max_bytes && bytes > 0) {
                        break 'page;
                    }
                    bytes += json.len();
                    page.lines.push(Line { line, json: json.to_vec() });
                }
                page.next.line = line + 1;
            }
            scanned += block.records.len();
            if page.lines.len() >= request.limit || bytes >= max_bytes || scanned >= MAX_SCANNED_BYTES {
                break;
            }
        }
        page.tiers = lines.touched();
        page.at_end = page.next.line >= range.end();
        Ok(page)
    }

    async fn page_backwards(&self, view: &View, request: &PageRequest, range: LineRange) -> Result<Page, ReadError> {
        let mut page = Page {
            lines: Vec::new(),
            next: Cursor { attempt: view.attempt.attempt, line: range.end() },
            at_end: range.is_empty(),
            tiers: Tiers::default(),
        };
        let mut bytes = 0;
        while !page.at_end {
            let end = page.next.line;
            let step = if request.filter.is_empty() { REVERSE_STEP.min(request.limit as u64) } else { REVERSE_STEP };
            let window = LineRange::new(end.saturating_sub(step.max(1)).max(range.start()), end);
            let all = PageRequest { limit: usize::MAX, ..request.clone() };
            let mut found = self.window(view, &all, window, &mut page.tiers).await?;
            found.reverse();
            for line in found {
                if page.lines.len() >= request.limit || (bytes + line.json.len() > MAX_PAGE_BYTES && bytes > 0) {
                    return Ok(page);
                }
                bytes += line.json.len();
                page.next.line = line.line;
                page.lines.push(line);
            }
            page.next.line = window.start();
            page.at_end = window.start() <= range.start();
            if page.lines.len() >= request.limit || range.end() - window.start() >= MAX_SCANNED_LINES {
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// All matching lines of a small range, which may take several pages' worth of bytes.
    async fn window(
        &self,
        view: &View,
        request: &PageRequest,
        window: LineRange,
        tiers: &mut Tiers,
    ) -> Result<Vec<Line>, ReadError> {
        let (mut found, mut from) = (Vec::new(), window.start());
        while from < window.end() {
            let page = self.page_forwards(view, request, LineRange::new(from, window.end()), usize::MAX).await?;
            tiers.hot |= page.tiers.hot;
            tiers.cold |= page.tiers.cold;
            from = page.next.line;
            found.extend(page.lines);
            if page.at_end {
                break;
            }
        }
        Ok(found)
    }
}
