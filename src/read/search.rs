//! Looking for records across instances, newest first, in both tiers.
//!
//! The catalog narrows the search (app, job, time, levels); what is left is read like any log. A
//! filter of tokens in the segments will say "not here" without reading them; there is none yet.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Filter, ListFilter, Matching, ReadError, Reader, View};
use crate::catalog::{Attempt, Listed};
use crate::model::{AttemptId, AttemptKey, Instance, LineRange};

/// What to look for, and where.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// App, job and the like; `since` and `until` of it stay empty: they are of the records.
    pub among: ListFilter,
    pub instance: Option<Instance>,
    pub filter: Filter,
    /// Records to find at most.
    pub limit: u64,
    /// A search that takes longer ends early and says so.
    pub patience: Duration,
}

/// What a search has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub found: u64,
    /// Attempts that were read.
    pub scanned: u64,
    /// Attempts that the catalog said cannot match.
    pub skipped: u64,
    /// Why it ended before everything was searched.
    pub cut: Option<&'static str>,
}

/// A search under way: one attempt at a time, one block in memory.
pub struct Search {
    reader: Reader,
    request: SearchRequest,
    deadline: std::time::Instant,
    page: VecDeque<Listed>,
    /// Where the next page begins; `None` behind the last.
    before: Option<Option<AttemptId>>,
    current: Option<(View, Matching)>,
    progress: Progress,
}

/// Attempts listed at a time.
const PAGE: usize = 200;

impl Reader {
    pub fn search(&self, request: SearchRequest) -> Search {
        Search {
            deadline: self.clock.instant() + request.patience,
            request,
            page: VecDeque::new(),
            before: Some(None),
            current: None,
            progress: Progress::default(),
            reader: self.clone(),
        }
    }
}

impl Search {
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Shows the finds of the next block, each with whose it is, its line and JSON; false at the end.
    pub async fn next(&mut self, mut show: impl FnMut(&View, u64, &[u8])) -> Result<bool, ReadError> {
        if self.progress.cut.is_some() {
            return Ok(false);
        }
        if self.reader.clock.instant() >= self.deadline {
            self.progress.cut = Some("it took too long; narrow it by job, instance, since or until");
            return Ok(false);
        }
        let Some((view, matching)) = &mut self.current else {
            return self.next_attempt().await;
        };
        let (progress, limit) = (&mut self.progress, self.request.limit);
        let more = matching.next(|line, json| {
            if progress.found >= limit {
                progress.cut = Some("the limit was reached");
            } else {
                progress.found += 1;
                show(view, line, json);
            }
            Ok(())
        });
        match more.await {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.current = None;
                Ok(true)
            }
            Err(error) => self.gone_or(error),
        }
    }

    /// Opens the next attempt that may match; false where there is none.
    async fn next_attempt(&mut self) -> Result<bool, ReadError> {
        let Some(listed) = self.page.pop_front() else {
            let Some(before) = self.before.take() else { return Ok(false) };
            let page = self.reader.instances(&self.request.among, before, PAGE).await?;
            self.before = page.next.map(Some);
            self.page = page.attempts.into();
            return Ok(!self.page.is_empty() || self.before.is_some());
        };
        if !self.may_match(&listed.attempt) {
            self.progress.skipped += 1;
            return Ok(true);
        }
        let Attempt { instance, attempt, .. } = &listed.attempt;
        match self.reader.open(&listed.app, instance, Some(*attempt)).await {
            Ok(view) => {
                self.progress.scanned += 1;
                let all = LineRange::new(0, u64::MAX);
                let matching = self.reader.matching(&view, all, self.request.filter.clone());
                self.current = Some((view, matching));
                Ok(true)
            }
            Err(error) => self.gone_or(error),
        }
    }

    /// An attempt that expired or was deleted while we searched has nothing to show.
    fn gone_or(&mut self, error: ReadError) -> Result<bool, ReadError> {
        match error {
            ReadError::Gone { .. } | ReadError::NeverLogged => {
                self.current = None;
                Ok(true)
            }
            error => Err(error),
        }
    }

    fn may_match(&self, attempt: &Attempt) -> bool {
        let SearchRequest { instance, filter, .. } = &self.request;
        instance.as_ref().is_none_or(|instance| *instance == attempt.instance)
            && attempt.next_line > attempt.trimmed_line
            && filter.level.is_none_or(|level| attempt.levels.may_hold(level))
            && filter.since.is_none_or(|since| attempt.last_ts.is_none_or(|last| last >= since))
            && filter.until.is_none_or(|until| attempt.first_ts.is_none_or(|first| first < until))
    }
}

/// The members that say whose a find is: `"app":…,"instance":…,"attempt":…,`.
pub fn owner_json(key: &AttemptKey) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    format!(
        "\"app\":{},\"instance\":{},\"attempt\":{},",
        text(key.app.as_str()),
        text(key.instance.as_str()),
        key.attempt
    )
}
