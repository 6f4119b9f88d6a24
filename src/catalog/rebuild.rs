//! Brings back from the bucket what the catalog lost.
//!
//! An entry of an object becomes a part if the catalog has nothing newer in its place, and tells the
//! attempt's row what it knows. Every step can be run again: what is there already is left as it is.
//!
//! Objects come newest first. Of two that hold the same lines the newer is the one that was
//! published, because lines that were published are archived again only by whoever gave up the old.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use ulid::Ulid;

use super::publish::{Death, count_dead};
use super::rebuild_rows::{bind_changed, bind_new, insert_parts, known_parts, make_known};
use super::{Attempt, Catalog, NaturalKey, SegmentId, in_powers_of_two, sql, sql_publish, sql_rebuild};
use crate::db::{Connection, Error, Home, Result};
use crate::model::{AttemptId, AttemptState, Labels, LevelSet, LineRange, Millis, Outcome, Timestamp};

/// An object that was found in the bucket.
#[derive(Debug, Clone)]
pub struct FoundSegment {
    pub ulid: Ulid,
    pub app_id: i32,
    pub rule_id: i32,
    pub finish_day: i64,
    pub byte_length: u64,
    pub index_offset: u64,
    pub frames_offset: u64,
    pub created_at: Millis,
    /// What it holds, wanted or not.
    pub entries: u64,
    pub lines: u64,
}

/// What an object says of some lines of an attempt.
#[derive(Debug, Clone)]
pub struct FoundEntry {
    pub id: AttemptId,
    pub key: NaturalKey,
    pub job_id: i32,
    pub labels: Labels,
    pub state: AttemptState,
    pub outcome: Option<Outcome>,
    pub meta_version: i64,
    pub created_at: Millis,
    pub finished_at: Option<Millis>,
    /// When it was written to last, at the latest.
    pub written_at: Millis,
    pub expires_at: Option<Millis>,
    /// When the archiver must look at it next.
    pub due_at: Millis,
    pub lines: LineRange,
    /// Of its records as the hot tier counts them.
    pub raw_bytes: u64,
    pub byte_offset: u64,
    pub byte_length: u64,
    pub skip: u32,
    pub ts_range: Option<(Timestamp, Timestamp)>,
    pub levels: LevelSet,
    pub frames: Vec<u8>,
}

/// What became of the entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroughtBack {
    /// Attempts that the catalog did not know.
    pub attempts: u64,
    /// Parts that it did not know, and their lines.
    pub parts: u64,
    pub lines: u64,
    /// Parts that were there.
    pub known: u64,
    /// Entries of which something newer is there, or whose attempt is gone.
    pub superseded: u64,
    /// Entries that contradict the catalog. Nothing was changed for them.
    pub conflicts: Vec<String>,
}

impl BroughtBack {
    pub fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.parts += other.parts;
        self.lines += other.lines;
        self.known += other.known;
        self.superseded += other.superseded;
        self.conflicts.extend(other.conflicts);
    }
}

/// Answers whether an object has been replaced, so that its parts may be given up.
pub type IsReplaced = Arc<dyn Fn(Ulid) -> bool + Send + Sync>;

/// Entries of one transaction: some ten statements of up to 64 rows.
const ENTRIES_PER_TX: usize = 256;

impl Catalog {
    /// Brings back the entries of one object that live in one shard.
    pub async fn bring_back(
        &self,
        home: &Home,
        segment: &FoundSegment,
        entries: &[FoundEntry],
        is_replaced: &IsReplaced,
        now: Millis,
    ) -> Result<BroughtBack> {
        let mut all = BroughtBack::default();
        for some in entries.chunks(ENTRIES_PER_TX) {
            let (home_in_tx, segment, some) = (home.clone(), segment.clone(), some.to_vec());
            let is_replaced = Arc::clone(is_replaced);
            let done = home.db.run_tx("catalog::bring_back", move |tx| {
                let (home, segment, some) = (home_in_tx.clone(), segment.clone(), some.clone());
                let is_replaced = Arc::clone(&is_replaced);
                Box::pin(async move {
                    let mut merge = Merge::begin(tx, &home, &segment, &some, is_replaced, now).await?;
                    for entry in &some {
                        merge.entry(entry);
                    }
                    merge.write(tx).await
                })
            });
            all.add(done.await?);
        }
        Ok(all)
    }

