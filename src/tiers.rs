//! Opens both tiers as a configuration names them: to serve them, to look at them, to rebuild them.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cold::{Store, StoreSettings};
use crate::config::{Config, HotServer, Secret};
use crate::db::{Cluster, Db, DbSettings, OneDaemon, Shard};
use crate::pairing;

/// A request that finds no free connection for so long is told that the tier is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps other daemons off the databases that are for one alone, as long as the answer is held.
pub fn take_databases(config: &Config) -> anyhow::Result<Vec<OneDaemon>> {
    create_data_dir(config)?;
    let mut taken = Vec::new();
    for HotServer { url, .. } in &config.hot.servers {
        taken.extend(OneDaemon::take(&url.expose()).with_context(|| format!("open the hot tier at {url}"))?);
    }
    Ok(taken)
}

/// For its owner alone: it holds logs, and who knows what they hold. One that is there stays as it is.
fn create_data_dir(config: &Config) -> anyhow::Result<()> {
    let folder = config.data_dir.display();
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        anyhow::bail!("data_dir {folder} is a file, not a folder: move it away, or name another place");
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
    made.with_context(|| format!("create data_dir {folder}"))
}

/// Opens the databases and brings their tables to this version.
pub async fn open_hot_tier(config: &Config, clock: &Clock) -> anyhow::Result<Cluster> {
    create_data_dir(config)?;
    let mut servers = Vec::new();
    for (number, server) in config.hot.servers.iter().enumerate() {
        let HotServer { url, shards, .. } = server;
        let settings =
            DbSettings { url: url.expose(), max_connections: config.hot.connections, acquire_timeout: ACQUIRE_TIMEOUT };
        let shards = shards.clone().map(|shard| Shard::new(shard as u16)).collect();
        let db = Db::connect(&settings, number, shards, clock.clone()).await;
        let db = db.with_context(|| format!("open the hot tier at {url}"))?;
        db.check().await.with_context(|| format!("open the hot tier at {url}"))?;
        db.migrate(config.hot.shards as usize).await.with_context(|| format!("prepare the hot tier at {url}"))?;
        servers.push(Arc::new(db));
    }
    Ok(Cluster::new(servers))
}

/// The servers' replicas, each with its server's number. Asks them nothing: one that is away holds up purging alone.
pub(crate) async fn open_replicas(config: &Config, clock: &Clock) -> anyhow::Result<Vec<(usize, Arc<Db>)>> {
    let mut replicas = Vec::new();
    for (number, server) in config.hot.servers.iter().enumerate() {
        for url in &server.replicas {
            let settings = DbSettings { url: url.expose(), max_connections: 1, acquire_timeout: ACQUIRE_TIMEOUT };
            let db = Db::connect(&settings, number, Vec::new(), clock.clone()).await;
            replicas.push((number, Arc::new(db.with_context(|| format!("use the replica at {url}"))?)));
        }
    }
    Ok(replicas)
}

/// Opens both tiers as they are, and changes nothing: for audits beside running daemons. Fails where
/// they are not of this version, or do not belong together.
pub async fn open_as_is(config: &Config, clock: &Clock) -> anyhow::Result<(Catalog, Store)> {
    let catalog = Catalog::new(Cluster::new(connect(config, clock).await?));
    for (db, server) in catalog.cluster.servers().iter().zip(&config.hot.servers) {
        let checked = db.check_schema(config.hot.shards as usize).await;
        checked.with_context(|| format!("look at the hot tier at {}", server.url))?;
    }
    let store = open_store_as_is(config)?;
    pairing::refuse_unfinished(&catalog.cluster).await?;
    pairing::check(&catalog.cluster, &store).await?;
    Ok((catalog, store))
}

/// Opens both tiers for a look at what a rebuild would do, and changes nothing. A database that was
/// never used is a cluster of no servers.
pub async fn open_if_there(config: &Config, clock: &Clock) -> anyhow::Result<(Catalog, Store)> {
    let store = open_store_as_is(config)?;
    let servers = connect(config, clock).await?;
    for (db, server) in servers.iter().zip(&config.hot.servers) {
        let about = || format!("look at the hot tier at {}", server.url);
        if db.schema().await.with_context(about)? == 0 {
            return Ok((Catalog::new(Cluster::new(Vec::new())), store));
        }
        db.check_schema(config.hot.shards as usize).await.with_context(about)?;
    }
    Ok((Catalog::new(Cluster::new(servers)), store))
}

/// Opens both tiers to be written, without looking whether they belong together.
pub async fn open_and_migrate(config: &Config, clock: &Clock) -> anyhow::Result<(Catalog, Store)> {
    let catalog = Catalog::new(open_hot_tier(config, clock).await?);
    Ok((catalog, open_store(config)?))
}

/// Connects to databases that must be there.
async fn connect(config: &Config, clock: &Clock) -> anyhow::Result<Vec<Arc<Db>>> {
    let mut servers = Vec::new();
    for (number, server) in config.hot.servers.iter().enumerate() {
        let HotServer { url, shards, .. } = server;
        // A database file that is not there is a mistake, not one to be made.
        let settings = DbSettings {
            url: url.expose().replace("?mode=rwc", "?mode=rw"),
            max_connections: config.hot.connections,
            acquire_timeout: ACQUIRE_TIMEOUT,
        };
        let shards = shards.clone().map(|shard| Shard::new(shard as u16)).collect();
        let db = Db::connect(&settings, number, shards, clock.clone()).await;
        servers.push(Arc::new(db.with_context(|| format!("open the hot tier at {url}"))?));
    }
    Ok(servers)
}

/// The same, without making the folder that it may be.
fn open_store_as_is(config: &Config) -> anyhow::Result<Store> {
    match config.cold.folder().filter(|folder| !folder.is_dir()) {
        Some(folder) => anyhow::bail!("the cold tier is not there: {} is no folder", folder.display()),
        None => open_store(config),
    }
}

/// The store of the cold tier; asks it nothing.
pub(crate) fn open_store(config: &Config) -> anyhow::Result<Store> {
    let cold = &config.cold;
    let expose = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    let settings = StoreSettings {
        url: cold.url.clone(),
        endpoint: cold.endpoint.clone(),
        region: cold.region.clone(),
        virtual_hosted_style: Some(cold.virtual_hosted_style),
        access_key_id: cold.access_key_id.clone(),
        secret_access_key: expose(&cold.secret_access_key),
        session_token: expose(&cold.session_token),
        credentials_file: cold.credentials_file.clone(),
        allow_http: cold.allow_http,
    };
    Store::open(&settings).with_context(|| format!("open the cold tier at {}", cold.url))
}
