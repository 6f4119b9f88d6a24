//! A hot tier that grows too large gives up finished attempts before their time, the oldest first.

use std::sync::Arc;

use super::agenda::agenda;
use super::candidates::{Candidate, DueWork, Group, MAX_PER_RUN, PAGE, bad_name};
use super::rules::RulesInForce;
use super::{ArchiveError, Shared};
use crate::catalog::{Attempt, DueCursor};
use crate::db::{Db, Home};
use crate::model::{AttemptId, Job, Millis};

/// Bytes of records per byte of chunks, as on usual logs. Too low a guess only takes another run.
const USUAL_CHUNK_RATIO: u64 = 4;

/// Relief ends this share below the limit, so that not every run is one of relief.
const RELIEF: f64 = 0.9;

/// Adds attempts to `work` until they make enough room, if the server holds more than it may.
pub(super) async fn relieve(
    shared: &Shared,
    db: &Arc<Db>,
    rules: &RulesInForce,
    work: &mut DueWork,
    now: Millis,
) -> Result<(), ArchiveError> {
    let Some(limit) = shared.settings.pressure_bytes else { return Ok(()) };
    let bytes = shared.catalog.hot_bytes(db).await?;
    if bytes <= limit {
        return Ok(());
    }
    let excess = bytes.saturating_sub((limit as f64 * RELIEF) as u64).saturating_mul(USUAL_CHUNK_RATIO);
    let due: u64 = work.groups.values().map(|candidates| candidates.bytes).sum();
    let why = format!("the chunks of server {} take {bytes} bytes, more than archive.pressure_size", db.number());
    tracing::warn!(db.number = db.number(), hot.bytes = bytes, hot.limit = limit, "the hot tier is under pressure");
    work.pressure = Some(why);
    let mut left = excess.saturating_sub(due);
    // Those that were looked at anyway and had nothing to do, then those that nobody has to look at yet.
    for (home, attempt, at) in std::mem::take(&mut work.idle) {
        match if left > 0 { add(shared, rules, work, &home, &attempt, now).await? } else { 0 } {
            0 => work.idle.push((home, attempt, at)),
            room => left = left.saturating_sub(room),
        }
    }
    let mut seen = 0;
    let homes = db.shards().iter().map(|&shard| Home { db: Arc::clone(db), shard });
    // Page by page of every shard, because all share the load.
    let mut cursors: Vec<_> =
        homes.map(|home| (home, DueCursor { due_at: now, id: AttemptId::stored(i64::MAX) })).collect();
    while left > 0 && !cursors.is_empty() && seen < MAX_PER_RUN {
        let mut next = Vec::new();
        for (home, cursor) in cursors {
            let page = shared.catalog.due(&home, Millis::NEVER, Some(cursor), PAGE).await?;
            seen += page.len();
            if page.len() == PAGE as usize
                && let Some(last) = page.last()
            {
                next.push((home.clone(), DueCursor { due_at: last.due_at, id: last.id }));
            }
            for attempt in page {
                if left > 0 {
                    left = left.saturating_sub(add(shared, rules, work, &home, &attempt, now).await?);
                }
            }
        }
        cursors = next;
    }
    Ok(())
}

/// Adds an attempt that could move; the bytes that this makes room for.
async fn add(
    shared: &Shared,
    rules: &RulesInForce,
    work: &mut DueWork,
    home: &Home,
    attempt: &Attempt,
    now: Millis,
) -> Result<u64, ArchiveError> {
    let bytes = attempt.raw_bytes.saturating_sub(attempt.archived_bytes);
    // An open attempt moves only in windows that are worth an object; what was set aside stays aside.
    let is_large = attempt.state.is_finished() || bytes >= shared.settings.object_bytes;
    if attempt.hot_lines().is_empty() || attempt.failures > 0 || !is_large {
        return Ok(0);
    }
    let app: crate::model::App = shared.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(bad_name)?;
    let job: Option<Job> = shared.catalog.optional_name(&home.db, attempt.job_id).await?;
    let rule = rules.ruling_of(shared, &home.db, &app, job.as_ref(), attempt).await?.early();
    let Some(due) = agenda(attempt, &rule, &shared.policy(), now).archive else { return Ok(0) };
    let group = Group { app, app_id: attempt.app_id, rule: rule.name, finish_day: due.finish_day };
    let (home, lines) = (home.clone(), due.lines.len());
    work.add(group, Candidate { home, id: attempt.id, lines, bytes, early: true }, due.since);
    Ok(bytes)
}
