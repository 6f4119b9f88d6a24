//! One daemon of a simulation: the parts of the real one without its timers and its HTTP.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures::FutureExt;
use logtier::archive::{ArchiveSettings, Archiver, Worker};
use logtier::catalog::Catalog;
use logtier::clock::Clock;
use logtier::cold::Store;
use logtier::db::{Cluster, Db, DbSettings, Shard};
use logtier::ingest::{AppendError, Appended, Batch, Ingest, IngestSettings, Lane};
use logtier::read::Reader;
use logtier::telemetry::Metrics;
use object_store::ObjectStore;
use tokio_util::sync::CancellationToken;

use super::world::{Fate, Surroundings};

/// Where all daemons of a seed find their tiers.
#[derive(Clone)]
pub struct Place {
    pub database_url: String,
    pub objects: Arc<dyn ObjectStore>,
    pub settings: ArchiveSettings,
}

pub const SHARDS: u16 = 2;

pub struct Daemon {
    pub name: String,
    pub surroundings: Arc<Surroundings>,
    pub catalog: Catalog,
    pub store: Store,
    pub reader: Reader,
    pub archiver: Archiver,
    worker: Worker,
    ingest: Ingest,
    lanes: Vec<Lane>,
}

impl Daemon {
    /// Starts a daemon on tables that are there.
    pub async fn start(place: &Place, fate: &Arc<Fate>, name: String) -> Self {
        let surroundings = Arc::new(Surroundings { fate: Arc::clone(fate), skew: AtomicI64::new(0) });
        let clock = Clock::simulated(surroundings.clone());
        let cluster = Cluster::new(vec![Arc::new(connect(&place.database_url, &clock).await)]);
        let catalog = Catalog::new(cluster);
        let store = Store::from_object_store(place.objects.clone(), "sim");
        let metrics = Arc::new(Metrics::default());
        let settings = IngestSettings { queue_bytes: 1 << 20, idle_after: place.settings.idle_after };
        let (ingest, lanes) = Ingest::new(catalog.clone(), clock.clone(), metrics.clone(), &settings);
        let settings = ArchiveSettings { daemon: name.clone(), ..place.settings.clone() };
        let stop = CancellationToken::new();
        let (archiver, worker) =
            Archiver::new(catalog.clone(), store.clone(), clock.clone(), metrics.clone(), settings, stop);
        let reader = Reader::new(catalog.clone(), store.clone(), clock.clone(), metrics);
        Self { name, surroundings, catalog, store, reader, archiver, worker, ingest, lanes }
    }

    /// Appends through the daemon's queue. The lanes are driven from here, so that nobody else
    /// must: one call at a time on a daemon.
    pub fn append(&self, batches: Vec<Batch>) -> impl Future<Output = Vec<Result<Appended, AppendError>>> + use<> {
        let (ingest, lanes) = (self.ingest.clone(), self.lanes.clone());
        async move {
            let never = CancellationToken::new();
            let run = futures::future::join_all(lanes.iter().map(|lane| lane.run(never.clone())));
            tokio::select! {
                biased;
                answers = ingest.append_all(batches) => answers,
                _ = run => unreachable!("nobody stops the lanes"),
            }
        }
    }

    pub fn ingest(&self) -> Ingest {
        self.ingest.clone()
    }

    /// One scheduled run of the archiver.
    pub fn run(&self) -> impl Future<Output = ()> + use<> {
        let worker = self.worker.clone();
        async move { worker.run_once().await }.boxed()
    }

    /// Makes its lease last longer, as its own renewal does while it is slow but alive.
    pub async fn renew(&self) {
        let db = &self.catalog.cluster.servers()[0];
        let until = self.surroundings.fate.now() + LEASE_TTL.as_millis() as i64;
        let renew = format!(
            "UPDATE lease SET expires_at = {until} WHERE owner = CAST('{}' AS BINARY) AND expires_at > {}",
            self.name,
            self.surroundings.fate.now()
        );
        let renew = if db.engine().as_str() == "sqlite" { renew.replace("BINARY", "BLOB") } else { renew };
        sqlx::raw_sql(sqlx::AssertSqlSafe(renew)).execute(db.pool()).await.expect("renew a lease");
    }

    pub async fn close(self) {
        self.catalog.cluster.close().await;
    }
}

pub const LEASE_TTL: Duration = Duration::from_secs(60);

async fn connect(url: &str, clock: &Clock) -> Db {
    let settings = DbSettings { url: url.to_owned(), max_connections: 2, acquire_timeout: Duration::from_secs(20) };
    let shards = (0..SHARDS).map(Shard::new).collect();
    Db::connect(&settings, 0, shards, clock.clone()).await.expect("open the database")
}

/// Makes the tables.
pub async fn migrate(url: &str) {
    let db = connect(url, &Clock::default()).await;
    db.migrate(usize::from(SHARDS)).await.expect("make the tables");
    db.close().await;
}
