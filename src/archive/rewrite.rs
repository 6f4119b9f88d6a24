//! Rewriting: what is still alive in some objects moves to a new one, and the old ones go.
//!
//! ```text
//! plan     choose a name of the same app, rule and day; commit its row
//! build    copy the entries that have a part, from objects that are read whole and checked
//! verify   read the new object back and compare each entry with the old one's
//! publish  parts point at the new object, some a transaction; the emptied ones are doomed
//! ```
//!
//! The sweeper deletes the old objects after the grace. A reader that is in the middle of one finds
//! it gone at the worst, takes a new snapshot and goes on in the new one.
//!
//! # Invariants
//!
//! - Nothing of an object is believed: its bytes must hash to what was published, each entry's lines
//!   to what its index says (`Replay`), and the new object's to the same hashes. Those were compared with
//!   the hot tier when the first object was built.
//! - A crash leaves what a crash of the archiver leaves: an `uploading` row, or a live object that
//!   counts what was published. The old object is still due, and its rest is rewritten again.
//! - The new object names what it replaces, so that a rebuild of the catalog takes nothing twice.

use std::collections::HashMap;
use std::sync::Arc;

use super::aside::{no_longer_aside, set_object_aside};
use super::candidates::Group;
use super::fate::Fate;
use super::plan::{Planned, plan};
use super::report::{MAX_LISTED, Rewrite};
use super::{ArchiveError, RunReport, Shared};
use crate::catalog::{Lease, MovedPart, PartKey, Sealed, SegmentId, SweptSegment};
use crate::cold::segment::{Entry, Extent, FrameMap, MAX_ATTEMPTS, Replay, Replayed, SegmentHeader, SegmentWriter};
use crate::cold::segment::{TsRange, Written};
use crate::cold::{Key, ObjectName};
use crate::db::{Db, Home, Shard};
use crate::model::{App, Millis, RuleName};
use crate::pause::pause_after;

/// Objects that become one: each costs a read of all of it before the first byte is published.
const MAX_SOURCES: usize = 64;

/// Parts of one shard and object that are asked for at a time, 24 bytes each.
const PARTS_AT_A_TIME: u32 = 1_000;

/// An object that is due to be rewritten.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub swept: SweptSegment,
    pub group: Group,
    pub why: &'static str,
}

impl Source {
    fn key(&self) -> Key {
        key_of(&self.group, &self.swept)
    }

    fn live_entries(&self) -> u64 {
        self.swept.entries.saturating_sub(self.swept.dead_entries)
    }

    /// About how many bytes will be left of it.
    fn live_bytes(&self) -> u64 {
        let SweptSegment { segment, lines, dead_lines, .. } = &self.swept;
        let share = lines.saturating_sub(*dead_lines) as f64 / (*lines).max(1) as f64;
        (segment.byte_length as f64 * share) as u64
    }
}

pub(super) fn key_of(group: &Group, swept: &SweptSegment) -> Key {
    let Group { app, rule, finish_day, .. } = group.clone();
    ObjectName { app, rule, finish_day, ulid: swept.segment.ulid }.key()
}

/// Rewrites objects, those of one group together where they are small. What fails in one does not
/// stop the others, unless it would fail in all.
pub(super) async fn rewrite(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    mut due: Vec<Source>,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    due.sort_by(|a, b| (&a.group, a.swept.segment.ulid).cmp(&(&b.group, b.swept.segment.ulid)));
    let mut rest = due.as_slice();
    while !rest.is_empty() {
        if shared.stop.is_cancelled() {
            return Err(ArchiveError::Stopping);
        }
        let (sources, others) = rest.split_at(together(rest, shared.settings.object_bytes));
        rest = others;
        if let Err(error) = rewrite_some(shared, db, lease, sources, report).await {
            if error.stops_the_run() {
                return Err(error);
            }
            for source in sources {
                let what = format!("rewrite {}", source.key());
                set_object_aside(shared, db, &source.swept, what, &error, report).await?;
            }
        }
    }
    Ok(())
}

/// How many objects at the front become one. One that failed before is tried alone, so that the
/// others do not fail with it.
fn together(sources: &[Source], object_bytes: u64) -> usize {
    let (mut bytes, mut entries) = (0, 0);
    let fits = sources.iter().take(MAX_SOURCES).take_while(|source| {
        bytes += source.live_bytes();
        entries += source.live_entries();
        source.group == sources[0].group
            && source.swept.failures == 0
            && bytes <= object_bytes
            && entries <= u64::from(MAX_ATTEMPTS)
    });
    fits.count().max(1)
}

