//! Whose bucket it is: one small object that names the cluster.

use super::{Error, Key, Result, Store};

#[derive(serde::Serialize, serde::Deserialize)]
struct ClusterObject {
    cluster: String,
    created_by: String,
}

impl Store {
    /// The cluster that the bucket says it belongs to; none where it says nothing.
    pub async fn cluster_id(&self) -> Result<Option<String>> {
        let bytes = match self.get(&Key::cluster()).await {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let object: ClusterObject = serde_json::from_slice(&bytes)
            .map_err(|_| Error::corrupt(&Key::cluster(), "not one that logtier wrote"))?;
        Ok(Some(object.cluster))
    }

    /// Marks a bucket that belongs to nobody.
    pub async fn put_cluster_id(&self, id: &str) -> Result<()> {
        let created_by = concat!("logtier ", env!("CARGO_PKG_VERSION")).to_owned();
        let object = ClusterObject { cluster: id.to_owned(), created_by };
        self.put(&Key::cluster(), serde_json::to_vec(&object).unwrap_or_default().into()).await
    }
}
