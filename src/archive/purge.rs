//! The sixth verb: chunks whose lines were published, or whose attempt is gone, leave the hot tier.
//!
//! What to delete was read from the catalog: a watermark that only `publish` raises, and whose grace
//! is over. The transaction begins with the fence, deletes in primary-key order, and is small.

use super::candidates::Purge;
use super::gentle::Brake;
use super::{ArchiveError, Shared};
use crate::catalog::{Lease, LeaseError, Seen};
use crate::db::{Connection, Home};
use crate::hot;
use crate::model::{AttemptId, Millis};

/// Chunks that one transaction deletes, about 5 MB: it holds its locks for some milliseconds.
const CHUNKS_PER_TX: u32 = 500;

/// Attempts that one transaction purges.
const ATTEMPTS_PER_TX: usize = 100;

/// Attempts whose chunks go with one statement.
const ATTEMPTS_AT_A_TIME: usize = 64;

/// What a purge did.
#[derive(Debug, Default)]
pub(super) struct Purged {
    pub attempts: u64,
    pub chunks: u64,
}

/// Purges these attempts in the order of the primary key, as long as the brake lets it.
pub(super) async fn purge(
    shared: &Shared,
    lease: &Lease,
    brake: &mut Brake<'_>,
    mut work: Vec<Purge>,
) -> Result<Purged, ArchiveError> {
    let mut purged = Purged::default();
    work.sort_by_key(|purge| (purge.home.shard, purge.attempt.id));
    for of_shard in work.chunk_by(|a, b| a.home.shard == b.home.shard) {
        for some in of_shard.chunks(ATTEMPTS_PER_TX) {
            let Purged { attempts, chunks } = purge_some(shared, lease, brake, some).await?;
            purged.attempts += attempts;
            purged.chunks += chunks;
            shared.metrics.purged_chunks.inc_by(chunks);
            if brake.stopped.is_some() {
                return Ok(purged);
            }
        }
    }
    Ok(purged)
}

/// Attempts of which the brake leaves something stay due.
async fn purge_some(
    shared: &Shared,
    lease: &Lease,
    brake: &mut Brake<'_>,
    some: &[Purge],
) -> Result<Purged, ArchiveError> {
    let home = some[0].home.clone();
    let mut left: Vec<(AttemptId, u64)> = some.iter().map(|purge| (purge.attempt.id, purge.below)).collect();
    let mut chunks = 0;
    while !left.is_empty() && brake.may_go_on().await? {
        let started = shared.clock.instant();
        match one_transaction(&home, lease, &left).await {
            Ok((deleted, done)) => {
                chunks += deleted;
                left.drain(..done);
            }
            Err(ArchiveError::Db(error)) if error.is_contended() => {
                brake.stop(format!("writers needed the same rows: {}", crate::telemetry::chain(&error)));
            }
            Err(error) => return Err(error),
        }
        brake.rest(started.elapsed()).await;
    }
    let done = &some[..some.len() - left.len()];
    let rows = done.iter().map(|purge| (purge.attempt.seen(), purge.below, purge.due_after));
    let rows: Vec<(Seen, u64, Millis)> = rows.collect();
    shared.catalog.purged(&home, lease, rows).await?;
    Ok(Purged { attempts: done.len() as u64, chunks })
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
    for some in work.chunks(ATTEMPTS_AT_A_TIME) {
        let room = CHUNKS_PER_TX.saturating_sub(deleted as u32);
        if room == 0 {
            break;
        }
        let ids: Vec<AttemptId> = some.iter().map(|(id, _)| *id).collect();
        let found = hot::first_lines(tx, home.shard, &ids, room + 1).await?;
        // The first chunk that is too many, and so the attempt that is not seen to its end.
        let cut = found.get(room as usize).and_then(|(id, line)| Some((ids.iter().position(|one| one == id)?, *line)));
        let whole = cut.map_or(some.len(), |(at, _)| at);
        if whole > 0 {
            deleted += hot::delete_several_below(tx, home.shard, &some[..whole]).await?;
            done += whole;
        }
        if let Some((at, line)) = cut {
            let (id, below) = some[at];
            deleted += hot::delete_below(tx, home.shard, id, line.min(below)).await?;
            done += usize::from(line >= below);
            break;
        }
    }
    Ok((deleted, done))
}
