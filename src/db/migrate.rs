//! Brings a database to the schema of this build, or refuses it.
//!
//! A migration is one file of `migrations/` with one statement: MySQL commits each DDL statement by
//! itself, so a file of two could stop between them. A file that names `{shard}` is run once for
//! each shard of the server. Migrations only add; each can be run again after a crash.

use super::{Connection, Db, Error, Result, sql};

macro_rules! migrations {
    ($($file:literal),* $(,)?) => {
        /// In order; the first has number 1.
        const MIGRATIONS: &[&str] = &[$(include_str!(concat!("../../migrations/", $file, ".sql"))),*];
    };
}

migrations![
    "0001_meta",
    "0002_lease",
    "0003_task",
    "0004_run",
    "0005_daemon",
    "0006_name",
    "0007_segment",
    "0008_segment_due",
    "0009_attempt",
    "0010_attempt_due",
    "0011_attempt_app",
    "0012_attempt_job",
    "0013_chunk",
    "0014_batch",
    "0015_batch_seen",
    "0016_part",
    "0017_part_segment",
    "0018_attempt_any_job",
    "0019_segment_folder",
    "0020_rule_set",
    "0021_segment_day",
    "0022_segment_app",
    "0023_finding",
    "0024_set_aside",
];

/// The number of the last migration; a database with a higher one belongs to a newer logtier.
pub const SCHEMA_VERSION: usize = MIGRATIONS.len();

impl Db {
    /// Creates or completes the tables of this server's shards.
    ///
    /// `total_shards` is that of the whole cluster, fixed at the first start. Fails when the
    /// database was made with another number, for other shards, or by a newer version.
    pub async fn migrate(&self, total_shards: usize) -> Result<()> {
        let mut connection = self.pool().acquire().await?;
        self.lock_migrations(&mut connection).await?;
        let result = self.migrate_locked(&mut connection, total_shards).await;
        self.unlock_migrations(&mut connection, result.is_ok()).await?;
        result
    }

