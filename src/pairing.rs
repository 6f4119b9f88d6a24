//! Bucket and database belong together: both carry one cluster id.
//!
//! A daemon that is pointed at the wrong bucket would call every archived log missing, and one that
//! is pointed at the wrong database would sweep what it does not know. So the pair is checked
//! before anything moves.

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cold::{Error as ColdError, Store};
use crate::db::{self, Cluster};

/// Where the id stands in each server's `meta` table.
const META_KEY: &str = "cluster";

#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    #[error("ask the hot tier for its cluster id")]
    Hot(#[from] db::Error),
    #[error("ask the cold tier for its cluster id")]
    Cold(#[from] ColdError),
    #[error(
        "the database belongs to cluster {database}, the bucket to cluster {bucket}: \
         check hot.url and cold.url, one of them points at another installation"
    )]
    Mismatch { database: String, bucket: String },
    #[error(
        "the database is new, but the bucket already belongs to cluster {bucket}: point hot.url at that \
         cluster's database, or cold.url at an empty bucket or prefix"
    )]
    BucketTaken { bucket: String },
    #[error(
        "the database knows {objects} objects of cluster {database}, but the bucket holds no cluster id: \
         check cold.url, it points at an empty or another bucket"
    )]
    BucketEmpty { database: String, objects: u64 },
    #[error(
        "the first server of the hot tier belongs to cluster {first}, another one to cluster {other}: check the \
         urls of [[hot.server]], one of them points at another installation"
    )]
    Servers { first: String, other: String },
    #[error(
        "the database belongs to cluster {database}, but the bucket holds no v1/cluster.json: check cold.url; if it \
         is right and that object was lost, `logtier rebuild-catalog` writes it again"
    )]
    NoCluster { database: String },
    #[error(
        "the bucket's v1/cluster.json is not one that logtier wrote: check cold.url; if it is right and the object \
         is damaged, delete it and run `logtier rebuild-catalog`, which writes it again"
    )]
    Unreadable,
}

impl PairingError {
    /// Whether asking again later may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Hot(error) => !error.is_permanent(),
            Self::Cold(error) => !error.is_permanent(),
            _ => false,
        }
    }
}

/// Checks that bucket and database belong together, and changes neither.
pub async fn check(cluster: &Cluster, store: &Store) -> Result<(), PairingError> {
    let database = cluster.servers()[0].meta(META_KEY).await?.unwrap_or_default();
    for other in &cluster.servers()[1..] {
        let found = other.meta(META_KEY).await?.unwrap_or_default();
        if found != database {
            return Err(PairingError::Servers { first: database, other: found });
        }
    }
    match cluster_of(store).await? {
        None => Err(PairingError::NoCluster { database }),
        Some(bucket) if bucket == database => Ok(()),
        Some(bucket) => Err(PairingError::Mismatch { database, bucket }),
    }
}

async fn cluster_of(store: &Store) -> Result<Option<String>, PairingError> {
    store.cluster_id().await.map_err(|error| match error {
        ColdError::Corrupt { .. } => PairingError::Unreadable,
        error => error.into(),
    })
}

/// The database's cluster id, given at the first start; the same on all servers.
pub async fn cluster_id(cluster: &Cluster, clock: &Clock) -> Result<(String, bool), PairingError> {
    let first = &cluster.servers()[0];
    let fresh = clock.new_ulid().to_string();
    let id = first.meta_or_insert(META_KEY, &fresh).await?;
    for other in &cluster.servers()[1..] {
        let found = other.meta_or_insert(META_KEY, &id).await?;
        if found != id {
            return Err(PairingError::Servers { first: id, other: found });
        }
    }
    Ok((id.clone(), id == fresh))
}

/// Checks that the bucket is the database's, and marks a new bucket as such.
pub async fn pair(catalog: &Catalog, store: &Store, id: &str, database_is_new: bool) -> Result<(), PairingError> {
    match cluster_of(store).await? {
        Some(bucket) if bucket == id => Ok(()),
        Some(bucket) if database_is_new => Err(PairingError::BucketTaken { bucket }),
        Some(bucket) => Err(PairingError::Mismatch { database: id.to_owned(), bucket }),
        None => {
            for db in catalog.cluster.servers() {
                let (objects, _) = catalog.segment_summary(db, 1).await?;
                if objects > 0 {
                    return Err(PairingError::BucketEmpty { database: id.to_owned(), objects });
                }
            }
            Ok(store.put_cluster_id(id).await?)
        }
    }
}
