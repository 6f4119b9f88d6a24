//! What a client says of an attempt besides its lines: that it exists, and that it is over.

use super::Ingest;
use crate::catalog::{Attempt, Declaration, DeclareError, FinishRequest, ReserveError};
use crate::db;
use crate::model::{AttemptKey, AttemptState, Job, Labels, Millis, Outcome};

/// An attempt and what is known of it beforehand.
#[derive(Debug, Clone)]
pub struct Facts {
    pub key: AttemptKey,
    pub job: Option<Job>,
    pub labels: Labels,
    pub started_at: Option<Millis>,
}

/// The attempt as it stands after the commit.
#[derive(Debug, Clone)]
pub struct Declared {
    pub attempt: Attempt,
    pub job: Option<Job>,
    /// The attempt belongs to another job than the request says.
    pub other_job: bool,
    /// The attempt has other labels than the request says.
    pub other_labels: bool,
}

/// Why an attempt was not declared or not finished.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error("the attempt is {}", if *.state == AttemptState::Deleted { "deleted" } else { "expired" })]
    Gone { state: AttemptState, at: Option<Millis> },
    #[error("the attempt is finished as {found}, which \"{asked}\" would change")]
    OtherOutcome { found: Outcome, asked: Outcome },
    #[error("{stored} lines are stored, the request counts {claimed}; the attempt stays as it is")]
    OtherLines { stored: u64, claimed: u64 },
    /// Other writers of the same attempt were faster, too often in a row: try again.
    #[error("the attempt is written to by too many at once")]
    Contended,
    #[error("write catalog")]
    Db(#[from] db::Error),
}

impl From<DeclareError> for EndError {
    fn from(error: DeclareError) -> Self {
        match error {
            DeclareError::Gone { state, at } => Self::Gone { state, at },
            DeclareError::OtherOutcome { found, asked } => Self::OtherOutcome { found, asked },
            DeclareError::OtherLines { stored, claimed } => Self::OtherLines { stored, claimed },
            DeclareError::Reserve(ReserveError::Raced) => Self::Contended,
            DeclareError::Reserve(ReserveError::Db(error)) => Self::Db(error),
        }
    }
}

impl Ingest {
    /// Creates the attempt, or completes its job and labels. The first job and labels stay.
    pub async fn declare(&self, facts: Facts) -> Result<Declared, EndError> {
        let now = self.shared.clock.now();
        let declaration = self.declaration(facts, now);
        let attempt = self.shared.catalog.declare(&declaration, now).await?;
        self.declared(attempt, declaration).await
    }

    /// Marks the attempt as over. `lines` is how many the client believes it wrote: another number
    /// is an error. The same request again changes nothing.
    pub async fn finish(
        &self,
        facts: Facts,
        outcome: Option<Outcome>,
        lines: Option<u64>,
    ) -> Result<Declared, EndError> {
        self.finish_at(facts, outcome, lines, None).await
    }

    /// The same for an attempt that was over earlier.
    pub async fn finish_at(
        &self,
        facts: Facts,
        outcome: Option<Outcome>,
        lines: Option<u64>,
        finished_at: Option<Millis>,
    ) -> Result<Declared, EndError> {
        let now = self.shared.clock.now();
        let request = FinishRequest { declaration: self.declaration(facts, now), outcome, lines, finished_at };
        let attempt = self.shared.catalog.finish(&request, now).await?;
        self.declared(attempt, request.declaration).await
    }

    fn declaration(&self, facts: Facts, now: Millis) -> Declaration {
        let Facts { key, job, labels, started_at } = facts;
        Declaration { key, job, labels, started_at, idle_at: now.after(self.shared.idle_after) }
    }

    async fn declared(&self, attempt: Attempt, asked: Declaration) -> Result<Declared, EndError> {
        let catalog = &self.shared.catalog;
        let home = catalog.cluster.home(&asked.key.app, &asked.key.instance);
        let job: Option<Job> = catalog.optional_name(&home.db, attempt.job_id).await?;
        let other_job = asked.job.is_some() && asked.job != job;
        let other_labels = !asked.labels.is_empty() && asked.labels != attempt.labels;
        Ok(Declared { attempt, job, other_job, other_labels })
    }
}
