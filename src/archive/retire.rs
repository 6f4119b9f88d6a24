//! Attempts whose time is over: expired, and after `forget_after` forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::candidates::DueWork;
use super::{ArchiveError, Failure, RunReport, Shared};
use crate::catalog::{Attempt, DaemonRow, Lease};
use crate::db::{Db, Home};
use crate::model::{App, Job, Millis};

/// A daemon that has not been heard of for so long has no say.
pub(super) const DAEMON_LIVES: Duration = Duration::from_secs(60);

/// An attempt that only its job's newest runs keep alive is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Expires and forgets. Nothing expires while the daemons disagree on the rules: one node's typo
/// must not delete years.
pub(super) async fn retire(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    work: &mut DueWork,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    if !work.expiries.is_empty() {
        if let Some(other) = dissenter(shared, db).await? {
            let what = format!("expire {} attempts", work.expiries.len());
            let error =
                format!("daemon {} holds to other retention rules; nothing expires until all agree", other.name);
            tracing::warn!(run.id = report.run_id, error, "{what} failed");
            report.failures.push(Failure { what, error });
        } else {
            for (home, attempt) in std::mem::take(&mut work.expiries) {
                if is_kept(shared, &home, &attempt).await? {
                    work.idle.push((home, attempt, shared.clock.now().after(LOOK_AGAIN)));
                } else if shared.catalog.expire(&home, lease, &attempt, shared.clock.now()).await? {
                    report.expired += 1;
                    shared.metrics.attempts_expired.inc();
                }
            }
        }
    }
    for (home, id) in std::mem::take(&mut work.forgets) {
        shared.catalog.forget(&home, lease, id).await?;
        report.forgotten += 1;
    }
    Ok(())
}

/// Whether the attempt is among the newest runs of its job that its rule keeps whatever their age.
async fn is_kept(shared: &Shared, home: &Home, attempt: &Attempt) -> Result<bool, ArchiveError> {
    let Some(job) = shared.catalog.optional_name::<Job>(&home.db, attempt.job_id).await? else { return Ok(false) };
    let Some(app) = shared.catalog.optional_name::<App>(&home.db, attempt.app_id).await? else { return Ok(false) };
    let keep = shared.settings.rules.rule_for(&app, Some(&job), attempt.outcome).keep_at_least;
    Ok(keep > 0 && shared.catalog.newer_runs(&app, &job, attempt.id, keep).await? < keep)
}

/// A live daemon with other rules than ours.
async fn dissenter(shared: &Shared, db: &Arc<Db>) -> Result<Option<DaemonRow>, ArchiveError> {
    let since = Millis::new(shared.clock.now().get() - DAEMON_LIVES.as_millis() as i64);
    let daemons = shared.catalog.daemons(db, since).await?;
    let ours = rules_digest(&shared.settings.rules);
    Ok(daemons.into_iter().find(|daemon| daemon.rules != ours))
}

/// What daemons compare to know that they hold to the same rules.
pub fn rules_digest(rules: &crate::model::RuleSet) -> String {
    let mut hash = blake3::Hasher::new();
    for rule in rules.iter() {
        hash.update(rule.to_string().as_bytes());
        hash.update(b"\n");
    }
    hash.finalize().to_hex()[..32].to_owned()
}
