//! One group: look up, accept, encode, write, answer.
//!
//! The first round writes without looking: what the catalog would say against it (the attempt is
//! gone, the batch was stored before) shows inside the transaction, which is then rolled back, and the
//! next round knows why. Only a batch that must begin at a certain line is looked up at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ids::Recalled;
use super::{AppendError, Appended, Pending, Shared};
use crate::catalog::batches::{self, Remembered};
use crate::catalog::{Attempt, Kind, NaturalKey, Reserve, ReserveError, Reserved, find, reserve};
use crate::db::{Connection, Db, Error, Home, Shard, TxError};
use crate::hot::{self, Chunk, Lines};
use crate::model::{AttemptId, Labels, LevelSet, Millis};

/// Rounds that a group may take: each lost one means that another writer of the same attempt or
/// key was faster.
const MAX_ROUNDS: u32 = 10;

/// Commits a group and answers every batch of it, all or each with its own reason.
pub(super) async fn commit(shared: &Shared, group: Vec<Pending>) {
    let started = shared.clock.instant();
    let mut left = group;
    let mut looks_up = left.iter().any(|pending| pending.batch.at_line.is_some());
    for _ in 0..MAX_ROUNDS {
        if left.is_empty() {
            break;
        }
        left = Box::pin(round(shared, left, looks_up)).await;
        looks_up = true;
    }
    if !left.is_empty() {
        refuse(shared, left, &Error::Contended(sqlx::Error::WorkerCrashed).into());
    }
    shared.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
}

/// Answers what it can; returns what must go round again.
async fn round(shared: &Shared, group: Vec<Pending>, looks_up: bool) -> Vec<Pending> {
    let now = shared.clock.now();
    let known = match name(shared, &group).await {
        Ok(known) if looks_up => look_up(&group, known).await,
        result => result,
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => return refuse(shared, group, &error),
    };
    let (accepted, again) = accept(group, &known, now);
    if accepted.is_empty() {
        return again;
    }
    let plan = match encode(shared, &accepted, now) {
        Ok(plan) => Arc::new(plan),
        Err(error) => {
            refuse(shared, accepted.into_iter().map(|a| a.pending).collect(), &error);
            return again;
        }
    };
    let several = plan.attempts() > 1;
    let mut left = match write(plan).await {
        Ok(first_lines) => {
            answer(shared, accepted, &first_lines);
            Vec::new()
        }
        Err(WriteError::Raced) => accepted.into_iter().map(|a| a.pending).collect(),
        // One locked attempt must not hold up the others.
        Err(WriteError::Db(error)) if error.is_contended() && several => one_by_one(shared, accepted).await,
        Err(WriteError::Db(error)) => refuse(shared, accepted.into_iter().map(|a| a.pending).collect(), &error),
    };
    left.extend(again);
    left
}

async fn one_by_one(shared: &Shared, accepted: Vec<Accepted>) -> Vec<Pending> {
    let mut by_attempt: BTreeMap<(Shard, NaturalKey), Vec<Pending>> = BTreeMap::new();
    for one in accepted {
        by_attempt.entry((one.home.shard, one.key)).or_default().push(one.pending);
    }
    let mut left = Vec::new();
    for pending in by_attempt.into_values() {
        left.extend(Box::pin(round(shared, pending, true)).await);
    }
    left
}

fn refuse(shared: &Shared, group: Vec<Pending>, error: &Arc<Error>) -> Vec<Pending> {
    if error.is_full() {
        shared.no_room_at.store(shared.clock.now().get(), Ordering::Relaxed);
    }
    for pending in group {
        let _ = pending.answer.send(Err(AppendError::Db(Arc::clone(error))));
    }
    Vec::new()
}

/// What the catalog knows of a group's attempts and keys; nothing of either before it is asked.
struct Known {
    /// Of each batch: where it belongs, and its names as numbers.
    places: Vec<(Home, NaturalKey, i32)>,
    attempts: HashMap<(Shard, NaturalKey), Attempt>,
    keys: HashMap<[u8; 16], Remembered>,
}

/// What is asked of one shard: attempts and batch keys.
type Questions = (Home, HashSet<NaturalKey>, Vec<[u8; 16]>);

/// Places alone.
async fn name(shared: &Shared, group: &[Pending]) -> Result<Known, Arc<Error>> {
    let catalog = &shared.catalog;
    let mut known = Known { places: Vec::with_capacity(group.len()), attempts: HashMap::new(), keys: HashMap::new() };
    for Pending { batch, .. } in group {
        let home = catalog.cluster.home(&batch.key.app, &batch.key.instance);
        let app_id = catalog.name_number(&home.db, Kind::App, batch.key.app.as_str()).await?;
        let job_id = match &batch.job {
            Some(job) => catalog.name_number(&home.db, Kind::Job, job.as_str()).await?,
            None => 0,
        };
        let key = NaturalKey { app_id, instance: batch.key.instance.clone(), attempt: batch.key.attempt };
        known.places.push((home, key, job_id));
    }
    Ok(known)
}

