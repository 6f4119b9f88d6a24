//! One lane: take what has come together, commit it, again.

use tokio_util::sync::CancellationToken;

use super::commit;
use super::{Lane, Pending};

/// A group of this many bytes is committed without looking for more: the transaction should hold
/// its row locks for tens of milliseconds, not hundreds.
const FULL_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Row locks that one transaction may hold.
const FULL_GROUP_BATCHES: usize = 512;

impl Lane {
    /// Commits groups until it is told to stop and the queue is empty.
    pub async fn run(&self, stop: CancellationToken) {
        let mut queue = self.queue.lock().await;
        loop {
            let first = tokio::select! {
                biased;
                first = queue.recv() => first,
                () = stop.cancelled(), if !queue.is_closed() => {
                    // What was taken in is finished; nothing new comes in.
                    queue.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut bytes = first.batch.lines.json().len();
            let mut group: Vec<Pending> = vec![first];
            while bytes < FULL_GROUP_BYTES && group.len() < FULL_GROUP_BATCHES {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.batch.lines.json().len();
                group.push(next);
            }
            commit::commit(&self.shared, group).await;
        }
    }
}
