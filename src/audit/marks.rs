//! Reads the marks of the bucket.

use crate::cold::{self, Key, Store};
use crate::model::Mark;

/// One mark. Another content than a mark's is `Corrupt`.
pub(super) async fn read(store: &Store, key: &Key) -> cold::Result<Mark> {
    let bytes = store.get(key).await?;
    serde_json::from_slice(&bytes).map_err(|error| cold::Error::Corrupt {
        key: key.clone(),
        what: format!("it is no mark that logtier wrote: {error}"),
    })
}
