//! What a database can answer, sorted by what the caller does next.

use sqlx::error::ErrorKind;

/// An error of the hot tier's database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke: the tier is away (503), not empty.
    #[error("database is not reachable")]
    Unavailable(#[source] sqlx::Error),
    /// Deadlock, lock wait timeout, or a row that changed under us: run the transaction again.
    #[error("database transaction lost a race")]
    Contended(#[source] sqlx::Error),
    /// A row with this key is there already.
    #[error("duplicate key")]
    Duplicate(#[source] sqlx::Error),
    /// A statement failed for a reason that trying again will not mend.
    #[error("database statement failed")]
    Statement(#[source] sqlx::Error),
    /// A row holds what no version of logtier writes.
    #[error("unreadable row: {0}")]
    Row(String),
    /// A change to one row changed another number of rows.
    #[error("{statement}: {rows} rows changed, expected {expected}")]
    RowCount { statement: &'static str, rows: u64, expected: u64 },
    /// The settings and the database do not fit together.
    #[error("{0}")]
    Configuration(String),
}

impl Error {
    /// Whether the same transaction may succeed when it is run again at once.
    pub fn is_contended(&self) -> bool {
        matches!(self, Self::Contended(_))
    }

    /// Whether there is no room left for what was to be written.
    pub fn is_full(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        let text = error.to_string();
        ["is full", "No space left"].iter().any(|words| text.contains(words))
    }

    /// Whether trying again later cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Contended(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(answer) => {
                let message = answer.message().to_owned();
                match (answer.kind(), answer.code().as_deref().unwrap_or("")) {
                    (ErrorKind::UniqueViolation, _) => Self::Duplicate(error),
                    // MySQL's SQLSTATEs: 40001 deadlock; HY000 carries 1205 and 1020 in the message.
                    (_, "40001") => Self::Contended(error),
                    // SQLite's busy and its extended codes: busy_recovery, busy_snapshot, busy_timeout.
                    (_, "5" | "261" | "517" | "773") => Self::Contended(error),
                    // SQLite: disk I/O error, disk full, cannot open. They pass when there is room again.
                    (_, "10" | "13" | "14") => Self::Unavailable(error),
                    _ if is_lock_wait(&message) => Self::Contended(error),
                    // MySQL is shutting down, full, or read-only: it may be well again soon.
                    (_, "08S01" | "08004" | "70100") => Self::Unavailable(error),
                    _ if is_passing_trouble(&message) => Self::Unavailable(error),
                    _ => Self::Statement(error),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::RowNotFound => {
                Self::Row(error.to_string())
            }
            _ => Self::Statement(error),
        }
    }
}

/// 1205 and 1020, which share their SQLSTATE with everything else.
fn is_lock_wait(message: &str) -> bool {
    message.contains("Lock wait timeout exceeded") || message.contains("Record has changed since last read")
}

/// A full disk or table, a server that is stopping, one that was made read-only for a failover.
fn is_passing_trouble(message: &str) -> bool {
    ["is full", "Server shutdown", "read-only", "Too many connections", "No space left", "has gone away"]
        .iter()
        .any(|trouble| message.contains(trouble))
}