async fn rewrite_some(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    sources: &[Source],
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let planned = plan(shared, db, lease, &sources[0].group).await?;
    pause_after("rewrite-plan", &shared.clock).await;
    let id = planned.segment;
    let done = async {
        let copied = build(shared, db, planned, sources).await?;
        pause_after("rewrite-build", &shared.clock).await;
        let verified = verify(shared, copied).await?;
        pause_after("rewrite-verify", &shared.clock).await;
        publish(shared, db, lease, verified, report).await
    };
    if let Err(error) = done.await {
        // If this fails as well, the sweeper finds the row.
        let _ = shared.catalog.doom_upload(db, id, shared.clock.now()).await;
        return Err(error);
    }
    pause_after("rewrite-publish", &shared.clock).await;
    for source in sources {
        no_longer_aside(shared, db, &source.swept).await?;
    }
    report.rewritten += sources.len() as u64;
    shared.metrics.objects_rewritten.inc_by(sources.len() as u64);
    list(sources, report);
    Ok(())
}

/// Names them in the report, as far as there is room.
pub(super) fn list(sources: &[Source], report: &mut RunReport) {
    for source in sources.iter().take(MAX_LISTED.saturating_sub(report.rewrites.len())) {
        let SweptSegment { segment, lines, dead_lines, deleted_lines, .. } = &source.swept;
        report.rewrites.push(Rewrite {
            object: source.key().to_string(),
            bytes: segment.byte_length,
            lines: *lines,
            dead_lines: *dead_lines,
            deleted_lines: *deleted_lines,
            why: source.why.to_owned(),
        });
    }
}

/// An object that was copied from others. Nothing says yet that it can be read.
struct Copied {
    planned: Planned,
    written: Written,
    /// In the order of the object.
    entries: Vec<CopiedEntry>,
}

/// What the old object said of an entry, and whose part it is.
#[derive(Debug, Clone)]
struct CopiedEntry {
    shard: Shard,
    from: SegmentId,
    part: PartKey,
    hash: u64,
}

/// A copy that holds what the old objects hold. Only [`verify`] makes one.
struct Verified(Copied);

async fn build(shared: &Shared, db: &Arc<Db>, planned: Planned, sources: &[Source]) -> Result<Copied, ArchiveError> {
    let group = &sources[0].group;
    let header = SegmentHeader {
        cluster: shared.settings.cluster_id.clone(),
        app: group.app.clone(),
        rule: group.rule.clone(),
        finish_day: group.finish_day,
        created_at: shared.clock.now(),
        replaces: sources.iter().map(|source| source.swept.segment.ulid).collect(),
    };
    let upload = shared.store.upload(&planned.key);
    let mut writer = SegmentWriter::new(upload, header, shared.settings.segment)?;
    let mut entries = Vec::new();
    for source in sources {
        if let Err(error) = copy(shared, db, source, &mut writer, &mut entries).await {
            // The first error is the one to tell.
            let _ = writer.abort().await;
            return Err(error);
        }
    }
    let written = writer.finish().await?;
    shared.metrics.objects_written.inc();
    shared.metrics.object_bytes.inc_by(written.byte_length);
    Ok(Copied { planned, written, entries })
}

/// Copies the entries of an object that some attempt needs.
async fn copy(
    shared: &Shared,
    db: &Arc<Db>,
    source: &Source,
    writer: &mut SegmentWriter,
    entries: &mut Vec<CopiedEntry>,
) -> Result<(), ArchiveError> {
    let from = source.swept.segment.id;
    let mut live = live_parts(shared, db, from).await?;
    let mut replay =
        Replay::open(&shared.store, &source.key(), source.swept.segment.byte_length, source.swept.hash).await?;
    let mut current: Option<Box<Entry>> = None;
    while let Some(replayed) = replay.next().await? {
        match replayed {
            Replayed::Attempt(entry) => {
                if current.take().is_some() {
                    writer.end()?;
                }
                let part = PartKey::new(entry.attempt.id, entry.lines());
                if let Some(shard) = live.remove(&part) {
                    writer.begin(entry.attempt.clone(), entry.first_line)?;
                    entries.push(CopiedEntry { shard, from, part, hash: entry.hash });
                    current = Some(entry);
                }
            }
            Replayed::Lines(block) => {
                if let Some(entry) = &current {
                    let bounds = bounds_of(entry, replay.frame_extent(), block.line_count);
                    writer.push_block(&block.lines, bounds).await?;
                }
            }
        }
        if shared.stop.is_cancelled() {
            return Err(ArchiveError::Stopping);
        }
    }
    if current.is_some() {
        writer.end()?;
    }
    match live.keys().next() {
        None => Ok(()),
        Some(part) => {
            let what = format!("it lacks lines of attempt {} from {}", part.attempt.get(), part.first_line);
            Err(ArchiveError::Mismatch { key: source.key().to_string(), what, culprit: None })
        }
    }
}

