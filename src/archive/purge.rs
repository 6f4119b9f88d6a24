//! The sixth verb: chunks whose lines were published, or whose attempt is gone, leave the hot tier.
//!
//! What to delete was read from the catalog: a watermark that only `publish` raises, and whose grace
//! is over. The transaction begins with the fence, deletes in primary-key order, and is small.

use super::candidates::Purge;
use super::{ArchiveError, Shared};
use crate::catalog::{Lease, LeaseError, Seen};
use crate::db::{Connection, Home};
use crate::hot;
use crate::model::{AttemptId, Millis};

/// Chunks that one transaction deletes, about 5 MB: it holds its locks for some milliseconds.
const CHUNKS_PER_TX: u32 = 500;

/// Attempts that one transaction purges.
const ATTEMPTS_PER_TX: usize = 100;

/// After each transaction the purge rests for this share of the time it took.
const REST_SHARE: f64 = 0.5;

/// Purges these attempts; answers how many chunks went.
pub(super) async fn purge(shared: &Shared, lease: &Lease, work: Vec<Purge>) -> Result<u64, ArchiveError> {
    let mut chunks = 0;
    for of_shard in work.chunk_by(|a, b| a.home.shard == b.home.shard) {
        for some in of_shard.chunks(ATTEMPTS_PER_TX) {
            if shared.stop.is_cancelled() {
                return Err(ArchiveError::Stopping);
            }
            chunks += purge_some(shared, lease, some).await?;
        }
    }
    shared.metrics.purged_chunks.inc_by(chunks);
    Ok(chunks)
}

async fn purge_some(shared: &Shared, lease: &Lease, some: &[Purge]) -> Result<u64, ArchiveError> {
    let home = some[0].home.clone();
    let mut left: Vec<(AttemptId, u64)> = some.iter().map(|purge| (purge.attempt.id, purge.below)).collect();
    let mut chunks = 0;
    while !left.is_empty() {
        let started = shared.clock.instant();
        let (deleted, done) = one_transaction(&home, lease, &left).await?;
        chunks += deleted;
        left.drain(..done);
        shared.clock.sleep(started.elapsed().mul_f64(REST_SHARE)).await;
    }
    let rows = some.iter().map(|purge| (purge.attempt.seen(), purge.below, purge.due_after));
    let rows: Vec<(Seen, u64, Millis)> = rows.collect();
    shared.catalog.purged(&home, lease, rows).await?;
    Ok(chunks)
}

/// Deletes up to [`CHUNKS_PER_TX`] chunks; answers how many, and how many attempts are done with.
async fn one_transaction(home: &Home, lease: &Lease, work: &[(AttemptId, u64)]) -> Result<(u64, usize), ArchiveError> {
    let (work, lease, home_in_tx) = (work.to_vec(), lease.clone(), home.clone());
    let result = home.db.run_tx("archive::purge", move |tx| {
        let (work, lease, home) = (work.clone(), lease.clone(), home_in_tx.clone());
        Box::pin(async move {
            lease.assert_held(&home.db, tx).await?;
            Ok::<_, LeaseError>(delete(tx, &home, &work).await?)
        })
    });
    Ok(result.await?)
}

async fn delete(tx: &mut Connection, home: &Home, work: &[(AttemptId, u64)]) -> crate::db::Result<(u64, usize)> {
    let (mut deleted, mut done) = (0, 0);
    for (id, below) in work {
        let room = CHUNKS_PER_TX - (deleted as u32).min(CHUNKS_PER_TX);
        if room == 0 {
            break;
        }
        let end = hot::oldest_line_after(tx, home.shard, *id, room).await?;
        let end = end.map_or(*below, |line| line.min(*below));
        deleted += hot::delete_below(tx, home.shard, *id, end).await?;
        if end < *below {
            break;
        }
        done += 1;
    }
    Ok((deleted, done))
}