async fn look_up(group: &[Pending], mut known: Known) -> Result<Known, Arc<Error>> {
    let mut by_shard: BTreeMap<Shard, Questions> = BTreeMap::new();
    for (Pending { batch, .. }, (home, key, _)) in group.iter().zip(&known.places) {
        let (_, keys, batch_keys) =
            by_shard.entry(home.shard).or_insert_with(|| (home.clone(), HashSet::new(), Vec::new()));
        keys.insert(key.clone());
        batch_keys.extend(batch.batch_key.map(|key| key.hash));
    }
    for (shard, (home, keys, batch_keys)) in by_shard {
        let keys: Vec<NaturalKey> = keys.into_iter().collect();
        known.attempts.extend(find(&home, &keys).await?.into_iter().map(|(key, row)| ((shard, key), row)));
        known.keys.extend(batches::find(&home, &batch_keys).await?);
    }
    Ok(known)
}

/// A batch that is to be written.
struct Accepted {
    pending: Pending,
    home: Home,
    key: NaturalKey,
    job_id: i32,
    found: Option<Recalled>,
}

/// Sorts out what is answered without writing; the rest, in the order it will be written, and
/// what must wait for the next round.
fn accept(group: Vec<Pending>, known: &Known, now: Millis) -> (Vec<Accepted>, Vec<Pending>) {
    let (mut accepted, mut again) = (Vec::new(), Vec::new());
    let mut next_lines: HashMap<(Shard, NaturalKey), u64> = HashMap::new();
    let mut keys_here = HashSet::new();
    for (pending, (home, key, job_id)) in group.into_iter().zip(&known.places) {
        let place = (home.shard, key.clone());
        let found = known.attempts.get(&place);
        let next_line = *next_lines.entry(place.clone()).or_insert_with(|| found.map_or(0, |row| row.next_line));
        match judge(&pending, found, known, next_line, now) {
            Some(verdict) => drop(pending.answer.send(verdict)),
            // The same key twice in one group: the second learns what became of the first.
            None if pending.batch.batch_key.is_some_and(|key| !keys_here.insert(key.hash)) => again.push(pending),
            None => {
                *next_lines.entry(place).or_default() += pending.batch.lines.len() as u64;
                let (home, key) = (home.clone(), key.clone());
                accepted.push(Accepted {
                    pending,
                    home,
                    key,
                    job_id: *job_id,
                    found: found.map(|row| Recalled { id: row.id, job_id: row.job_id }),
                });
            }
        }
    }
    // Stable: batches of one attempt stay in the order they came.
    accepted.sort_by(|a, b| (a.home.shard, &a.key).cmp(&(b.home.shard, &b.key)));
    (accepted, again)
}

/// The answer to a batch that is not to be written.
fn judge(
    pending: &Pending,
    found: Option<&Attempt>,
    known: &Known,
    next_line: u64,
    now: Millis,
) -> Option<Result<Appended, AppendError>> {
    let batch = &pending.batch;
    if let Some(key) = batch.batch_key
        && let Some(first) = known.keys.get(&key.hash)
    {
        if first.key.content != key.content {
            return Some(Err(AppendError::KeyReused));
        }
        return Some(Ok(Appended {
            attempt: batch.key.attempt,
            first_line: first.first_line,
            lines: u64::from(first.lines),
            repeated: true,
            other_job: false,
            other_labels: false,
        }));
    }
    if let Some(row) = found
        && row.state_at(now).is_gone()
    {
        return Some(Err(AppendError::Gone { state: row.state_at(now), at: row.gone_since() }));
    }
    match batch.at_line {
        Some(at_line) if at_line != next_line => Some(Err(AppendError::NotNextLine { next_line })),
        _ => None,
    }
}

/// All that one transaction writes.
struct Plan {
    db: Arc<Db>,
    shards: Vec<ShardPlan>,
}

struct ShardPlan {
    home: Home,
    reserves: Vec<Reserve>,
    /// Of each reserve.
    chunks: Vec<Vec<Chunk>>,
    /// Of each batch: the index of its reserve, and how many of that attempt's lines come before it.
    batches: Vec<PlannedBatch>,
}

struct PlannedBatch {
    reserve: usize,
    offset: u64,
    lines: u64,
    key: Option<crate::catalog::BatchKey>,
    at_line: Option<u64>,
}

impl Plan {
    fn attempts(&self) -> usize {
        self.shards.iter().map(|shard| shard.reserves.len()).sum()
    }
}

fn encode(shared: &Shared, accepted: &[Accepted], now: Millis) -> Result<Plan, Arc<Error>> {
    let mut shards: Vec<ShardPlan> = Vec::new();
    for of_shard in accepted.chunk_by(|a, b| a.home.shard == b.home.shard) {
        let mut plan =
            ShardPlan { home: of_shard[0].home.clone(), reserves: Vec::new(), chunks: Vec::new(), batches: Vec::new() };
        for of_attempt in of_shard.chunk_by(|a, b| a.key == b.key) {
            let mut offset = 0;
            for Accepted { pending: Pending { batch, .. }, .. } in of_attempt {
                let (lines, reserve) = (batch.lines.len() as u64, plan.reserves.len());
                plan.batches.push(PlannedBatch {
                    reserve,
                    offset,
                    lines,
                    key: batch.batch_key,
                    at_line: batch.at_line,
                });
                offset += lines;
            }
            let lines = of_attempt.iter().map(|one| &one.pending.batch.lines);
            plan.chunks.push(hot::encode(lines).map_err(|e| Arc::new(Error::Row(format!("compress chunk: {e}"))))?);
            plan.reserves.push(reserve_for(shared, of_attempt, now));
        }
        shards.push(plan);
    }
    Ok(Plan { db: Arc::clone(&accepted[0].home.db), shards })
}

