//! The line ranges of every attempt: parts below the watermark, chunks from there to the end, without
//! gap or overlap.
//!
//! Attempts, parts and chunks are read one after the other while lines move between them. What looks
//! wrong is read again between two looks at the attempt's row: if the row did not change in what
//! matters, all that was read is of one moment.

use std::collections::HashMap;
use std::time::Duration;

use super::finding::{Finding, FindingKind};
use super::{Audit, AuditError, Progress};
use crate::catalog::{Attempt, Kind, Span};
use crate::db::Home;
use crate::hot;
use crate::model::{AttemptId, LineRange};

/// Attempts that are looked at together: one statement for their parts, one for their chunks.
const PAGE: u32 = 64;

/// Parts or chunks read at a time, some 40 bytes each.
const SPANS: u32 = 4_096;

/// Second looks at an attempt that changes under them, and the pause between them.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

impl Audit {
    /// Looks at every attempt of a shard, newest first, down to those made at `since`.
    pub(super) async fn check_lines(
        &self,
        home: &Home,
        scope: &super::Scope,
        is_full: bool,
        progress: &Progress,
        findings: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<u64, AuditError> {
        let app_id = match &scope.app {
            Some(app) => match self.catalog.find_name(&home.db, Kind::App, app.as_str()).await? {
                Some(app_id) => Some(app_id),
                None => return Ok(0),
            },
            None => None,
        };
        let oldest = scope.since.map_or(AttemptId::stored(i64::MIN), |since| AttemptId::at(since, 0));
        let (mut before, mut checked) = (AttemptId::stored(i64::MAX), 0);
        loop {
            let mut page = self.catalog.attempts_before(home, app_id, before, PAGE).await?;
            let Some(last) = page.last() else { return Ok(checked) };
            before = last.id;
            page.retain(|attempt| attempt.id >= oldest);
            for attempt in self.suspects(home, &page).await? {
                if let Some(what) = self.confirm_lines(home, attempt.id).await? {
                    findings(self.lines_finding(home, &attempt, FindingKind::Lines, what).await?);
                }
            }
            if is_full {
                for attempt in &page {
                    if let Some(what) = self.damaged_chunk(home, attempt).await? {
                        findings(self.lines_finding(home, attempt, FindingKind::Damaged, what).await?);
                    }
                }
            }
            checked += page.len() as u64;
            progress.add(0, page.len() as u64);
            if before < oldest {
                return Ok(checked);
            }
        }
    }

    async fn lines_finding(
        &self,
        home: &Home,
        attempt: &Attempt,
        kind: FindingKind,
        what: String,
    ) -> Result<Finding, AuditError> {
        let app = self.catalog.name_of(&home.db, attempt.app_id).await?;
        let name = format!("{app}/{}#{}", attempt.instance, attempt.attempt);
        let mut finding = Finding::new(kind, &name, what);
        (finding.attempts, finding.hit) = (vec![name], 1);
        Ok(finding)
    }

    async fn suspects(&self, home: &Home, page: &[Attempt]) -> Result<Vec<Attempt>, AuditError> {
        let faults = self.faults(home, page).await?;
        Ok(page.iter().filter(|attempt| faults.contains_key(&attempt.id)).cloned().collect())
    }

    /// What is wrong with the lines of these attempts, by what can be read now.
    async fn faults(&self, home: &Home, page: &[Attempt]) -> Result<HashMap<AttemptId, String>, AuditError> {
        // In the order in which parts and chunks come.
        let mut ids: Vec<AttemptId> = page.iter().map(|attempt| attempt.id).collect();
        ids.sort_unstable();
        let mut covers: HashMap<AttemptId, Cover> =
            page.iter().map(|attempt| (attempt.id, Cover::new(attempt))).collect();
        let mut at = (0, 0);
        while at.0 < ids.len() {
            let spans = self.catalog.part_spans(home, &ids[at.0..], at.1, SPANS).await?;
            for span in &spans {
                covers.entry(span.id).and_modify(|cover| cover.part(span));
            }
            at = behind(&ids, spans.last().map(|span| (span.id, span.lines)), spans.len());
        }
        let hot: Vec<AttemptId> = ids.into_iter().filter(|id| covers[id].wants_chunks()).collect();
        let mut at = (0, 0);
        while at.0 < hot.len() {
            let spans = hot::spans(home, &hot[at.0..], at.1, SPANS).await?;
            for (id, lines) in &spans {
                covers.entry(*id).and_modify(|cover| cover.chunk(*lines));
            }
            at = behind(&hot, spans.last().copied(), spans.len());
        }
        Ok(covers.into_iter().filter_map(|(id, cover)| Some((id, cover.fault()?))).collect())
    }

    /// Reads an attempt again between two looks at its row.
    async fn confirm_lines(&self, home: &Home, id: AttemptId) -> Result<Option<String>, AuditError> {
        for look in 0..LOOKS {
            if look > 0 {
                self.clock.sleep(PAUSE).await;
            }
            let before = self.catalog.attempts(home, &[id]).await?;
            let fault = self.faults(home, &before).await?.remove(&id);
            let Some(fault) = fault else { return Ok(None) };
            let after = self.catalog.attempts(home, &[id]).await?;
            let what_matters = |rows: &[Attempt]| {
                rows.first().map(|row| (row.state, row.trimmed_line, row.archived_line, row.purged_line))
            };
            if what_matters(&before) == what_matters(&after) {
                return Ok(Some(fault));
            }
        }
        tracing::warn!(attempt.id = id.get(), "an attempt changes at every look; the next run may see it at rest");
        Ok(None)
    }

    /// Decodes every chunk above the watermark and compares its hash.
    async fn damaged_chunk(&self, home: &Home, attempt: &Attempt) -> Result<Option<String>, AuditError> {
        const CHUNKS: u32 = 16;
        if attempt.state.is_gone() {
            return Ok(None);
        }
        let mut left = attempt.hot_lines();
        while !left.is_empty() {
            match hot::scan(home, attempt.id, left, CHUNKS).await {
                Ok(chunks) => match chunks.last() {
                    Some(last) => left = LineRange::new(last.lines.end(), left.end()),
                    // A gap is told elsewhere; or the lines have moved since.
                    None => return Ok(None),
                },
                Err(crate::db::Error::Row(what)) => {
                    let now = self.catalog.attempts(home, &[attempt.id]).await?;
                    let is_still_hot = now.first().is_some_and(|row| row.archived_line <= left.start());
                    return Ok(is_still_hot.then_some(what));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

/// Where the next page of spans begins: the index of its first attempt, and the line in it.
fn behind(ids: &[AttemptId], last: Option<(AttemptId, LineRange)>, got: usize) -> (usize, u64) {
    match last {
        Some((id, lines)) if got == SPANS as usize => (ids.partition_point(|known| *known < id), lines.start() + 1),
        _ => (ids.len(), 0),
    }
}

/// How far the lines of one attempt are covered.
struct Cover {
    attempt: Attempt,
    parts_end: u64,
    chunks_end: u64,
    fault: Option<String>,
}

impl Cover {
    fn new(attempt: &Attempt) -> Self {
        let (parts_end, chunks_end) = (attempt.trimmed_line, attempt.archived_line);
        Self { attempt: attempt.clone(), parts_end, chunks_end, fault: None }
    }

    fn wants_chunks(&self) -> bool {
        !self.attempt.state.is_gone() && self.attempt.purged_line < self.attempt.next_line
    }

    fn part(&mut self, part: &Span) {
        if self.attempt.state.is_gone() {
            return self.wrong("it is gone, but has a part".to_owned());
        }
        if part.lines.is_empty() {
            return;
        }
        if !part.is_live {
            self.wrong(format!("lines {} stand in an object that is not live", part.lines));
        }
        // A window that was trimmed may be cut within its first part.
        let start = if self.parts_end == self.attempt.trimmed_line {
            part.lines.start().max(self.parts_end)
        } else {
            part.lines.start()
        };
        self.parts_end = self.follow(self.parts_end, LineRange::new(start, part.lines.end()), "parts");
    }

    fn chunk(&mut self, lines: LineRange) {
        let (archived, next) = (self.attempt.archived_line, self.attempt.next_line);
        // Published and not yet purged, or newer than the look at the attempt.
        if lines.end() <= archived || lines.start() >= next {
            return;
        }
        self.chunks_end = self.follow(self.chunks_end, lines, "chunks");
    }

    fn follow(&mut self, end: u64, lines: LineRange, what: &str) -> u64 {
        if lines.start() > end {
            self.wrong(format!("its {what} have a gap: lines {} are nowhere", LineRange::new(end, lines.start())));
        } else if lines.start() < end {
            let twice = lines.intersect(LineRange::new(0, end));
            self.wrong(format!("its {what} overlap: lines {twice} are there twice"));
        }
        end.max(lines.end())
    }

    fn wrong(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    fn fault(mut self) -> Option<String> {
        let (trimmed, archived, next) = (self.attempt.trimmed_line, self.attempt.archived_line, self.attempt.next_line);
        if self.attempt.state.is_gone() {
            return self.fault;
        }
        if self.parts_end != archived.max(trimmed) {
            let lines = LineRange::new(self.parts_end.min(archived), self.parts_end.max(archived));
            self.wrong(format!("its parts end at line {}, its watermark is {archived}: lines {lines}", self.parts_end));
        }
        if self.chunks_end < next {
            self.wrong(format!("its chunks end at line {}, it has {next} lines", self.chunks_end));
        }
        self.fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttemptNo, AttemptState, Labels, LevelSet, Millis};

    /// Lines 0..30 in parts, 30..50 in chunks.
    fn attempt() -> Attempt {
        Attempt {
            id: AttemptId::stored(1),
            app_id: 1,
            instance: "i".parse().expect("a name"),
            attempt: AttemptNo::FIRST,
            job_id: 0,
            labels: Labels::default(),
            state: AttemptState::Finished,
            outcome: None,
            held: false,
            meta_version: 1,
            archived_meta: 0,
            next_line: 50,
            archived_line: 30,
            purged_line: 0,
            trimmed_line: 0,
            raw_bytes: 0,
            archived_bytes: 0,
            first_ts: None,
            last_ts: None,
            levels: LevelSet::EMPTY,
            created_at: Millis::ZERO,
            written_at: Millis::ZERO,
            finished_at: None,
            published_at: None,
            expires_at: None,
            gone_at: None,
            failures: 0,
            rule_id: 0,
            due_at: Millis::ZERO,
        }
    }

    fn check(attempt: &Attempt, parts: &[(u64, u64)], chunks: &[(u64, u64)]) -> Option<String> {
        let mut cover = Cover::new(attempt);
        for &(start, end) in parts {
            cover.part(&Span { id: attempt.id, lines: LineRange::new(start, end), is_live: true });
        }
        for &(start, end) in chunks {
            cover.chunk(LineRange::new(start, end));
        }
        cover.fault()
    }

    #[test]
    fn lines_that_follow_each_other_are_in_order() {
        for (parts, chunks) in [
            (vec![(0, 30)], vec![(30, 50)]),
            (vec![(0, 10), (10, 30), (30, 30)], vec![(10, 30), (30, 40), (40, 50), (50, 60)]),
        ] {
            assert_eq!(check(&attempt(), &parts, &chunks), None, "{parts:?} {chunks:?}");
        }
        let trimmed = Attempt { trimmed_line: 20, ..attempt() };
        assert_eq!(check(&trimmed, &[(10, 30)], &[(30, 50)]), None);
    }

    #[test]
    fn gaps_and_overlaps_are_told() {
        for (parts, chunks, says) in [
            (vec![(0, 10), (20, 30)], vec![(30, 50)], "10..20 are nowhere"),
            (vec![(10, 30)], vec![(30, 50)], "0..10 are nowhere"),
            (vec![(0, 20), (10, 30)], vec![(30, 50)], "10..20 are there twice"),
            (vec![(0, 20)], vec![(30, 50)], "20..30"),
            (vec![], vec![(30, 50)], "0..30"),
            (vec![(0, 30)], vec![(30, 40), (45, 50)], "40..45 are nowhere"),
            (vec![(0, 30)], vec![(25, 50)], "25..30 are there twice"),
            (vec![(0, 30)], vec![], "chunks end at line 30, it has 50 lines"),
        ] {
            let fault = check(&attempt(), &parts, &chunks);
            assert!(fault.as_ref().is_some_and(|fault| fault.contains(says)), "{parts:?} {chunks:?}: {fault:?}");
        }
        let gone = Attempt { state: AttemptState::Deleted, ..attempt() };
        assert!(check(&gone, &[(0, 30)], &[]).is_some());
        assert_eq!(check(&gone, &[], &[]), None);
    }
}
