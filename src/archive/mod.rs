//! Archiver (skeleton while the rest is written).

mod report;

use std::time::Duration;

pub use report::{Failure, Move, RunReport, Waiting};

use crate::model::Millis;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("hot tier")]
    Db(#[from] crate::db::Error),
    #[error("cold tier")]
    Cold(#[from] crate::cold::Error),
    #[error(transparent)]
    Lease(#[from] crate::catalog::LeaseError),
    #[error("the daemon is stopping")]
    Stopping,
}

/// The archiver as the API sees it. Clones share everything.
#[derive(Clone)]
pub struct Archiver {}

#[expect(clippy::unused_async, reason = "skeleton")]
impl Archiver {
    /// Asks for a run of everything due, now. Answers with its id; a run that is under way is
    /// waited for first, so the new one sees everything that was committed before the call.
    pub async fn request_run(&self) -> Result<i64, ArchiveError> {
        Err(ArchiveError::Stopping)
    }

    /// Waits until the run has ended, at most `patience`; its report as it stands then.
    pub async fn wait_for(&self, _run_id: i64, _patience: Duration) -> Result<Option<RunReport>, ArchiveError> {
        Ok(None)
    }

    /// What a run would do now, and why.
    pub async fn dry_run(&self) -> Result<RunReport, ArchiveError> {
        Err(ArchiveError::Stopping)
    }

    /// Reports of the last runs of any daemon, newest first.
    pub async fn runs(&self, _limit: u32) -> Result<Vec<RunReport>, ArchiveError> {
        Ok(Vec::new())
    }

    /// When the schedule starts the next run.
    pub fn next_scheduled(&self) -> Option<Millis> {
        None
    }
}