/// The parts that stand in an object, with their shards: 3 MB at most.
async fn live_parts(
    shared: &Shared,
    db: &Arc<Db>,
    segment: SegmentId,
) -> Result<HashMap<PartKey, Shard>, ArchiveError> {
    let mut live = HashMap::new();
    for &shard in db.shards() {
        let home = Home { db: Arc::clone(db), shard };
        let mut after = None;
        loop {
            let page = shared.catalog.parts_in(&home, segment, after, PARTS_AT_A_TIME).await?;
            after = page.last().copied();
            let is_full = page.len() == PARTS_AT_A_TIME as usize;
            live.extend(page.into_iter().map(|part| (part, shard)));
            if !is_full {
                break;
            }
        }
    }
    Ok(live)
}

/// Bounds of some lines of an entry: those of their frame where they are narrower.
fn bounds_of(entry: &Entry, frame: Extent, lines: u64) -> Extent {
    let ts = match (entry.extent.ts, frame.ts) {
        (Some(entry), Some(frame)) => {
            let (min, max) = (entry.min().max(frame.min()), entry.max().min(frame.max()));
            Some(if min <= max { TsRange::new(min, max) } else { entry })
        }
        (entry, frame) => entry.or(frame),
    };
    Extent { lines, ts, levels: entry.extent.levels.intersection(frame.levels) }
}

/// Reads the new object back, and compares it with what the old ones said entry by entry.
async fn verify(shared: &Shared, copied: Copied) -> Result<Verified, ArchiveError> {
    let key = copied.planned.key.clone();
    let mismatch = |what: &str| ArchiveError::Mismatch { key: key.to_string(), what: what.to_owned(), culprit: None };
    let mut replay = Replay::open(&shared.store, &key, copied.written.byte_length, copied.written.hash).await?;
    let mut expected = copied.entries.iter();
    while let Some(replayed) = replay.next().await? {
        if let Replayed::Attempt(found) = replayed {
            let expected = expected.next().ok_or_else(|| mismatch("it has an attempt too many"))?;
            let part = PartKey::new(found.attempt.id, found.lines());
            if (part, found.hash) != (expected.part, expected.hash) {
                return Err(mismatch("an attempt differs from the object that it was copied from"));
            }
        }
        if shared.stop.is_cancelled() {
            return Err(ArchiveError::Stopping);
        }
    }
    if expected.next().is_some() {
        return Err(mismatch("it lacks an attempt"));
    }
    shared.metrics.objects_verified.inc();
    Ok(Verified(copied))
}

async fn publish(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    Verified(copied): Verified,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let Copied { planned, written, entries } = copied;
    let parts = entries.iter().zip(&written.parts).map(|(entry, written)| MovedPart {
        shard: entry.shard,
        part: entry.part,
        from: entry.from,
        byte_offset: written.place.byte_offset,
        byte_length: written.place.byte_length,
        skip: written.place.skip,
        frames: written.place.frames.as_ref().map(FrameMap::encode).unwrap_or_default(),
    });
    let parts = parts.collect();
    let sealed = Sealed {
        segment: planned.segment,
        byte_length: written.byte_length,
        hash: written.hash,
        index_offset: written.index_offset,
        frames_offset: written.frames_offset,
        filter_offset: written.filter_offset,
        entries: written.totals.attempts,
        lines: written.totals.extent.lines,
    };
    shared.catalog.publish_rewrite(db, lease, sealed, parts, super::publish::times(shared)).await?;
    report.rewritten_bytes += written.byte_length;
    Ok(())
}

/// The live object as something to rewrite, or until when it stays as it is.
pub(super) async fn look_at(
    shared: &Shared,
    db: &Arc<Db>,
    swept: &SweptSegment,
) -> Result<Result<Source, Millis>, ArchiveError> {
    let why = match super::fate::fate(swept, &shared.settings.rewrite, shared.clock.now()) {
        Fate::Keep(until) => return Ok(Err(until)),
        Fate::Rewrite(why) => why,
    };
    let group = group_of(shared, db, swept).await?;
    Ok(Ok(Source { swept: swept.clone(), group, why }))
}

/// Which group an object belongs to, by its row.
pub(super) async fn group_of(shared: &Shared, db: &Arc<Db>, swept: &SweptSegment) -> Result<Group, ArchiveError> {
    let bad_name = |_| crate::db::Error::Row("a segment with a bad name".to_owned());
    let segment = &swept.segment;
    let app: App = shared.catalog.name_of(db, segment.app_id).await?.parse().map_err(bad_name)?;
    let rule: RuleName = shared.catalog.name_of(db, segment.rule_id).await?.parse().map_err(bad_name)?;
    Ok(Group { app, app_id: segment.app_id, rule, finish_day: segment.finish_day })
}
