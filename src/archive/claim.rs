//! The first verb: take the lease of a server, and keep it while the run lasts.

use std::sync::Arc;
use std::time::Duration;

use super::{ArchiveError, Shared};
use crate::catalog::Lease;
use crate::db::Db;

/// What one daemon at a time does on a server: everything that moves, purges, expires or sweeps.
/// One lease for all of it packs an object from all shards and needs one fence.
const TASK: &str = "mover";

/// How often one who waits for the lease looks.
const WAIT_POLL: Duration = Duration::from_millis(200);

/// How far this machine's clock may be from the database's: more than any that is kept by NTP, and
/// little against any retention.
pub(super) const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);

/// Refuses to go by a clock that is wrong: one that jumped a year ahead would expire a year's logs.
pub(super) async fn check_clock(shared: &Shared, db: &Arc<Db>) -> Result<(), ArchiveError> {
    let (theirs, ours) = (db.ping().await?, shared.clock.now());
    if ours.since(theirs).max(theirs.since(ours)) > MAX_CLOCK_DIFFERENCE {
        return Err(ArchiveError::ClockDiffers { ours, theirs });
    }
    Ok(())
}

/// Takes the lease; waits at most `patience` while another daemon holds it.
pub(super) async fn claim(shared: &Shared, db: &Arc<Db>, patience: Duration) -> Result<Option<Lease>, ArchiveError> {
    let deadline = shared.clock.instant() + patience;
    loop {
        if let Some(lease) = Lease::take(db, TASK, &shared.settings.daemon, shared.settings.lease_ttl).await? {
            return Ok(Some(lease));
        }
        if shared.stop.is_cancelled() {
            return Err(ArchiveError::Stopping);
        }
        if shared.clock.instant() >= deadline {
            return Ok(None);
        }
        shared.clock.sleep(WAIT_POLL).await;
    }
}

/// Runs `work` while renewing the lease, and releases it. Work is dropped when the lease is lost.
pub(super) async fn hold<T>(
    shared: &Shared,
    db: &Arc<Db>,
    lease: Lease,
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    let result = tokio::select! {
        result = work => result,
        error = keep(shared, db, &lease) => Err(error),
    };
    if let Err(error) = lease.release(db).await {
        tracing::warn!(error = %error, "could not release the lease; it ends by itself");
    }
    result
}

/// Renews until that fails for good.
async fn keep(shared: &Shared, db: &Arc<Db>, lease: &Lease) -> ArchiveError {
    let ttl = shared.settings.lease_ttl;
    let mut renewed_at = shared.clock.instant();
    loop {
        // Three tries before it ends.
        shared.clock.sleep(ttl / 4).await;
        match lease.renew(db, ttl).await {
            Ok(()) => renewed_at = shared.clock.instant(),
            Err(error) => match ArchiveError::from(error) {
                // The database is away; the lease lasts a little longer, the fence decides.
                ArchiveError::Db(_) if shared.clock.instant() - renewed_at < ttl => {}
                error => return error,
            },
        }
    }
}
