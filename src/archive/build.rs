//! The third verb: stream the chunks of some attempts into one object.

use std::collections::HashSet;

use super::agenda::{Due, agenda};
use super::candidates::{Candidate, Group};
use super::plan::Planned;
use super::read_ahead::ReadAhead;
use super::rules::RulesInForce;
use super::{ArchiveError, Shared};
use crate::catalog::Attempt;
use crate::cold;
use crate::cold::segment::{AttemptMeta, Extent, SegmentHeader, SegmentWriter, TsRange, Written};
use crate::db::{self, Home};
use crate::hot::{self, StoredChunk};
use crate::model::{AttemptId, AttemptKey, Identity, Job, LineRange};

/// An object that was uploaded. Nothing says yet that it can be read.
pub(super) struct Built {
    pub(super) planned: Planned,
    pub(super) written: Written,
    /// One for each attempt of the object, in its order.
    pub(super) entries: Vec<BuiltEntry>,
}

/// One attempt's lines in the object.
#[derive(Debug, Clone)]
pub(super) struct BuiltEntry {
    pub(super) home: Home,
    pub(super) attempt: Attempt,
    pub(super) due: Due,
    /// Those that were written: up to the end of a chunk, and at most what is due.
    pub(super) lines: LineRange,
    /// Bytes of their records in the hot tier.
    pub(super) raw_bytes: u64,
    pub(super) rule: String,
    /// It moves before its time, because the hot tier is under pressure.
    pub(super) early: bool,
    /// Why its next chunk cannot be read, if so; what comes before it moves.
    pub(super) damage: Option<String>,
}

/// Chunks read at a time: half a MiB of usual records.
const CHUNKS_AT_A_TIME: u32 = 16;

/// What an object is to be made of.
pub(super) struct Queue<'a> {
    pub(super) candidates: &'a [Candidate],
    /// Those among them that were set aside.
    pub(super) skipped: &'a HashSet<AttemptId>,
    /// How many have been looked at, also after an error.
    pub(super) taken: usize,
}

/// Writes attempts from the front of the queue until the object is full or there are no more.
/// `None` where none of them is due any more. On an error nothing of the object stays.
pub(super) async fn build(
    shared: &Shared,
    rules: &RulesInForce,
    planned: Planned,
    group: &Group,
    queue: &mut Queue<'_>,
) -> Result<Option<Built>, ArchiveError> {
    let header = SegmentHeader {
        cluster: shared.settings.cluster_id.clone(),
        app: group.app.clone(),
        rule: group.rule.clone(),
        finish_day: group.finish_day,
        created_at: shared.clock.now(),
        replaces: Vec::new(),
    };
    let upload = shared.store.upload(&planned.key);
    let mut writer = SegmentWriter::new(upload, header, shared.settings.segment)?;
    let mut builder = Builder { shared, rules, group, key: planned.key.to_string(), entries: Vec::new() };
    match builder.fill(&mut writer, queue).await {
        Ok(()) if builder.entries.is_empty() => {
            writer.abort().await?;
            Ok(None)
        }
        Ok(()) => {
            let written = writer.finish().await?;
            shared.metrics.objects_written.inc();
            shared.metrics.object_bytes.inc_by(written.byte_length);
            Ok(Some(Built { planned, written, entries: builder.entries }))
        }
        Err(error) => {
            // The first error is the one to tell; what is left over the sweeper finds.
            let _ = writer.abort().await;
            Err(error)
        }
    }
}

struct Builder<'a> {
    shared: &'a Shared,
    rules: &'a RulesInForce,
    group: &'a Group,
    /// The object's, to tell of a failure.
    key: String,
    entries: Vec<BuiltEntry>,
}

