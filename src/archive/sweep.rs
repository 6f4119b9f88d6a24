//! Objects that nobody needs leave the bucket; batch keys and run reports that are old are forgotten.
//!
//! The sweeper never lists the bucket. It deletes the names of rows that are doomed, and nothing
//! else, and does so again and again for days: an upload that a zombie completes late is found.

use std::sync::Arc;
use std::time::Duration;

use super::{ArchiveError, RunReport, Shared};
use crate::catalog::{Segment, SegmentState, batches};
use crate::cold::ObjectName;
use crate::db::{Db, Home};
use crate::model::{App, Millis, RuleName};

/// Objects that one run deletes on a server.
const OBJECTS_PER_RUN: u32 = 1_000;

/// Batch keys that one run forgets in a shard.
const KEYS_PER_RUN: u32 = 20_000;

/// How often the name of a doomed object is deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How long reports of runs are kept.
const KEEP_RUNS: Duration = Duration::from_secs(14 * 24 * 3600);

pub(super) async fn sweep(shared: &Shared, db: &Arc<Db>, report: &mut RunReport) -> Result<(), ArchiveError> {
    let now = shared.clock.now();
    for segment in shared.catalog.due_segments(db, now, OBJECTS_PER_RUN).await? {
        match segment.state {
            SegmentState::Uploading | SegmentState::Live => {
                if !shared.catalog.doom_segment(db, &segment, now).await? {
                    // Live, with entries: the usual case, seen once.
                    shared.catalog.postpone_segment(db, segment.id, Millis::NEVER).await?;
                }
            }
            SegmentState::Doomed => delete(shared, db, &segment, now, report).await?,
        }
    }
    let keys_before = before(now, shared.settings.dedup_window);
    for &shard in db.shards() {
        batches::forget(&Home { db: Arc::clone(db), shard }, keys_before, KEYS_PER_RUN).await?;
    }
    // A run's id is its start in microseconds.
    let runs_before = Millis::new(before(now, KEEP_RUNS).get().saturating_mul(1000));
    Ok(shared.catalog.forget_runs(db, runs_before).await?)
}

async fn delete(
    shared: &Shared,
    db: &Arc<Db>,
    segment: &Segment,
    now: Millis,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let doomed_at = segment.doomed_at.unwrap_or(now);
    // Readers that are under way may finish.
    let first_at = doomed_at.after(shared.settings.purge_grace);
    if now < first_at {
        return Ok(shared.catalog.postpone_segment(db, segment.id, first_at).await?);
    }
    let bad_name = |_| crate::db::Error::Row("a segment with a bad name".to_owned());
    let app: App = shared.catalog.name_of(db, segment.app_id).await?.parse().map_err(bad_name)?;
    let rule: RuleName = shared.catalog.name_of(db, segment.rule_id).await?.parse().map_err(bad_name)?;
    let name = ObjectName { app, rule, finish_day: segment.finish_day, ulid: segment.ulid };
    shared.store.delete(&name.key()).await?;
    shared.metrics.objects_deleted.inc();
    report.objects_deleted += 1;
    if now >= doomed_at.after(shared.settings.doomed_for) {
        return Ok(shared.catalog.forget_segment(db, segment.id).await?);
    }
    Ok(shared.catalog.postpone_segment(db, segment.id, now.after(DELETE_AGAIN)).await?)
}

fn before(now: Millis, span: Duration) -> Millis {
    Millis::new(now.get() - i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
