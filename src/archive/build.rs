//! The third verb: stream the chunks of some attempts into one object.

use std::collections::{HashMap, VecDeque};

use super::agenda::{Due, agenda};
use super::candidates::{Candidate, Group};
use super::plan::Planned;
use super::rules::RulesInForce;
use super::{ArchiveError, Failure, Shared};
use crate::catalog::Attempt;
use crate::cold::segment::{AttemptMeta, Extent, SegmentHeader, SegmentWriter, TsRange, Written};
use crate::db::{self, Home};
use crate::hot;
use crate::model::{AttemptId, AttemptKey, Identity, Job, LineRange};

/// An object that was uploaded. Nothing says yet that it can be read.
pub(super) struct Built {
    pub(super) planned: Planned,
    pub(super) written: Written,
    /// One for each attempt of the object, in its order.
    pub(super) entries: Vec<BuiltEntry>,
    pub(super) failures: Vec<Failure>,
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
    /// Its next chunk cannot be read; what comes before it moves.
    pub(super) is_damaged: bool,
}

/// Attempts whose rows are read together.
const ROWS_AT_A_TIME: usize = 64;

/// How far ahead a shard's candidates are looked for, among those of all shards: 64 of each of 16.
const LOOK_AHEAD: usize = 1_024;

/// Chunks read at a time: half a MiB of usual records.
const CHUNKS_AT_A_TIME: u32 = 16;

/// Writes attempts from the front of `queue` until the object is full or the queue empty.
/// `None` where none of them is due any more. On an error nothing of the object stays.
pub(super) async fn build(
    shared: &Shared,
    rules: &RulesInForce,
    planned: Planned,
    group: &Group,
    queue: &mut VecDeque<Candidate>,
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
    let mut builder = Builder { shared, rules, group, entries: Vec::new(), failures: Vec::new() };
    match builder.fill(&mut writer, queue).await {
        Ok(()) if builder.entries.is_empty() => {
            writer.abort().await?;
            Ok(None)
        }
        Ok(()) => {
            let written = writer.finish().await?;
            shared.metrics.objects_written.inc();
            shared.metrics.object_bytes.inc_by(written.byte_length);
            let Builder { entries, failures, .. } = builder;
            Ok(Some(Built { planned, written, entries, failures }))
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
    entries: Vec<BuiltEntry>,
    failures: Vec<Failure>,
}

impl Builder<'_> {
    async fn fill(&mut self, writer: &mut SegmentWriter, queue: &mut VecDeque<Candidate>) -> Result<(), ArchiveError> {
        let mut rows: HashMap<AttemptId, Attempt> = HashMap::new();
        while let Some(candidate) = queue.front().cloned() {
            if writer.is_full(self.shared.settings.object_bytes) {
                return Ok(());
            }
            if self.shared.stop.is_cancelled() {
                return Err(ArchiveError::Stopping);
            }
            if !rows.contains_key(&candidate.id) {
                rows.extend(self.read_rows(&candidate.home, queue).await?);
            }
            let is_whole = match rows.remove(&candidate.id) {
                Some(attempt) => self.write(writer, &candidate, attempt).await?,
                None => true,
            };
            // The rest of an attempt that filled the object goes into the next one, when it is
            // read again after this part was published.
            queue.pop_front();
            if !is_whole {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The rows of the first candidates of a shard, as they are now.
    async fn read_rows(
        &self,
        home: &Home,
        queue: &VecDeque<Candidate>,
    ) -> Result<HashMap<AttemptId, Attempt>, ArchiveError> {
        let same_shard = queue.iter().take(LOOK_AHEAD).filter(|candidate| candidate.home.shard == home.shard);
        let ids: Vec<AttemptId> = same_shard.take(ROWS_AT_A_TIME).map(|candidate| candidate.id).collect();
        let rows = self.shared.catalog.attempts(home, &ids).await?;
        Ok(rows.into_iter().map(|attempt| (attempt.id, attempt)).collect())
    }

    /// Writes what is due of an attempt; false where the object became full before its end.
    async fn write(
        &mut self,
        writer: &mut SegmentWriter,
        candidate: &Candidate,
        attempt: Attempt,
    ) -> Result<bool, ArchiveError> {
        let home = &candidate.home;
        let job: Option<Job> = self.shared.catalog.optional_name(&home.db, attempt.job_id).await?;
        let rule = self.rules.ruling_of(self.shared, &home.db, &self.group.app, job.as_ref(), &attempt).await?;
        let rule = if candidate.early { rule.early() } else { rule };
        let due = agenda(&attempt, &rule, &self.shared.policy(), self.shared.clock.now()).archive;
        // Deleted, written to, or of another rule or day since it was found: another run's work.
        let same_group = |due: &Due| rule.name == self.group.rule && due.finish_day == self.group.finish_day;
        let Some(due) = due.filter(same_group) else { return Ok(true) };
        writer.begin(meta_of(self.group, &attempt, job), due.lines.start())?;
        let mut entry = BuiltEntry {
            home: home.clone(),
            attempt,
            due,
            lines: LineRange::new(due.lines.start(), due.lines.start()),
            raw_bytes: 0,
            rule: rule.name.to_string(),
            early: candidate.early,
            is_damaged: false,
        };
        let copied = self.copy(writer, &mut entry).await;
        writer.end()?;
        self.entries.push(entry);
        copied
    }

    async fn copy(&mut self, writer: &mut SegmentWriter, entry: &mut BuiltEntry) -> Result<bool, ArchiveError> {
        while entry.lines.end() < entry.due.lines.end() {
            let left = LineRange::new(entry.lines.end(), entry.due.lines.end());
            let chunks = match hot::scan(&entry.home, entry.attempt.id, left, CHUNKS_AT_A_TIME).await {
                Ok(chunks) if chunks.first().is_some_and(|chunk| chunk.lines.start() == left.start()) => chunks,
                Ok(_) => return self.damaged(entry, format!("line {} is not in the hot tier", left.start())),
                Err(db::Error::Row(what)) => return self.damaged(entry, what),
                Err(error) => return Err(error.into()),
            };
            for chunk in chunks {
                if chunk.lines.start() != entry.lines.end() {
                    return self.damaged(entry, format!("line {} is not in the hot tier", entry.lines.end()));
                }
                let ts = TsRange::new(chunk.first_ts, chunk.last_ts);
                let extent = Extent { lines: chunk.lines.len(), ts: Some(ts), levels: chunk.levels };
                writer.push_block(&chunk.records, extent).await?;
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

    /// Poison stays local: what comes before the damage moves, the rest is set aside.
    fn damaged(&mut self, entry: &mut BuiltEntry, what: String) -> Result<bool, ArchiveError> {
        entry.is_damaged = true;
        let name = AttemptKey {
            app: self.group.app.clone(),
            instance: entry.attempt.instance.clone(),
            attempt: entry.attempt.attempt,
        };
        tracing::error!(attempt = %name, error = what, "a chunk cannot be archived; its attempt is set aside");
        self.failures.push(Failure { what: format!("archive {name}"), error: what });
        Ok(true)
    }
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
