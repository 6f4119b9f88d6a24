//! The databases of the hot tier: connections, transactions, schema, and which shard is where.
//!
//! Two engines speak through one code path (`sqlx::Any`): MySQL's protocol (MariaDB, MySQL, TiDB)
//! and SQLite. What must differ between them is in [`Engine`] and nowhere else.
//!
//! Invariant: a transaction runs in a task of its own ([`Db::run_tx`]) and nowhere else. Dropping a
//! future in the middle of `BEGIN` would give a connection back to the pool inside an open
//! transaction, and the next writer's rows would vanish with it.

mod cluster;
mod engine;
mod error;
mod file;
mod migrate;
mod sql;
mod tx;

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection as _};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use cluster::{Cluster, Home, Shard};
pub use engine::Engine;
pub use error::Error;
pub use file::OneDaemon;
pub use migrate::SCHEMA_VERSION;
pub use tx::{TxError, TxFuture};

use crate::clock::Clock;
use crate::model::Millis;

pub type Result<T> = std::result::Result<T, Error>;

/// A connection inside [`Db::run_tx`], or one lent for a single statement.
pub type Connection = AnyConnection;

/// A connection with so many prepared statements forgets them when it is next idle. MySQL allows 16,382 per
/// server by default (`max_prepared_stmt_count`): four daemons of sixteen connections stay below it, with room for what a
/// connection prepares until it is idle.
const STATEMENTS_PER_CONNECTION: usize = 240;

/// Never full between two idle moments: sqlx would then close the least used statement with a packet that
/// nobody answers, and as it does not set TCP_NODELAY, the next packet would wait 40 ms for the delayed
/// acknowledgement of that one. Idle, the wait harms nobody.
const STATEMENT_CACHE: usize = 2_048;

/// A connection that was used so lately is taken to be sound without a question, which would be one
/// more round trip of every transaction.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How to reach one database server.
#[derive(Debug, Clone)]
pub struct DbSettings {
    /// With the password in it; never logged.
    pub url: String,
    pub max_connections: u32,
    /// How long to wait for a free connection before the tier counts as away.
    pub acquire_timeout: Duration,
}

/// One database server and the shards that live on it.
pub struct Db {
    pool: AnyPool,
    engine: Engine,
    number: usize,
    shards: Vec<Shard>,
    clock: Clock,
    tasks: TaskTracker,
    /// SQLite takes one writer at a time; waiting here is fair and prompt, its busy handler is neither.
    writers: Option<Semaphore>,
}

impl Db {
    /// Opens the pool; fails only on a bad URL. Connections are made when they are needed.
    ///
    /// `number` tells the servers of a cluster apart.
    pub async fn connect(settings: &DbSettings, number: usize, shards: Vec<Shard>, clock: Clock) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let engine = Engine::of(&settings.url);
        let url = engine.connect_url(&settings.url, STATEMENT_CACHE)?;
        // A URL that says otherwise wants a database that is there.
        if url.query_pairs().any(|(name, value)| name == "mode" && value == "rwc") {
            file::create(url.as_str())?;
        }
        let options = AnyConnectOptions::from_url(&url)?;
        let pool = AnyPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.acquire_timeout)
            .after_connect(move |connection, _| Box::pin(async move { engine.begin_session(connection).await }))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    if connection.cached_statements_size() >= STATEMENTS_PER_CONNECTION {
                        connection.clear_cached_statements().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        let writers = engine.has_one_writer().then(|| Semaphore::new(1));
        Ok(Self { pool, engine, number, shards, clock, tasks: TaskTracker::new(), writers })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Its place among the cluster's servers.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// How many transactions may usefully run side by side.
    pub fn write_lanes(&self) -> usize {
        // Measured on MariaDB with two cores (docs/performance.md): fewer take less processor time, but their
        // commits wait for each other; more only make the groups smaller.
        if self.engine.has_one_writer() { 1 } else { 4 }
    }

    /// SQL for the database's own clock in milliseconds, moved as far as a test has moved ours.
    pub fn now_sql(&self) -> String {
        match self.clock.world() {
            Some(world) => world.database_now().get().to_string(),
            None => format!("({} + {})", self.engine.now_millis(), self.clock.offset_millis()),
        }
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<Millis> {
        let statement = sqlx::AssertSqlSafe(sql::database_clock(self));
        let now: i64 = sqlx::query_scalar(statement).fetch_one(&self.pool).await?;
        Ok(Millis::new(now))
    }

    /// Fails, with the server's own words, where no connection can be made: the pool would try again until its
    /// time is over, and then know only that it is.
    pub async fn check(&self) -> Result<()> {
        let options = self.pool.connect_options();
        let opening = async {
            let mut connection = AnyConnection::connect_with(&options).await?;
            // SQLite looks into its file at the first statement.
            self.engine.begin_session(&mut connection).await?;
            connection.close().await
        };
        let Ok(opened) = tokio::time::timeout(self.pool.options().get_acquire_timeout(), opening).await else {
            return Err(Error::Unavailable(sqlx::Error::PoolTimedOut));
        };
        opened.map_err(|error| {
            let remedy = match error.as_database_error().and_then(|answer| answer.code()).as_deref() {
                Some("28000") => "correct the user in hot.url, or hot.password or hot.password_file",
                Some("42000") => "make it with CREATE DATABASE, or correct hot.url",
                // SQLite: damaged, or no database.
                Some("11" | "26") => {
                    "put a copy of it back, move it away to begin with an empty one, or correct hot.url"
                }
                _ => return error.into(),
            };
            Error::Configuration(format!("{error}; {remedy}"))
        })
    }

    /// Waits for running transactions, then closes the connections.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.pool.close().await;
    }
}
