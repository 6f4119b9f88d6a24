//! The fifth verb: the catalog learns of the object.

use std::sync::Arc;
use std::time::Duration;

use super::build::{Built, BuiltEntry};
use super::verify::Verified;
use super::{ArchiveError, Shared};
use crate::catalog::{Lease, NewEntry, PublishTimes, Published, Sealed};
use crate::cold::segment::{FrameMap, PartPlace, Written};
use crate::db::Db;

/// How long the sweeper leaves a live object alone of which nothing was published yet.
const CHECK_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Publishes what was verified.
pub(super) async fn publish(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    verified: Verified,
) -> Result<(Published, Built), ArchiveError> {
    let built = verified.into_built();
    let Written { byte_length, hash, index_offset, frames_offset, filter_offset, totals, .. } = built.written;
    let sealed = Sealed {
        segment: built.planned.segment,
        byte_length,
        hash,
        index_offset,
        frames_offset,
        filter_offset,
        entries: totals.attempts,
        lines: totals.extent.lines,
    };
    let entries = built.entries.iter().zip(&built.written.parts);
    let entries = entries.filter(|(entry, _)| !(entry.damage.is_some() && entry.lines.is_empty()));
    let entries = entries.map(|(entry, part)| new_entry(entry, part, built.planned.rule_id)).collect();
    let published = shared.catalog.publish(db, lease, sealed, entries, times(shared)).await?;
    Ok((published, built))
}

/// Moments that go with a publication now.
pub(super) fn times(shared: &Shared) -> PublishTimes {
    let now = shared.clock.now();
    PublishTimes { now, purge_at: now.after(shared.settings.purge_grace), check_at: now.after(CHECK_AFTER) }
}

fn new_entry(entry: &BuiltEntry, part: &PartPlace, rule_id: i32) -> NewEntry {
    NewEntry {
        shard: entry.home.shard,
        id: entry.attempt.id,
        lines: entry.lines,
        // Half of an attempt is not yet what its row says of it.
        meta_version: if entry.lines == entry.due.lines {
            entry.attempt.meta_version
        } else {
            entry.attempt.archived_meta
        },
        raw_bytes: entry.raw_bytes,
        byte_offset: part.place.byte_offset,
        byte_length: part.place.byte_length,
        skip: part.place.skip,
        ts_range: part.ts.map(|ts| (ts.min(), ts.max())),
        levels: part.levels,
        frames: part.place.frames.as_ref().map(FrameMap::encode).unwrap_or_default(),
        planned_meta: entry.attempt.meta_version,
        expires_at: entry.due.expires_at,
        rule_id,
    }
}
