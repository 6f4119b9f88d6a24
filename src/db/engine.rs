//! What differs between the two SQL engines.
//!
//! The rest of the SQL stays inside what MariaDB 10.6+, MySQL 8.0+, TiDB and SQLite share: no
//! RETURNING, no triggers, no stored code, no foreign keys. Two habits keep it common:
//!
//! - MySQL evaluates the assignments of an UPDATE from left to right and sees the new values,
//!   SQLite sees the old ones. So a column is assigned only after every expression that reads it.
//! - Names and texts are VARBINARY and bound as bytes: no collation folds case, no driver guesses.

use sqlx::AnyConnection;
use url::Url;

use super::{Error, Result};

/// Which SQL engine a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MariaDB, MySQL, TiDB, and what else speaks MySQL's protocol.
    MySql,
    Sqlite,
}

impl Engine {
    pub(super) fn of(url: &str) -> Self {
        if url.starts_with("sqlite:") { Self::Sqlite } else { Self::MySql }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    pub(super) fn has_one_writer(self) -> bool {
        self == Self::Sqlite
    }

    pub(super) fn connect_url(self, url: &str, statements: usize) -> Result<Url> {
        let mut url: Url = url.parse().map_err(|e| Error::Configuration(format!("database url: {e}")))?;
        let wanted = match self {
            Self::MySql => ("statement-cache-capacity", statements.to_string()),
            Self::Sqlite => ("mode", "rwc".to_owned()),
        };
        if !url.query_pairs().any(|(name, _)| name == wanted.0) {
            url.query_pairs_mut().append_pair(wanted.0, &wanted.1);
        }
        Ok(url)
    }

    /// Makes a new connection ready for use.
    pub(super) async fn begin_session(self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        for statement in self.session_statements() {
            sqlx::query(*statement).execute(&mut *connection).await?;
        }
        Ok(())
    }

    fn session_statements(self) -> &'static [&'static str] {
        match self {
            Self::MySql => &[
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION innodb_lock_wait_timeout = 2",
                // MySQL 8 shows sizes of tables as they were up to a day ago unless told not to; to
                // MariaDB this is a comment.
                "SET /*!80003 SESSION information_schema_stats_expiry = 0, */ SESSION time_zone = '+00:00'",
            ],
            // FULL: a commit that was answered is on the disk (I1).
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 10000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA temp_store = MEMORY",
            ],
        }
    }

    /// A plain BEGIN on SQLite takes its lock at the first write, when it is too late to wait for it.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::MySql => "BEGIN",
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// The engine's clock as an expression, in milliseconds since 1970 UTC.
    pub(super) fn now_millis(self) -> &'static str {
        match self {
            Self::MySql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }

    /// The words between an INSERT and the assignments for rows that are there already;
    /// `key` are the columns of the unique key that tells.
    pub fn on_duplicate(self, key: &str) -> String {
        match self {
            Self::MySql => "ON DUPLICATE KEY UPDATE".to_owned(),
            Self::Sqlite => format!("ON CONFLICT ({key}) DO UPDATE SET"),
        }
    }

    /// The value that the INSERT offered for `column`, within [`Engine::on_duplicate`]'s assignments.
    pub fn offered(self, column: &str) -> String {
        match self {
            Self::MySql => format!("VALUES({column})"),
            Self::Sqlite => format!("excluded.{column}"),
        }
    }

    /// Whether the answer to an upsert tells what it did: it counts a row that was there already twice, so that
    /// a count of one a row says that all are new; and it carries what [`Engine::told`] was given.
    pub fn upserts_tell(self) -> bool {
        self == Self::MySql
    }

    /// `number`, which the answer to the statement then carries, where the engine can do so.
    pub fn told(self, number: &str) -> String {
        match self {
            Self::MySql => format!("LAST_INSERT_ID({number})"),
            Self::Sqlite => number.to_owned(),
        }
    }

    /// Stands behind a table in FROM: read it by this index and no other way.
    pub fn with_index(self, index: &str) -> String {
        match self {
            Self::MySql => format!("FORCE INDEX ({index})"),
            Self::Sqlite => format!("INDEXED BY {index}"),
        }
    }

    /// Closes a SELECT that must lock what it read until the transaction ends.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::MySql => "FOR UPDATE",
            // The transaction holds the one write lock already.
            Self::Sqlite => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;
    use crate::db::{Db, DbSettings};

    async fn open(folder: &std::path::Path) -> Db {
        let settings = DbSettings {
            url: format!("sqlite://{}/hot.db", folder.display()),
            max_connections: 1,
            acquire_timeout: std::time::Duration::from_secs(5),
        };
        Db::connect(&settings, 0, Vec::new(), Clock::default()).await.expect("opened")
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_told_with_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("hot.db"), "no database\n".repeat(1000)).expect("written");
        let error = open(folder.path()).await.check().await.expect_err("refused");
        assert!(error.is_permanent() && error.to_string().contains("move it away"), "{error}");
    }

    #[tokio::test]
    async fn sqlite_syncs_every_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = open(folder.path()).await;
        let number = |pragma| sqlx::query_scalar::<_, i64>(pragma).fetch_one(db.pool());
        // 2 is FULL. In WAL mode NORMAL would lose acknowledged commits to a power cut.
        assert_eq!(number("PRAGMA synchronous").await.expect("a number"), 2);
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(db.pool()).await.expect("a mode");
        assert_eq!(mode, "wal");
    }
}