impl Builder<'_> {
    async fn fill(&mut self, writer: &mut SegmentWriter, queue: &mut Queue<'_>) -> Result<(), ArchiveError> {
        let mut ahead = ReadAhead::new(&self.shared.catalog, queue.candidates);
        for (at, candidate) in queue.candidates.iter().enumerate() {
            if writer.is_full(self.shared.settings.object_bytes) {
                return Ok(());
            }
            if self.shared.stop.is_cancelled() {
                return Err(ArchiveError::Stopping);
            }
            let found = ahead.take(at).await?;
            queue.taken = at + 1;
            let is_whole = match found.filter(|_| !queue.skipped.contains(&candidate.id)) {
                Some((attempt, chunks)) => self.write(writer, candidate, attempt, chunks).await?,
                None => true,
            };
            // The rest of an attempt that filled the object goes into the next one, when it is
            // read again after this part was published.
            if !is_whole {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes what is due of an attempt; false where the object became full before its end.
    async fn write(
        &mut self,
        writer: &mut SegmentWriter,
        candidate: &Candidate,
        attempt: Attempt,
        chunks: Vec<StoredChunk>,
    ) -> Result<bool, ArchiveError> {
        let home = &candidate.home;
        let job: Option<Job> = self.shared.catalog.optional_name(&home.db, attempt.job_id).await?;
        let rule = self.rules.ruling_of(self.shared, &home.db, &self.group.app, job.as_ref(), &attempt).await?;
        let rule = if candidate.early { rule.early() } else { rule };
        let due = agenda(&attempt, &rule, &self.shared.policy(), self.shared.clock.now()).archive;
        // Deleted, written to, or of another rule or day since it was found: another run's work.
        let same_group = |due: &Due| rule.name == self.group.rule && due.finish_day == self.group.finish_day;
        let Some(due) = due.filter(same_group) else { return Ok(true) };
        let begun = writer.begin(meta_of(self.group, &attempt, job), due.lines.start());
        begun.map_err(|error| self.blame(attempt.id, error))?;
        let mut entry = BuiltEntry {
            home: home.clone(),
            attempt,
            due,
            lines: LineRange::new(due.lines.start(), due.lines.start()),
            raw_bytes: 0,
            rule: rule.name.to_string(),
            early: candidate.early,
            damage: None,
        };
        let copied = self.copy(writer, &mut entry, chunks).await;
        writer.end()?;
        self.entries.push(entry);
        copied
    }

    /// Copies lines chunk by chunk; `ahead` are some that were read already.
    async fn copy(
        &mut self,
        writer: &mut SegmentWriter,
        entry: &mut BuiltEntry,
        mut ahead: Vec<StoredChunk>,
    ) -> Result<bool, ArchiveError> {
        while entry.lines.end() < entry.due.lines.end() {
            let left = LineRange::new(entry.lines.end(), entry.due.lines.end());
            let begins =
                |chunks: &[StoredChunk]| chunks.first().is_some_and(|chunk| chunk.lines.start() == left.start());
            ahead.retain(|chunk| !chunk.lines.intersect(left).is_empty());
            let scanned = match begins(&ahead) {
                true => Ok(std::mem::take(&mut ahead)),
                false => hot::scan(&entry.home, entry.attempt.id, left, CHUNKS_AT_A_TIME).await,
            };
            let chunks = match scanned {
                Ok(chunks) if begins(&chunks) => chunks,
                Ok(_) => return damaged(entry, format!("line {} is not in the hot tier", left.start())),
                Err(db::Error::Row(what)) => return damaged(entry, what),
                Err(error) => return Err(error.into()),
            };
            for chunk in chunks {
                if chunk.lines.start() != entry.lines.end() {
                    return damaged(entry, format!("line {} is not in the hot tier", entry.lines.end()));
                }
                let ts = TsRange::new(chunk.first_ts, chunk.last_ts);
                let extent = Extent { lines: chunk.lines.len(), ts: Some(ts), levels: chunk.levels };
                let pushed = writer.push_block(&chunk.records, extent).await;
                pushed.map_err(|error| self.blame(entry.attempt.id, error))?;
                entry.raw_bytes += chunk.records.len() as u64;
                entry.lines = LineRange::new(entry.lines.start(), chunk.lines.end());
                let at_end = entry.lines.end() >= entry.due.lines.end();
                if !at_end && writer.is_full(self.shared.settings.object_bytes) {
                    return Ok(false);
                }
            }
            if self.shared.stop.is_cancelled() {
                return Err(ArchiveError::Stopping);
            }
        }
        Ok(true)
    }

    /// Lines that the segment format does not take are the attempt's fault, everything else the store's.
    fn blame(&self, culprit: AttemptId, error: cold::Error) -> ArchiveError {
        match error {
            cold::Error::Invalid { what } => {
                ArchiveError::Mismatch { key: self.key.clone(), what, culprit: Some(culprit) }
            }
            error => error.into(),
        }
    }
}

/// Poison stays local: what comes before the damage moves, the rest is set aside.
fn damaged(entry: &mut BuiltEntry, what: String) -> Result<bool, ArchiveError> {
    entry.damage = Some(what);
    Ok(true)
}

fn meta_of(group: &Group, attempt: &Attempt, job: Option<Job>) -> AttemptMeta {
    let key = AttemptKey { app: group.app.clone(), instance: attempt.instance.clone(), attempt: attempt.attempt };
    AttemptMeta {
        id: attempt.id,
        meta_version: attempt.meta_version as u32,
        identity: Identity { key, job, labels: attempt.labels.clone() },
        state: attempt.state,
        outcome: attempt.outcome,
        created_at: attempt.created_at,
        finished_at: attempt.finished_at,
    }
}
