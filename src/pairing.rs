//! Bucket and database belong together: both carry one cluster id.
//!
//! A daemon that is pointed at the wrong bucket would call every archived log missing, and one that
//! is pointed at the wrong database would sweep what it does not know. So the pair is checked
//! before anything moves.

use std::time::Duration;

use futures::TryStreamExt;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cold::segment::Index;
use crate::cold::{Error as ColdError, Key, KeyKind, Store};
use crate::db::{self, Cluster};
use crate::model::Millis;

/// Where the id stands in each server's `meta` table.
const META_KEY: &str = "cluster";

/// Where each server says since when it is rebuilt; empty when it is not.
const REBUILD_KEY: &str = "rebuild";

/// A daemon that was heard of within this time is alive: six heartbeats.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);

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
         cluster's database, or cold.url at an empty bucket or prefix; if that database was lost, run \
         `logtier rebuild-catalog`"
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
        "a rebuild of the catalog was begun at {began} and has not ended: run `logtier rebuild-catalog` again, it \
         goes on where it was"
    )]
    Unfinished { began: String },
    #[error("daemons are alive ({names}): stop them first; one that was killed counts as alive for a minute")]
    Alive { names: String },
    #[error("the bucket holds nothing of logtier: check cold.url")]
    Nothing,
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

/// Whether nothing was ever stored in the database.
async fn is_empty(catalog: &Catalog) -> Result<bool, PairingError> {
    Ok(catalog.apps("", 1).await?.is_empty())
}

/// The bucket's cluster id, which a database that holds nothing takes over. For a rebuild.
pub async fn adopt(catalog: &Catalog, store: &Store, dry_run: bool) -> Result<String, PairingError> {
    let bucket = match cluster_of(store).await? {
        Some(bucket) => bucket,
        None => id_of_objects(store).await?,
    };
    for db in catalog.cluster.servers() {
        match db.meta(META_KEY).await? {
            Some(database) if database == bucket => {}
            Some(database) if !is_empty(catalog).await? => return Err(PairingError::Mismatch { database, bucket }),
            _ if dry_run => {}
            _ => db.set_meta(META_KEY, &bucket).await?,
        }
    }
    Ok(bucket)
}

/// What the objects of a bucket without a cluster object say.
async fn id_of_objects(store: &Store) -> Result<String, PairingError> {
    let mut listed = store.list(Key::v1_folder());
    while let Some(object) = listed.try_next().await? {
        if matches!(object.key.kind(), KeyKind::Segment(_)) {
            match Index::open(store, &object.key, object.byte_length).await {
                Ok(index) => return Ok(index.header().cluster.clone()),
                Err(ColdError::Corrupt { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(PairingError::Nothing)
}

/// Notes that a rebuild has begun: from now on no daemon starts on this database. Refused while
/// daemons are alive.
pub async fn begin_rebuild(catalog: &Catalog, clock: &Clock) -> Result<(), PairingError> {
    let since = Millis::new(clock.now().get() - ALIVE_WITHIN.as_millis() as i64);
    for db in catalog.cluster.servers() {
        let before = db.meta(REBUILD_KEY).await?.unwrap_or_default();
        db.set_meta(REBUILD_KEY, &clock.now().to_string()).await?;
        // Asked after that: who starts now is refused, who started before is on the list.
        let alive = catalog.daemons(db, since).await?;
        if !alive.is_empty() {
            db.set_meta(REBUILD_KEY, &before).await?;
            let names: Vec<String> = alive.into_iter().map(|daemon| daemon.name).collect();
            return Err(PairingError::Alive { names: names.join(", ") });
        }
    }
    Ok(())
}

/// Notes that a rebuild has ended, and marks the bucket where that was lost.
pub async fn end_rebuild(catalog: &Catalog, store: &Store, id: &str) -> Result<(), PairingError> {
    store.put_cluster_id(id).await?;
    for db in catalog.cluster.servers() {
        db.set_meta(REBUILD_KEY, "").await?;
    }
    Ok(())
}

/// A catalog that is half rebuilt would answer that logs do not exist.
pub async fn refuse_unfinished(cluster: &Cluster) -> Result<(), PairingError> {
    for db in cluster.servers() {
        match db.meta(REBUILD_KEY).await? {
            Some(began) if !began.is_empty() => return Err(PairingError::Unfinished { began }),
            _ => {}
        }
    }
    Ok(())
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
        Some(bucket) if database_is_new || is_empty(catalog).await? => Err(PairingError::BucketTaken { bucket }),
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
