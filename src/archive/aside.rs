//! Poison stays local: what fails by itself is left alone for a while, longer each time, with its reason.

use std::sync::Arc;
use std::time::Duration;

use super::agenda::ends_at;
use super::candidates::bad_name;
use super::objects::Writer;
use super::report::MAX_LISTED;
use super::{ArchiveError, Failure, RunReport, Shared};
use crate::catalog::{Aside, AsideKind, Attempt, SweptSegment};
use crate::db::{Db, Home};
use crate::model::{App, AttemptKey, Millis};

/// After so many failures in a row, over about a week, an attempt is tried again only when someone asks.
const MAX_FAILURES: u32 = 12;

/// The longest that anything is left alone that is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How long what failed is left alone: an hour, then twice as long each time, at most a day.
fn pause_after_failures(failures: u32) -> Duration {
    Duration::from_secs(3600 << failures.min(5)).min(LONGEST_PAUSE)
}

/// Sets an attempt aside, and says so in the report.
pub(super) async fn set_attempt_aside(
    writer: &Writer<'_>,
    home: &Home,
    attempt: &Attempt,
    reason: &str,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let Writer { shared, lease, rules, .. } = *writer;
    let app: App = shared.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(bad_name)?;
    let job = shared.catalog.optional_name(&home.db, attempt.job_id).await?;
    let rule = rules.ruling_of(shared, &home.db, &app, job.as_ref(), attempt).await?;
    let name = AttemptKey { app, instance: attempt.instance.clone(), attempt: attempt.attempt };
    let (now, failures) = (shared.clock.now(), attempt.failures.saturating_add(1));
    let (next_at, due_at) = if failures < MAX_FAILURES {
        let next_at = now.after(pause_after_failures(attempt.failures));
        (next_at, next_at)
    } else {
        // Given up, but its retention ends all the same.
        (Millis::NEVER, ends_at(attempt, &rule).max(now.after(LONGEST_PAUSE)))
    };
    let aside = Aside {
        kind: AsideKind::Attempt,
        id: attempt.id.get(),
        shard: home.shard.number(),
        what: name.to_string(),
        reason: reason.to_owned(),
        failures,
        first_at: now,
        last_at: now,
        next_at,
    };
    tracing::error!(attempt = %name, error = reason, failures, "an attempt cannot be archived and is set aside");
    tell(report, format!("archive {name}"), reason.to_owned());
    shared.metrics.set_aside.inc();
    Ok(shared.catalog.set_attempt_aside(home, lease, aside, due_at).await?)
}

/// Sets an object aside that could not be rewritten or deleted, and says so in the report.
pub(super) async fn set_object_aside(
    shared: &Shared,
    db: &Arc<Db>,
    swept: &SweptSegment,
    what: String,
    error: &ArchiveError,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let (now, failures) = (shared.clock.now(), swept.failures.saturating_add(1));
    // Deleted bytes are in it: it is tried once a day for ever.
    let next_at = now.after(pause_after_failures(swept.failures));
    let aside = Aside {
        kind: AsideKind::Object,
        id: swept.segment.id.get(),
        shard: 0,
        what: what.clone(),
        reason: error.chain(),
        failures,
        first_at: now,
        last_at: now,
        next_at,
    };
    tracing::error!(object = what, error = error.chain(), failures, "work on an object failed; it is set aside");
    tell(report, what, error.chain());
    shared.metrics.set_aside.inc();
    shared.catalog.set_object_aside(db, &aside).await?;
    Ok(shared.catalog.postpone_segment(db, swept, next_at, failures).await?)
}

/// What failed before went well now, or there is nothing to be done any more.
pub(super) async fn no_longer_aside(shared: &Shared, db: &Db, swept: &SweptSegment) -> Result<(), ArchiveError> {
    if swept.failures > 0 {
        shared.catalog.no_longer_aside(db, AsideKind::Object, swept.segment.id.get()).await?;
    }
    Ok(())
}

/// The report names some; `status` counts all.
fn tell(report: &mut RunReport, what: String, error: String) {
    if report.failures.len() < MAX_LISTED {
        report.failures.push(Failure { what, error });
    }
}
