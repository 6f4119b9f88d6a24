//! Whether the bucket is still the database's: asked before a run, because a bucket can be emptied, or
//! another one put in its place, while the daemon runs.

use super::{ArchiveError, Shared};

/// One request for one small object. Nothing is moved to a bucket that is not ours, and nothing is purged
/// for the sake of what should be in it.
pub(super) async fn check(shared: &Shared) -> Result<(), ArchiveError> {
    let ours = &shared.settings.cluster_id;
    let what = match shared.store.cluster_id().await? {
        Some(found) if found == *ours => return Ok(()),
        Some(found) => format!("it belongs to cluster {found}, the database to cluster {ours}"),
        None => "it holds no v1/cluster.json any more, so it was emptied or is another one".to_owned(),
    };
    Err(ArchiveError::OtherBucket { what })
}
