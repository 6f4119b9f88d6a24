//! What is due on a server, by the object it belongs into.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agenda::{Agenda, Policy, agenda};
use super::rules::RulesInForce;
use super::{ArchiveError, Shared};
use crate::catalog::{Attempt, DueCursor};
use crate::db::{Db, Home};
use crate::model::{App, AttemptId, Job, Millis, RuleName};

/// Which attempts may share an object: one app, one rule, one day of finish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub app: App,
    pub app_id: i32,
    pub rule: RuleName,
    pub finish_day: i64,
}

/// An attempt that is due to move. Its row is read again when its turn comes.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub home: Home,
    pub id: AttemptId,
    pub lines: u64,
    pub bytes: u64,
    /// It is not due, but the hot tier is under pressure.
    pub early: bool,
}

/// The candidates of a group.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    pub attempts: Vec<Candidate>,
    pub bytes: u64,
    pub oldest: Millis,
}

/// An attempt whose published or expired chunks may go.
#[derive(Debug, Clone)]
pub(super) struct Purge {
    pub home: Home,
    pub attempt: Attempt,
    pub below: u64,
    pub due_after: Millis,
}

/// All that is due on a server.
#[derive(Default)]
pub(super) struct DueWork {
    pub groups: BTreeMap<Group, Candidates>,
    pub purges: Vec<Purge>,
    pub expiries: Vec<(Home, Attempt)>,
    pub forgets: Vec<(Home, AttemptId)>,
    /// To be put off until then.
    pub idle: Vec<(Home, Attempt, Millis)>,
    /// To be marked as finished since then.
    pub inferred: Vec<(Home, Attempt, Millis)>,
    pub next_at: Option<Millis>,
    /// There was more than one run takes: what was found is built without waiting for company.
    pub is_cut: bool,
    /// The hot tier is under pressure: why, and nothing waits for company.
    pub pressure: Option<String>,
}

impl DueWork {
    pub fn add(&mut self, group: Group, candidate: Candidate, since: Millis) {
        let none = Candidates { attempts: Vec::new(), bytes: 0, oldest: since };
        let candidates = self.groups.entry(group).or_insert(none);
        candidates.bytes += candidate.bytes;
        candidates.oldest = candidates.oldest.min(since);
        candidates.attempts.push(candidate);
    }
}

/// Attempts that one run looks at on a server: 40 MB of candidates. The next run goes on.
pub(super) const MAX_PER_RUN: usize = 262_144;

pub(super) const PAGE: u32 = 500;

impl Shared {
    pub(super) fn policy(&self) -> Policy {
        Policy {
            idle_after: self.settings.idle_after,
            purge_grace: self.settings.purge_grace,
            forget_after: self.settings.forget_after,
        }
    }

    /// Looks at every attempt of the server that is due at `now`.
    pub(super) async fn due_work(
        &self,
        db: &Arc<Db>,
        rules: &RulesInForce,
        now: Millis,
    ) -> Result<DueWork, ArchiveError> {
        let mut work = DueWork::default();
        let mut seen = 0;
        for &shard in db.shards() {
            let home = Home { db: Arc::clone(db), shard };
            let mut cursor = None;
            loop {
                if seen >= MAX_PER_RUN {
                    work.is_cut = true;
                    return Ok(work);
                }
                let page = self.catalog.due(&home, now, cursor, PAGE).await?;
                cursor = page.last().map(|last| DueCursor { due_at: last.due_at, id: last.id });
                seen += page.len();
                let full = page.len() == PAGE as usize;
                for attempt in page {
                    self.sort_in(&mut work, rules, &home, attempt, now).await?;
                }
                if !full {
                    break;
                }
            }
        }
        Ok(work)
    }

    /// Adds what one attempt needs.
    pub(super) async fn sort_in(
        &self,
        work: &mut DueWork,
        rules: &RulesInForce,
        home: &Home,
        mut attempt: Attempt,
        now: Millis,
    ) -> Result<(), ArchiveError> {
        let app: App = self.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(bad_name)?;
        let job: Option<Job> = self.catalog.optional_name(&home.db, attempt.job_id).await?;
        // Nothing of the row that changes below counts for its rule.
        let rule = rules.ruling_of(self, &home.db, &app, job.as_ref(), &attempt).await?;
        let mut todo = agenda(&attempt, &rule, &self.policy(), now);
        if let Some(since) = todo.infer_finish {
            work.inferred.push((home.clone(), attempt.clone(), since));
            attempt.state = crate::model::AttemptState::Inferred;
            attempt.finished_at = Some(since);
            attempt.meta_version += 1;
            todo = agenda(&attempt, &rule, &self.policy(), now);
        }
        let Agenda { archive, purge_below, expire, forget, next_at, .. } = todo;
        work.next_at = [work.next_at, next_at].into_iter().flatten().min();
        if expire {
            work.expiries.push((home.clone(), attempt));
            return Ok(());
        }
        if forget {
            work.forgets.push((home.clone(), attempt.id));
            return Ok(());
        }
        if let Some(due) = archive {
            let group = Group { app, app_id: attempt.app_id, rule: rule.name, finish_day: due.finish_day };
            let bytes = attempt.raw_bytes - attempt.archived_bytes;
            let (home, lines) = (home.clone(), due.lines.len());
            work.add(group, Candidate { home, id: attempt.id, lines, bytes, early: false }, due.since);
        }
        if let Some(below) = purge_below {
            // What waits for company stays due.
            let due_after = if archive.is_some() { attempt.due_at } else { todo.next_look() };
            work.purges.push(Purge { home: home.clone(), attempt, below, due_after });
        } else if todo.is_idle() {
            work.idle.push((home.clone(), attempt, todo.next_look()));
        }
        Ok(())
    }
}

pub(super) fn bad_name(error: impl std::fmt::Display) -> crate::db::Error {
    crate::db::Error::Row(error.to_string())
}
