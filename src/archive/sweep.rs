//! Objects that nobody needs leave the bucket; batch keys and run reports that are old are forgotten.
//!
//! The sweeper never lists the bucket. It deletes the names of rows that are doomed, and nothing
//! else, and does so again and again for days: an upload that a zombie completes late is found.

use std::sync::Arc;
use std::time::Duration;

use super::aside::{no_longer_aside, set_object_aside};
use super::report::MAX_LISTED;
use super::rewrite::{Source, group_of, key_of, look_at};
use super::{ArchiveError, RunReport, Shared};
use crate::catalog::{SegmentState, SweptSegment, batches};
use crate::db::{Db, Home};
use crate::model::Millis;

/// Objects that one run deletes on a server.
const OBJECTS_PER_RUN: u32 = 1_000;

/// Objects that may refuse to be deleted before a run takes it that all will.
const MAX_REFUSED: u32 = 3;

/// Batch keys that one run forgets in a shard.
const KEYS_PER_RUN: u32 = 20_000;

/// How often the name of a doomed object is deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How long reports of runs are kept.
const KEEP_RUNS: Duration = Duration::from_secs(14 * 24 * 3600);

/// Sweeps; answers the objects that are due to be rewritten.
pub(super) async fn sweep(shared: &Shared, db: &Arc<Db>, report: &mut RunReport) -> Result<Vec<Source>, ArchiveError> {
    let now = shared.clock.now();
    let (mut rewrites, mut refused) = (Vec::new(), 0);
    for swept in shared.catalog.due_segments(db, now, OBJECTS_PER_RUN).await? {
        match swept.segment.state {
            SegmentState::Uploading | SegmentState::Live => {
                if shared.catalog.doom_segment(db, &swept.segment, now).await? {
                    continue;
                }
                match look_at(shared, db, &swept).await? {
                    Ok(source) => rewrites.push(source),
                    Err(until) => {
                        no_longer_aside(shared, db, &swept).await?;
                        shared.catalog.postpone_segment(db, &swept, until, 0).await?;
                    }
                }
            }
            SegmentState::Doomed => {
                let Err(error) = delete(shared, db, &swept, now, report).await else { continue };
                refused += 1;
                if !matches!(error, ArchiveError::Cold(_)) || !error.is_refusal() || refused > MAX_REFUSED {
                    return Err(error);
                }
                let what = format!("delete {}", key_of(&group_of(shared, db, &swept).await?, &swept));
                set_object_aside(shared, db, &swept, what, &error, report).await?;
            }
        }
    }
    let keys_before = before(now, shared.settings.dedup_window);
    for &shard in db.shards() {
        batches::forget(&Home { db: Arc::clone(db), shard }, keys_before, KEYS_PER_RUN).await?;
    }
    // A run's id is its start in microseconds.
    let runs_before = Millis::new(before(now, KEEP_RUNS).get().saturating_mul(1000));
    shared.catalog.forget_runs(db, runs_before).await?;
    Ok(rewrites)
}

/// Notes what a sweep would do to objects.
pub(super) async fn rehearse(shared: &Shared, db: &Arc<Db>, report: &mut RunReport) -> Result<(), ArchiveError> {
    let now = shared.clock.now();
    for swept in shared.catalog.due_segments(db, now, MAX_LISTED as u32).await? {
        match swept.segment.state {
            SegmentState::Live => {
                if let Ok(source) = look_at(shared, db, &swept).await? {
                    report.rewritten += 1;
                    super::rewrite::list(&[source], report);
                }
            }
            SegmentState::Doomed if may_go_at(shared, &swept, now) <= now => {
                report.objects_deleted += 1;
                if report.deletions.len() < MAX_LISTED {
                    report.deletions.push(key_of(&group_of(shared, db, &swept).await?, &swept).to_string());
                }
            }
            SegmentState::Doomed | SegmentState::Uploading => {}
        }
    }
    Ok(())
}

/// When a doomed object may be deleted: readers that are under way may finish.
fn may_go_at(shared: &Shared, swept: &SweptSegment, now: Millis) -> Millis {
    swept.segment.doomed_at.unwrap_or(now).after(shared.settings.purge_grace)
}

async fn delete(
    shared: &Shared,
    db: &Arc<Db>,
    swept: &SweptSegment,
    now: Millis,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let doomed_at = swept.segment.doomed_at.unwrap_or(now);
    let first_at = may_go_at(shared, swept, now);
    if now < first_at {
        return Ok(shared.catalog.postpone_segment(db, swept, first_at, 0).await?);
    }
    let key = key_of(&group_of(shared, db, swept).await?, swept);
    shared.store.delete(&key).await?;
    shared.metrics.objects_deleted.inc();
    no_longer_aside(shared, db, swept).await?;
    report.objects_deleted += 1;
    if now >= doomed_at.after(shared.settings.doomed_for) {
        return Ok(shared.catalog.forget_segment(db, swept.segment.id).await?);
    }
    Ok(shared.catalog.postpone_segment(db, swept, now.after(DELETE_AGAIN), 0).await?)
}

fn before(now: Millis, span: Duration) -> Millis {
    Millis::new(now.get() - i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
