//! The one truth of what is where: attempts, parts, segments, and who may move them.
//!
//! For each attempt the catalog says which lines exist and in which tier. A reader takes all of
//! that in one SELECT ([`Catalog::snapshot`]); the archiver changes it in transactions that begin
//! with its fence ([`Lease::assert_held`]). Everything else in logtier may be forgotten and
//! rebuilt from here, and here from the bucket.
//!
//! Invariant: a daemon caches nothing of this but the numbers of names, which never change.
//! Invariant: absence is never cached, not even for one request.

mod aside;
mod attempts;
mod audit;
pub mod batches;
mod declare;
mod lease;
mod list;
mod load;
mod names;
mod parts;
mod publish;
mod rebuild;
mod rebuild_rows;
mod reserve;
mod retire;
mod rewrite;
mod rules;
mod runs;
mod scrub;
mod search;
mod segments;
mod snapshot;
mod sql;
mod sql_aside;
mod sql_audit;
mod sql_publish;
mod sql_rebuild;
mod sql_rewrite;
mod sql_rules;
mod sql_search;

use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, Row};

pub use aside::{Aside, AsideKind};
pub use attempts::{Attempt, DueCursor, Seen};
pub use audit::{AuditedSegment, FolderPlace, PartSpot, Span};
pub use batches::BatchKey;
pub use declare::{Declaration, DeclareError, FinishRequest};
pub use lease::Lease;
pub use list::{HotSize, ListFilter, ListPage, Listed};
pub use names::{Kind, Names};
pub use parts::Part;
pub use publish::{NewEntry, PublishTimes, Published};
pub use rebuild::{BroughtBack, FoundEntry, FoundSegment, IsReplaced};
pub use reserve::{NaturalKey, Reserve, ReserveError, Reserved, create_or_lock, find, reserve};
pub use rewrite::{MovedPart, PartKey};
pub use rules::{NewAge, RuleSetRow};
pub use runs::{DAEMON_LIVES, DaemonRow, LeaseRow, RunRow, TaskState};
pub use scrub::FindingRow;
pub use search::SegmentCursor;
pub use segments::{NewSegment, Sealed, Segment, SegmentId, SegmentState, SweptSegment};
pub use snapshot::{MAX_PARTS, Snapshot};

use crate::db::{Cluster, Error, Result, TxError};

/// The catalog of all servers.
#[derive(Clone)]
pub struct Catalog {
    pub cluster: Cluster,
    names: Arc<Names>,
}

impl Catalog {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, names: Arc::default() }
    }
}

/// Why a transaction of the mover ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another daemon has it now: stop, and leave what was begun to the sweeper.
    #[error("the lease was lost to another daemon")]
    Lost,
    #[error(transparent)]
    Db(#[from] Error),
}

impl TxError for LeaseError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_contended())
    }
}

type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

fn column<'r, T>(row: &'r AnyRow, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, Any> + sqlx::Type<Any>,
{
    row.try_get(name).map_err(Error::from)
}

/// A number that is never below zero.
fn count(row: &AnyRow, name: &str) -> Result<u64> {
    let number: i64 = column(row, name)?;
    u64::try_from(number).map_err(|_| Error::Row(format!("{name} = {number}")))
}

fn text(row: &AnyRow, name: &str) -> Result<String> {
    String::from_utf8(column(row, name)?).map_err(|_| Error::Row(format!("{name} is no text")))
}

fn bytes<const N: usize>(row: &AnyRow, name: &str) -> Result<[u8; N]> {
    let bytes: &[u8] = column(row, name)?;
    bytes.try_into().map_err(|_| Error::Row(format!("{name} has {} bytes", bytes.len())))
}

/// Rows of one statement at most: 64 rows of the widest table (28 columns) stay well below
/// SQLite's 32,766 placeholders, and seven sizes keep the statement caches small.
const MAX_ROWS: usize = 64;

/// Cuts a list into pieces of 64, 32, … 1, so that few different statements are prepared.
fn in_powers_of_two<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = 1 << rows.len().checked_ilog2()?;
        let (piece, rest) = rows.split_at(size.min(MAX_ROWS));
        rows = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_once() {
        for rows in 0..300usize {
            let all: Vec<usize> = (0..rows).collect();
            let pieces: Vec<&[usize]> = in_powers_of_two(&all).collect();
            assert_eq!(pieces.concat(), all);
            assert!(pieces.iter().all(|piece| piece.len().is_power_of_two() && piece.len() <= MAX_ROWS));
        }
    }
}