    /// The number of the last migration that was done here; 0 for a database without our tables, and
    /// for a file that is not there.
    pub async fn schema(&self) -> Result<usize> {
        let mut connection = match self.pool().acquire().await.map_err(Error::from) {
            Ok(connection) => connection,
            Err(Error::Unavailable(error)) if is_no_file(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        match meta(&mut connection, "schema").await {
            Ok(found) => schema_number(found),
            Err(Error::Statement(error)) if is_no_table(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Looks whether this server has the tables of this version, for these shards, and changes nothing.
    pub async fn check_schema(&self, total_shards: usize) -> Result<()> {
        let fixed = [("shards", total_shards.to_string()), ("server_shards", self.shard_range())];
        let done = self.schema().await?;
        if done == 0 {
            return Err(Error::Configuration(
                "the database has no tables of logtier: check hot.url, or run `logtier rebuild-catalog` if the \
                 database was lost"
                    .to_owned(),
            ));
        }
        let mut connection = self.pool().acquire().await?;
        for (key, wanted) in fixed {
            match meta(&mut connection, key).await? {
                Some(found) if found == wanted => {}
                found => return Err(other_shards(key, &found.unwrap_or_default(), &wanted)),
            }
        }
        match done.cmp(&SCHEMA_VERSION) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(newer_schema(done)),
            std::cmp::Ordering::Less => Err(Error::Configuration(format!(
                "the database has schema {done}, this logtier needs {SCHEMA_VERSION}: run `logtier migrate` first"
            ))),
        }
    }

    async fn migrate_locked(&self, connection: &mut Connection, total_shards: usize) -> Result<()> {
        execute(connection, MIGRATIONS[0].to_owned()).await?;
        self.check_fixed(connection, "shards", &total_shards.to_string()).await?;
        self.check_fixed(connection, "server_shards", &self.shard_range()).await?;
        let done = schema_number(meta(connection, "schema").await?)?;
        if done > SCHEMA_VERSION {
            return Err(newer_schema(done));
        }
        for migration in MIGRATIONS.iter().skip(done) {
            self.apply(connection, migration).await?;
        }
        if done < SCHEMA_VERSION {
            set_meta(self, connection, "schema", &SCHEMA_VERSION.to_string()).await?;
            tracing::info!(db.schema = SCHEMA_VERSION, "database schema is ready");
        }
        Ok(())
    }

    async fn apply(&self, connection: &mut Connection, migration: &str) -> Result<()> {
        if !migration.contains("{shard}") {
            return execute(connection, migration.to_owned()).await;
        }
        for shard in self.shards() {
            execute(connection, migration.replace("{shard}", &shard.to_string())).await?;
        }
        Ok(())
    }

    /// Stores a value at the first start and insists on it ever after.
    async fn check_fixed(&self, connection: &mut Connection, key: &str, wanted: &str) -> Result<()> {
        match meta(connection, key).await? {
            None => set_meta(self, connection, key, wanted).await,
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(other_shards(key, &found, wanted)),
        }
    }

    fn shard_range(&self) -> String {
        let numbers = || self.shards().iter().map(|shard| shard.number());
        format!("{}-{}", numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
    }

    /// sqlx's own lock asks MariaDB for an endless GET_LOCK, gets NULL and goes on without it.
    async fn lock_migrations(&self, connection: &mut Connection) -> Result<()> {
        match self.engine() {
            super::Engine::Sqlite => execute(connection, "BEGIN IMMEDIATE".to_owned()).await,
            super::Engine::MySql => {
                let got: i64 = sqlx::query_scalar(sql::take_migration_lock()).fetch_one(&mut *connection).await?;
                if got == 1 {
                    return Ok(());
                }
                Err(Error::Configuration("another daemon has been migrating this database for a minute".to_owned()))
            }
        }
    }

    async fn unlock_migrations(&self, connection: &mut Connection, done: bool) -> Result<()> {
        match self.engine() {
            super::Engine::Sqlite if done => execute(connection, "COMMIT".to_owned()).await,
            super::Engine::Sqlite => execute(connection, "ROLLBACK".to_owned()).await,
            super::Engine::MySql => {
                let _: i64 = sqlx::query_scalar(sql::release_migration_lock()).fetch_one(&mut *connection).await?;
                Ok(())
            }
        }
    }

    /// Reads one fact that the database keeps of itself.
    pub async fn meta(&self, key: &str) -> Result<Option<String>> {
        let mut connection = self.pool().acquire().await?;
        meta(&mut connection, key).await
    }

    /// Stores a fact, whatever stood there.
    pub async fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        let mut connection = self.pool().acquire().await?;
        set_meta(self, &mut connection, key, value).await
    }

    /// Stores a fact unless there is one; answers with the one that stands.
    pub async fn meta_or_insert(&self, key: &str, value: &str) -> Result<String> {
        let mut connection = self.pool().acquire().await?;
        let insert = sqlx::query(sql::insert_meta()).bind(key.as_bytes()).bind(value.as_bytes());
        match insert.execute(&mut *connection).await.map_err(Error::from) {
            Ok(_) => Ok(value.to_owned()),
            Err(Error::Duplicate(_)) => {
                let found = meta(&mut connection, key).await?;
                found.ok_or_else(|| Error::Row(format!("meta {key} vanished")))
            }
            Err(error) => Err(error),
        }
    }
}

async fn meta(connection: &mut Connection, key: &str) -> Result<Option<String>> {
    let found: Option<Vec<u8>> =
        sqlx::query_scalar(sql::meta()).bind(key.as_bytes()).fetch_optional(connection).await?;
    found.map(|v| String::from_utf8(v).map_err(|_| Error::Row(format!("meta {key} is no text")))).transpose()
}

async fn set_meta(db: &Db, connection: &mut Connection, key: &str, value: &str) -> Result<()> {
    let statement = sqlx::AssertSqlSafe(sql::upsert_meta(db));
    sqlx::query(statement).bind(key.as_bytes()).bind(value.as_bytes()).execute(connection).await?;
    Ok(())
}

/// 0 for a database without tables.
fn schema_number(found: Option<String>) -> Result<usize> {
    let Some(version) = found else { return Ok(0) };
    version.parse().map_err(|_| Error::Row(format!("meta schema \"{version}\"")))
}

fn newer_schema(found: usize) -> Error {
    Error::Configuration(format!(
        "the database has schema {found}, this logtier knows {SCHEMA_VERSION}: start the newer logtier that made it"
    ))
}

fn other_shards(key: &str, found: &str, wanted: &str) -> Error {
    Error::Configuration(format!(
        "the database was created with {key} = {found}, the configuration says {wanted}: \
         the number of shards is fixed at creation, so set it back to what the database has"
    ))
}

/// SQLite's "unable to open database file".
fn is_no_file(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(answer) if answer.code().as_deref() == Some("14"))
}

fn is_no_table(error: &sqlx::Error) -> bool {
    let text = error.to_string();
    text.contains("no such table") || text.contains("doesn't exist")
}

/// Runs one statement; an index that is there already was made by a start that crashed.
async fn execute(connection: &mut Connection, statement: String) -> Result<()> {
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection).await {
        Err(sqlx::Error::Database(answer)) if is_there_already(answer.message()) => Ok(()),
        result => result.map(drop).map_err(Error::from),
    }
}

fn is_there_already(message: &str) -> bool {
    message.contains("Duplicate key name") || message.contains("already exists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_one_statement() {
        for migration in MIGRATIONS {
            let code: Vec<&str> = migration.lines().filter(|line| !line.starts_with("--")).collect();
            assert!(!code.join("\n").contains(';'), "{migration}");
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).expect("the folder");
        assert_eq!(files.count(), SCHEMA_VERSION, "a file of migrations/ is not in the list");
    }
}
