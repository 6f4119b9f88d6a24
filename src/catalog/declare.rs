//! What a client says of an attempt besides its lines: that it exists, and that it is over.

use super::reserve::{NaturalKey, Reserve, ReserveError, create_or_lock, find};
use super::{Attempt, Catalog, Kind, sql};
use crate::db::{Connection, Error, Home, TxError};
use crate::model::{AttemptId, AttemptKey, AttemptState, Event, Job, Labels, LevelSet, Millis, Outcome};

/// `PUT /apps/{app}/instances/{instance}`.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub key: AttemptKey,
    pub job: Option<Job>,
    pub labels: Labels,
    pub started_at: Option<Millis>,
    /// When an attempt that stays silent is looked at.
    pub idle_at: Millis,
}

/// `POST …/finish`.
#[derive(Debug, Clone)]
pub struct FinishRequest {
    pub declaration: Declaration,
    pub outcome: Option<Outcome>,
    /// How many lines the client believes it wrote.
    pub lines: Option<u64>,
    /// When it was over, where that was not just now; a moment ahead counts as now.
    pub finished_at: Option<Millis>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    #[error("the attempt is {}", if *.state == AttemptState::Deleted { "deleted" } else { "expired" })]
    Gone { state: AttemptState, at: Option<Millis> },
    #[error("the attempt is finished as {found}, which \"{asked}\" would change")]
    OtherOutcome { found: Outcome, asked: Outcome },
    #[error("{stored} lines are stored, the request counts {claimed}; the attempt stays as it is")]
    OtherLines { stored: u64, claimed: u64 },
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl From<Error> for DeclareError {
    fn from(error: Error) -> Self {
        Self::Reserve(error.into())
    }
}

impl TxError for DeclareError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Reserve(error) if error.is_contended())
    }
}

/// Losing the race for a new id this often in a row means that something else is wrong.
const MAX_RACES: u32 = 5;

impl Catalog {
    /// Creates the attempt, or completes its job and labels. The first job and labels stay.
    pub async fn declare(&self, declaration: &Declaration, now: Millis) -> Result<Attempt, DeclareError> {
        self.with_row(declaration, now, move |_, _, attempt| {
            Box::pin(async move {
                writable(&attempt, now)?;
                Ok(attempt)
            })
        })
        .await
    }

    /// Marks the attempt as over. The same request again changes nothing.
    pub async fn finish(&self, request: &FinishRequest, now: Millis) -> Result<Attempt, DeclareError> {
        let (outcome, lines) = (request.outcome, request.lines);
        let finished_at = request.finished_at.map_or(now, |at| at.min(now));
        self.with_row(&request.declaration, now, move |tx, home, mut attempt| {
            Box::pin(async move {
                writable(&attempt, now)?;
                if let Some(claimed) = lines.filter(|claimed| *claimed != attempt.next_line) {
                    return Err(DeclareError::OtherLines { stored: attempt.next_line, claimed });
                }
                if attempt.state == AttemptState::Finished {
                    match (attempt.outcome, outcome) {
                        (Some(found), Some(asked)) if found != asked => {
                            return Err(DeclareError::OtherOutcome { found, asked });
                        }
                        // Finished before without an outcome, which is now known.
                        (None, Some(_)) => {}
                        _ => return Ok(attempt),
                    }
                } else {
                    attempt.finished_at = Some(finished_at);
                }
                attempt.state = attempt.state.on(Event::Finish).unwrap_or(attempt.state);
                attempt.outcome = outcome;
                attempt.expires_at = None;
                attempt.meta_version += 1;
                update_finished(tx, home, &attempt, now).await?;
                Ok(attempt)
            })
        })
        .await
    }

    /// Creates or locks the row of an attempt and runs `change` in the same transaction.
    async fn with_row<F>(&self, wanted: &Declaration, now: Millis, change: F) -> Result<Attempt, DeclareError>
    where
        F: for<'c> Fn(&'c mut Connection, &'c Home, Attempt) -> crate::db::TxFuture<'c, Attempt, DeclareError>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let key = &wanted.key;
        let home = self.cluster.home(&key.app, &key.instance);
        let app_id = self.name_number(&home.db, Kind::App, key.app.as_str()).await?;
        let job_id = match &wanted.job {
            Some(job) => self.name_number(&home.db, Kind::Job, job.as_str()).await?,
            None => 0,
        };
        let natural = NaturalKey { app_id, instance: key.instance.clone(), attempt: key.attempt };
        for raced in 1.. {
            let found = find(&home, std::slice::from_ref(&natural)).await?.remove(&natural);
            let row = Reserve {
                key: natural.clone(),
                id: found.map_or_else(|| AttemptId::at(now, home.db.clock().random_u32()), |attempt| attempt.id),
                known_job: None,
                job_id,
                labels: wanted.labels.clone(),
                lines: 0,
                raw_bytes: 0,
                ts_range: None,
                levels: LevelSet::EMPTY,
                due_at: wanted.idle_at,
                created_at: wanted.started_at.unwrap_or(now),
            };
            let (change, home_in_tx) = (change.clone(), home.clone());
            let result = home.db.run_tx("catalog::declare", move |tx| {
                let (row, change, home) = (row.clone(), change.clone(), home_in_tx.clone());
                Box::pin(async move {
                    let attempt = create_or_lock(tx, &home, &row, now).await?;
                    change(tx, &home, attempt).await
                })
            });
            match result.await {
                Err(DeclareError::Reserve(ReserveError::Raced)) if raced < MAX_RACES => {}
                result => return result,
            }
        }
        unreachable!("the last race returns")
    }
}

fn writable(attempt: &Attempt, now: Millis) -> Result<(), DeclareError> {
    let state = attempt.state_at(now);
    if state.is_gone() { Err(DeclareError::Gone { state, at: attempt.gone_since() }) } else { Ok(()) }
}

async fn update_finished(tx: &mut Connection, home: &Home, attempt: &Attempt, now: Millis) -> Result<(), Error> {
    let update = sqlx::query(sqlx::AssertSqlSafe(sql::finish_attempt(home.shard)))
        .bind(attempt.state.code() as i32)
        .bind(Outcome::code(attempt.outcome) as i32)
        .bind(attempt.finished_at.map(Millis::get))
        .bind(attempt.meta_version as i32)
        .bind(now.get())
        .bind(now.get())
        .bind(attempt.id.get());
    match update.execute(tx).await?.rows_affected() {
        1 => Ok(()),
        rows => Err(Error::RowCount { statement: "catalog::finish", rows, expected: 1 }),
    }
}