fn reserve_for(shared: &Shared, batches: &[Accepted], now: Millis) -> Reserve {
    let first = &batches[0];
    let lines = || batches.iter().map(|one| &one.pending.batch.lines);
    let ranges = || lines().filter_map(Lines::ts_range);
    let labels = batches.iter().map(|one| &one.pending.batch.labels).find(|labels| !labels.is_empty());
    let known = first.found.or_else(|| shared.ids.get(first.home.shard, &first.key));
    Reserve {
        key: first.key.clone(),
        id: known.map_or_else(|| AttemptId::at(now, shared.clock.random_u32()), |known| known.id),
        known_job: known.map(|known| known.job_id),
        job_id: batches.iter().map(|one| one.job_id).find(|job| *job != 0).unwrap_or(0),
        labels: labels.cloned().unwrap_or_default(),
        lines: lines().map(|lines| lines.len() as u64).sum(),
        raw_bytes: lines().map(|lines| lines.json().len() as u64).sum(),
        ts_range: ranges().map(|(first, _)| first).min().zip(ranges().map(|(_, last)| last).max()),
        levels: lines().fold(LevelSet::EMPTY, |set, lines| set.union(lines.levels())),
        due_at: now.after(shared.idle_after),
        created_at: now,
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("another writer was faster")]
    Raced,
    #[error(transparent)]
    Db(Arc<Error>),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Db(Arc::new(error))
    }
}

impl From<ReserveError> for WriteError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Raced => Self::Raced,
            ReserveError::Db(error) => error.into(),
        }
    }
}

impl TxError for WriteError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_contended())
    }
}

/// Where a batch begins, and the id, job and labels that its attempt has.
struct Written {
    id: AttemptId,
    first_line: u64,
    job_id: i32,
    labels: Labels,
}

/// In the order of the plan.
async fn write(plan: Arc<Plan>) -> Result<Vec<Written>, WriteError> {
    let db = Arc::clone(&plan.db);
    db.run_tx("ingest::write", move |tx| {
        let plan = Arc::clone(&plan);
        Box::pin(async move {
            let mut written = Vec::new();
            // As of the commit, however long the group was in the making: retention counts from it.
            let now = plan.db.clock().now();
            for shard in &plan.shards {
                write_shard(tx, shard, now, &mut written).await?;
            }
            Ok(written)
        })
    })
    .await
}

async fn write_shard(
    tx: &mut Connection,
    plan: &ShardPlan,
    now: Millis,
    written: &mut Vec<Written>,
) -> Result<(), WriteError> {
    let reserved = reserve(tx, &plan.home, &plan.reserves, now).await?;
    let mut remembered = Vec::new();
    for batch in &plan.batches {
        let row = &reserved[batch.reserve];
        let first_line = row.first_line + batch.offset;
        if batch.at_line.is_some_and(|at_line| at_line != first_line) {
            return Err(WriteError::Raced);
        }
        let Reserved { id, job_id, labels, .. } = row;
        written.push(Written { id: *id, first_line, job_id: *job_id, labels: labels.clone() });
        remembered.extend(batch.key.map(|key| Remembered {
            key,
            attempt: row.id,
            first_line,
            lines: batch.lines as u32,
        }));
    }
    let chunks = reserved
        .iter()
        .zip(&plan.chunks)
        .flat_map(|(row, chunks)| chunks.iter().map(|chunk| (row.id, row.first_line + chunk.offset, chunk)));
    hot::insert(tx, plan.home.shard, &chunks.collect::<Vec<_>>()).await?;
    match batches::insert(tx, &plan.home, &remembered, now).await {
        Err(Error::Duplicate(_)) => Err(WriteError::Raced),
        result => Ok(result?),
    }
}

fn answer(shared: &Shared, accepted: Vec<Accepted>, written: &[Written]) {
    for (one, written) in accepted.into_iter().zip(written) {
        let batch = &one.pending.batch;
        shared.ids.insert(one.home.shard, one.key, Recalled { id: written.id, job_id: written.job_id });
        shared.metrics.ingested(batch.lines.len() as u64, batch.lines.json().len() as u64);
        let appended = Appended {
            attempt: batch.key.attempt,
            first_line: written.first_line,
            lines: batch.lines.len() as u64,
            repeated: false,
            other_job: one.job_id != 0 && one.job_id != written.job_id,
            other_labels: !batch.labels.is_empty() && batch.labels != written.labels,
        };
        // Who asked may have gone; what was stored stays.
        let _ = one.pending.answer.send(Ok(appended));
    }
}