    /// Lets an attempt begin with its first part. Answers false where it did so already.
    pub async fn trim_to_parts(&self, home: &Home, id: AttemptId) -> Result<bool> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql_rebuild::first_part_line(home.shard))).bind(id.get());
        let Some(line) = query.fetch_one(home.db.pool()).await? else { return Ok(false) };
        let line: i64 = line;
        let update = sqlx::query(AssertSqlSafe(sql_rebuild::trim_to_parts(home.shard)));
        let update = update.bind(line).bind(id.get()).bind(line);
        Ok(update.execute(home.db.pool()).await?.rows_affected() == 1)
    }
}

/// A part that the catalog has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownPart {
    pub lines: LineRange,
    pub segment: i64,
    /// `None` where the row of its object is missing.
    pub ulid: Option<Ulid>,
}

/// What has become of an attempt's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Update,
    Insert,
}

/// Some entries of an object against the rows that are there.
struct Merge<'a> {
    home: &'a Home,
    segment: &'a FoundSegment,
    is_replaced: IsReplaced,
    now: Millis,
    rows: BTreeMap<NaturalKey, (Attempt, Change)>,
    parts: HashMap<AttemptId, Vec<KnownPart>>,
    given_up: Vec<(AttemptId, KnownPart)>,
    accepted: Vec<&'a FoundEntry>,
    done: BroughtBack,
}

