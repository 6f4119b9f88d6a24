//! The objects of a group, one after the other, and who is to blame when one fails.
//!
//! An object that fails says which attempt is to blame, where it can: that one is set aside, and the
//! others are built again. Where it cannot say, the same attempts are tried in smaller and smaller
//! objects, until they go well or one is alone with its failure.

use std::collections::HashSet;
use std::sync::Arc;

use super::aside::set_attempt_aside;
use super::build::{Built, Queue, build};
use super::candidates::{Candidate, Group};
use super::plan::{Planned, plan};
use super::publish::publish;
use super::rules::RulesInForce;
use super::verify::verify;
use super::{ArchiveError, Failure, RunReport, Shared};
use crate::catalog::{AsideKind, Lease, Published};
use crate::db::Db;
use crate::model::AttemptId;
use crate::pause::pause_after;

/// Objects of a group that may fail in one run: enough to find two culprits among 65,536 attempts
/// by halves. A store that damages everything costs no more than these.
const MAX_FAILED_OBJECTS: usize = 40;

/// What it takes to write objects of a server.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub shared: &'a Shared,
    pub db: &'a Arc<Db>,
    pub lease: &'a Lease,
    pub rules: &'a RulesInForce,
}

/// How far the work on a group has come.
struct Progress<'a> {
    candidates: &'a [Candidate],
    /// The first that is in no object yet.
    at: usize,
    /// Attempts of the next object at most.
    most: usize,
    /// Set aside in this run.
    skipped: HashSet<AttemptId>,
    failed: usize,
}

impl Writer<'_> {
    /// Moves the candidates of a group, object by object. What fails in one does not stop the others,
    /// unless it would fail in all. Calls `count` for each that was published.
    pub async fn archive_group(
        &self,
        group: &Group,
        mut candidates: Vec<Candidate>,
        report: &mut RunReport,
        count: impl Fn(&Shared, &mut RunReport, Published, Built),
    ) -> Result<(), ArchiveError> {
        // In the order in which they were made, so that a search finds the newest at an object's end.
        candidates.sort_by_key(|candidate| candidate.id);
        let most = candidates.len();
        let mut progress = Progress { candidates: &candidates, at: 0, most, skipped: HashSet::new(), failed: 0 };
        while progress.at < candidates.len() {
            let planned = plan(self.shared, self.db, self.lease, group).await?;
            pause_after("plan", &self.shared.clock).await;
            let next = &candidates[progress.at..];
            let next = &next[..next.len().min(progress.most)];
            let mut queue = Queue { candidates: next, skipped: &progress.skipped, taken: 0 };
            let outcome = self.one_object(group, planned.clone(), &mut queue).await;
            let taken = queue.taken;
            match outcome {
                Ok(Some((published, built))) => {
                    self.set_damaged_aside(&built, report).await?;
                    count(self.shared, report, published, built);
                    progress.at += taken;
                    progress.most = progress.most.saturating_mul(2);
                }
                Ok(None) => {
                    self.doom(&planned).await;
                    progress.at += taken;
                }
                Err(error) => {
                    self.doom(&planned).await;
                    if error.stops_the_run() || progress.failed >= MAX_FAILED_OBJECTS {
                        return Err(error);
                    }
                    self.narrow(&mut progress, taken, error, report).await?;
                }
            }
        }
        Ok(())
    }

    /// Build, verify, publish. `None` where none of the next was due any more.
    async fn one_object(
        &self,
        group: &Group,
        planned: Planned,
        queue: &mut Queue<'_>,
    ) -> Result<Option<(Published, Built)>, ArchiveError> {
        let Self { shared, db, lease, rules } = *self;
        let Some(built) = build(shared, rules, planned, group, queue).await? else { return Ok(None) };
        pause_after("build", &shared.clock).await;
        let again = built.entries.iter().filter(|entry| entry.attempt.failures > 0 && entry.damage.is_none());
        let mended: Vec<_> = again.map(|entry| (Arc::clone(&entry.home.db), entry.attempt.id)).collect();
        let verified = verify(shared, built).await?;
        pause_after("verify", &shared.clock).await;
        // Before its row forgets that it ever failed.
        for (db, id) in mended {
            shared.catalog.no_longer_aside(&db, AsideKind::Attempt, id.get()).await?;
        }
        let published = publish(shared, db, lease, verified).await?;
        pause_after("publish", &shared.clock).await;
        Ok(Some(published))
    }

    /// After a failure: sets the culprit aside, or tries with fewer.
    async fn narrow(
        &self,
        progress: &mut Progress<'_>,
        taken: usize,
        error: ArchiveError,
        report: &mut RunReport,
    ) -> Result<(), ArchiveError> {
        progress.failed += 1;
        let tried = &progress.candidates[progress.at..progress.at + taken.max(1)];
        let tried: Vec<&Candidate> = tried.iter().filter(|one| !progress.skipped.contains(&one.id)).collect();
        let culprit = match &error {
            ArchiveError::Mismatch { culprit: Some(culprit), .. } => tried.iter().find(|one| one.id == *culprit),
            _ => tried.first().filter(|_| tried.len() == 1),
        };
        let Some(&culprit) = culprit else {
            progress.most = (tried.len() / 2).max(1);
            let what = format!("an object of {} attempts; they are tried in smaller ones", tried.len());
            tracing::warn!(error = error.chain(), attempts = tried.len(), "an object failed; trying smaller ones");
            report.failures.push(Failure { what, error: error.chain() });
            return Ok(());
        };
        progress.skipped.insert(culprit.id);
        for attempt in self.shared.catalog.attempts(&culprit.home, &[culprit.id]).await? {
            set_attempt_aside(self, &culprit.home, &attempt, &error.chain(), report).await?;
        }
        Ok(())
    }

    /// Attempts of which only what comes before a damaged chunk moved.
    async fn set_damaged_aside(&self, built: &Built, report: &mut RunReport) -> Result<(), ArchiveError> {
        for entry in &built.entries {
            if let Some(damage) = &entry.damage {
                set_attempt_aside(self, &entry.home, &entry.attempt, damage, report).await?;
            }
        }
        Ok(())
    }

    /// Our own upload that came to nothing; if this fails, the sweeper finds the row.
    async fn doom(&self, planned: &Planned) {
        if let Err(error) = self.shared.catalog.doom_upload(self.db, planned.segment, self.shared.clock.now()).await {
            tracing::debug!(error = %error, "could not give up an upload; the sweeper will");
        }
    }
}
