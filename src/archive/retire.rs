//! Attempts whose time is over: expired, and after `forget_after` forgotten.

use std::time::Duration;

use super::candidates::DueWork;
use super::gentle::Brake;
use super::rules::RulesInForce;
use super::{ArchiveError, End, Failure, RunReport, Shared};
use crate::catalog::{Attempt, Lease};
use crate::db::Home;
use crate::model::{App, Job};

/// An attempt that only its job's newest runs keep alive is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Expires and forgets. Nothing expires while the daemons disagree on the rules: one node's typo
/// must not delete years. In the order of the primary key, as long as the brake lets it; the rest stays due.
pub(super) async fn retire(
    shared: &Shared,
    lease: &Lease,
    rules: &RulesInForce,
    brake: &mut Brake<'_>,
    work: &mut DueWork,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    if !work.expiries.is_empty() {
        if let Some(why) = &rules.stop {
            let what = format!("expire {} attempts", work.expiries.len());
            report.failures.retain(|failure| failure.error != *why);
            tracing::warn!(run.id = report.run_id, error = why, "{what} failed");
            report.failures.push(Failure { what, error: why.clone() });
        } else {
            work.expiries.sort_by_key(|(home, attempt)| (home.shard, attempt.id));
            for (home, attempt) in std::mem::take(&mut work.expiries) {
                if !brake.may_go_on().await? {
                    break;
                }
                let started = shared.clock.instant();
                if is_kept(shared, rules, &home, &attempt).await? {
                    work.idle.push((home, attempt, shared.clock.now().after(LOOK_AGAIN)));
                } else if shared.catalog.expire(&home, lease, &attempt, shared.clock.now()).await? {
                    report.expired += 1;
                    shared.metrics.attempts_expired.inc();
                }
                brake.rest(started.elapsed()).await;
            }
        }
    }
    work.forgets.sort_by_key(|(home, id)| (home.shard, *id));
    for (home, id) in std::mem::take(&mut work.forgets) {
        if !brake.may_go_on().await? {
            break;
        }
        let started = shared.clock.instant();
        shared.catalog.forget(&home, lease, id).await?;
        report.forgotten += 1;
        brake.rest(started.elapsed()).await;
    }
    Ok(())
}

/// Whether the attempt is among the newest runs of its job that its rule keeps whatever their age.
pub(super) async fn is_kept(
    shared: &Shared,
    rules: &RulesInForce,
    home: &Home,
    attempt: &Attempt,
) -> Result<bool, ArchiveError> {
    let Some(job) = shared.catalog.optional_name::<Job>(&home.db, attempt.job_id).await? else { return Ok(false) };
    let Some(app) = shared.catalog.optional_name::<App>(&home.db, attempt.app_id).await? else { return Ok(false) };
    let keep = rules.ruling_of(shared, &home.db, &app, Some(&job), attempt).await?.keep_at_least;
    Ok(keep > 0 && shared.catalog.newer_runs(&app, &job, attempt.id, keep).await? < keep)
}

/// What a rehearsal says of an attempt that would expire.
pub(super) async fn end_of(
    shared: &Shared,
    rules: &RulesInForce,
    home: &Home,
    attempt: &Attempt,
) -> Result<End, ArchiveError> {
    let app: App =
        shared.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(super::candidates::bad_name)?;
    let job = shared.catalog.optional_name::<Job>(&home.db, attempt.job_id).await?;
    let rule = rules.ruling_of(shared, &home.db, &app, job.as_ref(), attempt).await?;
    Ok(End {
        app: app.to_string(),
        instance: attempt.instance.to_string(),
        attempt: attempt.attempt.get(),
        rule: rule.removed.as_ref().unwrap_or(&rule.name).to_string(),
        lines: attempt.lines().len(),
        finished_at: attempt.finished_at.map(|at| at.to_string()),
        why: "finished longer ago than cold_for".to_owned(),
    })
}
