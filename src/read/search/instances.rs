//! A search attempt by attempt: those that the catalog names, or those with lines in the hot tier.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Finds, SearchRequest};
use crate::catalog::{Attempt, Listed};
use crate::model::{App, AttemptId, LineRange};
use crate::read::{Matching, ReadError, Reader, View};

/// Which attempts are looked at, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// All that match what is asked for, with all of their lines.
    Catalog,
    /// Those that have lines in the hot tier, and only those lines.
    Hot,
}

/// One attempt at a time, one block in memory.
pub(super) struct Instances {
    reader: Reader,
    request: Arc<SearchRequest>,
    listing: Listing,
    page: VecDeque<Listed>,
    /// Where the next page begins; `None` behind the last.
    before: Option<Option<AttemptId>>,
    current: Option<(View, Matching)>,
}

/// Attempts listed at a time.
const PAGE: usize = 200;

/// Apps that one instance is looked for in at a time.
const APPS: u32 = 1_000;

/// Attempts of one instance.
const ATTEMPTS: u32 = 1_000;

impl Instances {
    pub fn new(reader: Reader, request: Arc<SearchRequest>, listing: Listing) -> Self {
        Self { reader, request, listing, page: VecDeque::new(), before: Some(None), current: None }
    }

    /// Shows the finds of the next block; false at the end.
    pub async fn next(
        &mut self,
        finds: &mut Finds,
        show: &mut impl FnMut(&View, u64, &[u8]),
    ) -> Result<bool, ReadError> {
        let Some((view, matching)) = &mut self.current else {
            return self.next_attempt(finds).await;
        };
        let more = matching.next(|line, json| {
            if finds.take(view, line) {
                show(view, line, json);
            }
            Ok(())
        });
        let more = more.await;
        if !matches!(more, Ok(true)) {
            let cost = matching.cost();
            finds.progress.frames += cost.frames;
            finds.progress.frames_skipped += cost.frames_skipped;
            finds.progress.bytes += cost.bytes;
        }
        match more {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.current = None;
                Ok(true)
            }
            Err(error) => self.gone_or(error),
        }
    }

    /// Opens the next attempt that may match; false where there is none.
    async fn next_attempt(&mut self, finds: &mut Finds) -> Result<bool, ReadError> {
        let Some(listed) = self.page.pop_front() else {
            let Some(before) = self.before.take() else { return Ok(false) };
            self.page = self.list(before).await?.into();
            return Ok(!self.page.is_empty() || self.before.is_some());
        };
        let Some(range) = self.wanted(&listed.attempt) else {
            finds.progress.skipped += 1;
            return Ok(true);
        };
        let Attempt { instance, attempt, .. } = &listed.attempt;
        match self.reader.open(&listed.app, instance, Some(*attempt)).await {
            Ok(view) => {
                finds.progress.scanned += 1;
                let matching = self.reader.matching(&view, range, self.request.filter.clone());
                self.current = Some((view, matching));
                Ok(true)
            }
            Err(error) => self.gone_or(error),
        }
    }

    async fn list(&mut self, before: Option<AttemptId>) -> Result<Vec<Listed>, ReadError> {
        if self.request.instance.is_some() {
            return self.named().await;
        }
        let among = &self.request.among;
        let page = match self.listing {
            Listing::Catalog => self.reader.instances(among, before, PAGE).await?,
            Listing::Hot => self.reader.catalog.list_hot(among.app.as_ref(), before).await?,
        };
        self.before = page.next.map(Some);
        Ok(page.attempts)
    }

    /// The attempts of the one instance that is asked for, in the app that is named or in all.
    async fn named(&mut self) -> Result<Vec<Listed>, ReadError> {
        let SearchRequest { instance, among, .. } = &*self.request;
        let Some(instance) = instance else { return Ok(Vec::new()) };
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let apps = match &among.app {
                Some(app) => vec![app.to_string()],
                None => self.reader.apps(&after, APPS).await?,
            };
            for name in &apps {
                let Ok(app) = name.parse::<App>() else { continue };
                for attempt in self.reader.attempts(&app, instance, ATTEMPTS).await? {
                    match self.reader.show(&app, instance, Some(attempt)).await {
                        Ok(View { app, job, attempt, at, .. }) if among.holds(job.as_ref(), &attempt, at) => {
                            found.push(Listed { app, job, attempt });
                        }
                        Ok(_) | Err(ReadError::NeverLogged) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            match apps.last() {
                Some(last) if among.app.is_none() && apps.len() == APPS as usize => after = last.clone(),
                _ => break,
            }
        }
        found.sort_by_key(|listed| std::cmp::Reverse(listed.attempt.id));
        Ok(found)
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

    /// The lines to look at; `None` where the row says that none can match.
    fn wanted(&self, attempt: &Attempt) -> Option<LineRange> {
        let range = match self.listing {
            Listing::Catalog => attempt.lines(),
            Listing::Hot => attempt.hot_lines(),
        };
        let may_match = self.request.filter.bounds().may_hold(attempt.levels, attempt.first_ts.zip(attempt.last_ts));
        (may_match && !range.is_empty()).then(|| LineRange::new(range.start(), u64::MAX))
    }
}
