//! Deleting by name and legal holds: what people say of an attempt, kept in the bucket as well.
//!
//! A mark is a small object, written before the catalog changes and before anyone is answered: a
//! catalog that is rebuilt from the bucket brings back nothing that was deleted and forgets no hold.
//! A mark whose change then failed does no harm: the same request again makes both true.

use serde::Serialize;

use super::rules::RulesInForce;
use super::{ArchiveError, Archiver};
use crate::catalog::{Attempt, Snapshot};
use crate::cold::Key;
use crate::db::Home;
use crate::model::{App, AttemptNo, AttemptState, Instance, Job, Mark, MarkKind, Millis};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    Done,
    /// No such instance or attempt.
    Unknown,
    /// A held attempt is not deleted.
    Held,
    /// What is gone is not held.
    Gone {
        state: AttemptState,
        at: Option<Millis>,
    },
}

/// What deleting would take of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WouldDelete {
    pub attempt: u32,
    pub lines: u64,
    /// Those of them that stand in the hot tier alone.
    pub hot_lines: u64,
    /// Objects that hold the others, counted up to 1,000; they are rewritten without them.
    pub objects: u64,
}

/// A never-ending attempt has one each window.
const MAX_OBJECTS_COUNTED: u32 = 1_000;

/// Attempts of one instance that one request changes.
const MAX_ATTEMPTS: u32 = 1_000;

impl Archiver {
    /// Deletes an attempt, or all attempts of an instance: gone from every read when this answers,
    /// from the hot tier with the next run, from the bucket when its object is rewritten or goes.
    pub async fn delete(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
    ) -> Result<Marked, ArchiveError> {
        self.mark(app, instance, attempt, MarkKind::Delete).await
    }

    /// What [`Archiver::delete`] would take. Changes nothing.
    pub async fn rehearse_delete(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
    ) -> Result<(Marked, Vec<WouldDelete>), ArchiveError> {
        let found = self.find(app, instance, attempt).await?;
        let found: Vec<_> = found.into_iter().filter(|found| !found.attempt.state.is_gone()).collect();
        let marked = match self.is_held(app, &found).await? {
            _ if found.is_empty() => Marked::Unknown,
            true => Marked::Held,
            false => Marked::Done,
        };
        let mut lost = Vec::new();
        for Snapshot { home, attempt, .. } in &found {
            let segments = self.shared.catalog.segments_of(home, attempt.id, MAX_OBJECTS_COUNTED).await?;
            lost.push(WouldDelete {
                attempt: attempt.attempt.get(),
                lines: attempt.lines().len(),
                hot_lines: attempt.hot_lines().len(),
                objects: segments.len() as u64,
            });
        }
        Ok((marked, lost))
    }

    /// Puts a legal hold on an attempt or all attempts of an instance, or takes it off.
    pub async fn hold(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
        on: bool,
    ) -> Result<Marked, ArchiveError> {
        self.mark(app, instance, attempt, if on { MarkKind::Hold } else { MarkKind::Release }).await
    }

    async fn mark(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
        mark: MarkKind,
    ) -> Result<Marked, ArchiveError> {
        let found = self.find(app, instance, attempt).await?;
        if found.is_empty() {
            return Ok(Marked::Unknown);
        }
        let gone = found.iter().find(|found| found.attempt.state.is_gone());
        if let (MarkKind::Hold, Some(gone), true) =
            (mark, gone, found.iter().all(|found| found.attempt.state.is_gone()))
        {
            return Ok(Marked::Gone { state: gone.attempt.state, at: gone.attempt.gone_since() });
        }
        // A mark in another bucket would be answered and forgotten.
        super::bucket::check(&self.shared).await?;
        // All or nothing, as far as one can tell beforehand.
        if mark == MarkKind::Delete && self.is_held(app, &found).await? {
            return Ok(Marked::Held);
        }
        for found in found {
            if self.mark_one(app, &found.home, &found.attempt, mark).await? == Marked::Held {
                return Ok(Marked::Held);
            }
        }
        Ok(Marked::Done)
    }

    async fn find(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
    ) -> Result<Vec<Snapshot>, ArchiveError> {
        let catalog = &self.shared.catalog;
        let numbers = match attempt {
            Some(attempt) => vec![attempt],
            None => catalog.attempts_of(app, instance, MAX_ATTEMPTS).await?,
        };
        let mut found = Vec::new();
        for number in numbers {
            let nothing = crate::model::LineRange::new(0, 0);
            found.extend(catalog.snapshot(app, instance, Some(number), nothing).await?);
        }
        Ok(found)
    }

    /// Whether a hold keeps any of them: its own, or that of its rule.
    async fn is_held(&self, app: &App, found: &[Snapshot]) -> Result<bool, ArchiveError> {
        let shared = &self.shared;
        let Some(first) = found.first() else { return Ok(false) };
        // All attempts of an instance are on one server.
        let db = &first.home.db;
        let rules = RulesInForce::load(shared, db).await?;
        for Snapshot { attempt, .. } in found {
            let job: Option<Job> = shared.catalog.optional_name(db, attempt.job_id).await?;
            if attempt.held || rules.ruling_of(shared, db, app, job.as_ref(), attempt).await?.hold {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn mark_one(
        &self,
        app: &App,
        home: &Home,
        attempt: &Attempt,
        mark: MarkKind,
    ) -> Result<Marked, ArchiveError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let already = match mark {
            MarkKind::Delete => attempt.state.is_gone(),
            // What is gone cannot be held: a mark would say that it came back.
            MarkKind::Hold => attempt.held || attempt.state.is_gone(),
            MarkKind::Release => !attempt.held,
        };
        if already {
            return Ok(Marked::Done);
        }
        let content = Mark {
            mark,
            app: app.clone(),
            instance: attempt.instance.clone(),
            attempt: attempt.attempt,
            attempt_id: attempt.id.get(),
            at: now.to_string(),
        };
        let bytes = serde_json::to_vec(&content).unwrap_or_default();
        let key = Key::mark(shared.clock.new_ulid());
        shared.store.put(&key, bytes.into()).await?;
        let done = match mark {
            MarkKind::Delete => shared.catalog.delete(home, attempt.id, now).await?,
            MarkKind::Hold | MarkKind::Release => {
                shared.catalog.set_hold(home, attempt.id, mark == MarkKind::Hold, now).await?;
                true
            }
        };
        if done {
            return Ok(Marked::Done);
        }
        // Held since it was looked at: a delete that was refused must not be done by a rebuild.
        shared.store.delete(&key).await?;
        Ok(Marked::Held)
    }
}