impl<'a> Merge<'a> {
    async fn begin(
        tx: &mut Connection,
        home: &'a Home,
        segment: &'a FoundSegment,
        entries: &[FoundEntry],
        is_replaced: IsReplaced,
        now: Millis,
    ) -> Result<Self> {
        let mut keys: Vec<NaturalKey> = entries.iter().map(|entry| entry.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut rows = BTreeMap::new();
        for some in in_powers_of_two(&keys) {
            let mut query = sqlx::query(AssertSqlSafe(sql::attempts_by_key(home.shard, some.len())));
            for key in some {
                query = query.bind(key.app_id).bind(key.instance.as_bytes().to_vec()).bind(key.attempt.get() as i32);
            }
            for row in query.fetch_all(&mut *tx).await? {
                let row = Attempt::from_row(&row)?;
                let key = NaturalKey { app_id: row.app_id, instance: row.instance.clone(), attempt: row.attempt };
                rows.insert(key, (row, Change::None));
            }
        }
        let ids: Vec<AttemptId> = rows.values().map(|(row, _)| row.id).collect();
        let parts = known_parts(tx, home, &ids).await?;
        let (given_up, accepted, done) = (Vec::new(), Vec::new(), BroughtBack::default());
        Ok(Self { home, segment, is_replaced, now, rows, parts, given_up, accepted, done })
    }

    fn entry(&mut self, entry: &'a FoundEntry) {
        let (row, change) =
            self.rows.entry(entry.key.clone()).or_insert_with(|| (new_row(entry, self.segment), Change::Insert));
        if row.id != entry.id {
            if row.id < entry.id {
                let what = format!("{} of instance {} has another id in the catalog", entry.key.attempt, row.instance);
                self.done.conflicts.push(format!("attempt {what}; it was made after the database's backup"));
            } else {
                // A later attempt of the same name, after this one was forgotten.
                self.done.superseded += 1;
            }
            return;
        }
        if row.state.is_gone() {
            self.done.superseded += 1;
            return;
        }
        let is_newer_word = entry.meta_version > row.archived_meta;
        let parts = self.parts.entry(entry.id).or_default();
        let here = SegmentId::of(self.segment.ulid).get();
        if parts.iter().any(|part| part.segment == here && part.lines == entry.lines) {
            self.done.known += 1;
            return;
        }
        let verdict = judge(entry, parts, is_newer_word, &*self.is_replaced);
        match verdict {
            Verdict::Accept(give_up) => {
                // Its bytes are counted already.
                let moved = give_up.iter().any(|part| !part.lines.is_empty());
                for part in give_up {
                    parts.retain(|known| *known != part);
                    self.given_up.push((entry.id, part));
                }
                parts.push(KnownPart { lines: entry.lines, segment: here, ulid: Some(self.segment.ulid) });
                self.accepted.push(entry);
                extend(row, entry, self.segment, !moved);
                if *change == Change::None {
                    *change = Change::Update;
                }
                self.done.parts += 1;
                self.done.lines += entry.lines.len();
            }
            Verdict::Superseded => self.done.superseded += 1,
            Verdict::Conflict(with) => {
                let what = format!("lines {} of {}#{}", entry.lines, row.instance, row.attempt);
                self.done.conflicts.push(format!("{what} overlap lines {with} of another object"));
            }
        }
        if entry.meta_version > row.meta_version || *change == Change::Insert {
            retell(row, entry);
            if *change == Change::None {
                *change = Change::Update;
            }
        }
        if *change == Change::Update {
            row.due_at = row.due_at.min(self.now);
        }
    }

    async fn write(mut self, tx: &mut Connection) -> Result<BroughtBack> {
        let shard = self.home.shard;
        let mut dead = BTreeMap::new();
        for (id, part) in &self.given_up {
            let delete = sqlx::query(AssertSqlSafe(sql_rebuild::delete_part(shard)));
            delete.bind(id.get()).bind(part.lines.start() as i64).bind(part.segment).execute(&mut *tx).await?;
            let counted = dead.entry(part.segment).or_insert((0i64, 0i64));
            counted.0 += 1;
            counted.1 += part.lines.len() as i64;
        }
        let of = |wanted: Change| {
            self.rows.values().filter(move |(_, change)| *change == wanted).map(|(row, _)| row).collect::<Vec<_>>()
        };
        let new = of(Change::Insert);
        self.done.attempts += new.len() as u64;
        for some in in_powers_of_two(&new) {
            let mut insert = sqlx::query(AssertSqlSafe(sql_rebuild::insert_attempts(shard, some.len())));
            for row in some {
                insert = bind_new(insert, row);
            }
            insert.execute(&mut *tx).await?;
        }
        for row in of(Change::Update) {
            let update = sqlx::query(AssertSqlSafe(sql_rebuild::update_attempt(shard)));
            bind_changed(update, row).execute(&mut *tx).await?;
        }
        count_dead(tx, &dead, Death::Replaced, self.now).await?;
        if self.accepted.is_empty() {
            return Ok(self.done);
        }
        make_known(tx, self.segment, self.now).await?;
        insert_parts(tx, self.home, self.segment, &self.accepted).await?;
        let id = SegmentId::of(self.segment.ulid).get();
        let count = sqlx::query(sql_publish::count_entries())
            .bind(self.done.parts as i64)
            .bind(self.done.lines as i64)
            .bind(id);
        match count.execute(tx).await?.rows_affected() {
            1 => Ok(self.done),
            rows => Err(Error::RowCount { statement: "catalog::bring_back", rows, expected: 1 }),
        }
    }
}

enum Verdict {
    /// With the parts that it takes the place of.
    Accept(Vec<KnownPart>),
    Superseded,
    Conflict(LineRange),
}

/// Whether an entry becomes a part beside those that are there.
fn judge(entry: &FoundEntry, parts: &[KnownPart], is_newer_word: bool, is_replaced: &dyn Fn(Ulid) -> bool) -> Verdict {
    // Without lines: only what it says of the attempt counts, and the newest says it best.
    let silent = parts.iter().filter(|part| part.lines.is_empty());
    if entry.lines.is_empty() {
        let is_taken = parts.iter().any(|part| !part.lines.is_empty() && part.lines.start() == entry.lines.start());
        return if is_newer_word && !is_taken {
            Verdict::Accept(silent.copied().collect())
        } else {
            Verdict::Superseded
        };
    }
    let in_place = |part: &&KnownPart| is_newer_word || part.lines.start() == entry.lines.start();
    let mut give_up: Vec<KnownPart> = silent.filter(in_place).copied().collect();
    let mut covered = 0;
    for part in parts {
        let both = part.lines.intersect(entry.lines);
        if both.is_empty() {
            continue;
        }
        if both == part.lines && part.ulid.is_none_or(is_replaced) {
            give_up.push(*part);
        } else {
            covered += both.len();
        }
    }
    match covered {
        0 => Verdict::Accept(give_up),
        lines if lines == entry.lines.len() => Verdict::Superseded,
        _ => Verdict::Conflict(
            parts
                .iter()
                .map(|part| part.lines.intersect(entry.lines))
                .find(|both| !both.is_empty())
                .unwrap_or(entry.lines),
        ),
    }
}

/// The row of an attempt that the catalog does not know, before its lines are counted.
fn new_row(entry: &FoundEntry, segment: &FoundSegment) -> Attempt {
    let start = entry.lines.start();
    Attempt {
        id: entry.id,
        app_id: entry.key.app_id,
        instance: entry.key.instance.clone(),
        attempt: entry.key.attempt,
        job_id: entry.job_id,
        labels: entry.labels.clone(),
        state: entry.state,
        outcome: entry.outcome,
        held: false,
        meta_version: entry.meta_version,
        archived_meta: 0,
        next_line: start,
        archived_line: start,
        purged_line: start,
        trimmed_line: 0,
        raw_bytes: 0,
        archived_bytes: 0,
        first_ts: None,
        last_ts: None,
        levels: LevelSet::EMPTY,
        created_at: entry.created_at,
        written_at: entry.written_at,
        finished_at: entry.finished_at,
        published_at: Some(segment.created_at),
        expires_at: entry.expires_at,
        gone_at: None,
        failures: 0,
        rule_id: segment.rule_id,
        due_at: entry.due_at,
    }
}

/// Counts the lines of a new part.
fn extend(row: &mut Attempt, entry: &FoundEntry, segment: &FoundSegment, counts_bytes: bool) {
    let end = entry.lines.end();
    let has_no_chunks = row.purged_line >= row.archived_line && row.next_line == row.archived_line;
    if counts_bytes {
        row.archived_bytes += entry.raw_bytes;
    }
    if end >= row.archived_line {
        row.rule_id = segment.rule_id;
    }
    row.next_line = row.next_line.max(end);
    row.archived_line = row.archived_line.max(end);
    // A window that was trimmed and is still there goes again by its age; one that an earlier rebuild
    // did not find must not stay away.
    if !entry.lines.is_empty() {
        row.trimmed_line = row.trimmed_line.min(entry.lines.start());
    }
    // What is left in the hot tier was counted when it was written.
    let is_all_archived = row.archived_line == row.next_line;
    row.raw_bytes = if is_all_archived { row.archived_bytes } else { row.raw_bytes.max(row.archived_bytes) };
    if has_no_chunks {
        row.purged_line = row.archived_line;
    }
    let first = entry.ts_range.map(|(first, _)| first);
    let last = entry.ts_range.map(|(_, last)| last);
    row.first_ts = [row.first_ts, first].into_iter().flatten().min();
    row.last_ts = [row.last_ts, last].into_iter().flatten().max();
    row.levels = row.levels.union(entry.levels);
    row.written_at = row.written_at.max(entry.written_at);
    row.published_at = row.published_at.max(Some(segment.created_at));
    row.archived_meta = row.archived_meta.max(entry.meta_version);
}

/// Takes over what a later entry says of the attempt.
fn retell(row: &mut Attempt, entry: &FoundEntry) {
    if entry.meta_version < row.meta_version {
        return;
    }
    row.meta_version = entry.meta_version;
    (row.state, row.outcome, row.finished_at) = (entry.state, entry.outcome, entry.finished_at);
    (row.job_id, row.labels) = (entry.job_id, entry.labels.clone());
    row.expires_at = entry.expires_at;
}
