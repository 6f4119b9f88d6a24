//! What must hold in a database when a daemon has stopped, asked in plain SQL.

use std::collections::HashMap;

use logtier::db::{Db, Shard};
use logtier::model::AttemptState;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

/// Fails the test where a lease is live, or the tables of a server do not fit together.
pub async fn check_server(db: &Db) {
    let mut connection = db.pool().acquire().await.expect("a connection");
    // One look at everything: another daemon may still be writing.
    let begin = if db.engine().as_str() == "mysql" {
        run(&mut connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
        "START TRANSACTION WITH CONSISTENT SNAPSHOT"
    } else {
        "BEGIN"
    };
    run(&mut connection, begin).await;
    no_lease_is_live(&mut connection, db).await;
    let mut entries = HashMap::new();
    for &shard in db.shards() {
        lines_are_covered(&mut connection, shard).await;
        no_row_without_its_attempt(&mut connection, shard).await;
        for row in rows(&mut connection, &format!("SELECT segment_id, COUNT(*) FROM part_{shard} GROUP BY 1")).await {
            *entries.entry(row[0]).or_insert(0) += row[1];
        }
    }
    segments_count_their_parts(&mut connection, entries).await;
    run(&mut connection, "ROLLBACK").await;
}

async fn no_lease_is_live(connection: &mut AnyConnection, db: &Db) {
    let live = format!("SELECT COUNT(*) FROM lease WHERE expires_at > {}", db.now_sql());
    assert_eq!(rows(connection, &live).await[0][0], 0, "a lease is live");
}

/// A run of lines: where it begins, and how many there are.
type Run = (i64, i64);

/// Parts hold the lines below the watermark, chunks those at or above it; no gap, no overlap.
async fn lines_are_covered(connection: &mut AnyConnection, shard: Shard) {
    let mut of_attempts = [HashMap::<i64, Vec<Run>>::new(), HashMap::new()];
    for (table, found) in ["part", "chunk"].iter().zip(&mut of_attempts) {
        let query = format!(
            "SELECT attempt_id, first_line, CAST(line_count AS {INTEGER}) FROM {table}_{shard} \
             WHERE line_count > 0 ORDER BY 1, 2"
        );
        for row in rows(connection, &query).await {
            found.entry(row[0]).or_default().push((row[1], row[2]));
        }
    }
    let [mut parts, mut chunks] = of_attempts;
    let query = format!(
        "SELECT id, CAST(state AS {INTEGER}), next_line, archived_line, purged_line, trimmed_line FROM attempt_{shard}"
    );
    for row in rows(connection, &query).await {
        let [id, state, next, archived, purged, trimmed] = row[..] else { unreachable!() };
        let (parts, chunks) = (parts.remove(&id).unwrap_or_default(), chunks.remove(&id).unwrap_or_default());
        let what = format!("attempt {id} of shard {shard}: parts {parts:?}, chunks {chunks:?}, row {row:?}");
        assert!(chunks.iter().all(|(first, _)| *first >= purged), "a chunk is left below purged_line; {what}");
        if AttemptState::from_code(state).expect("a state").is_gone() {
            assert!(parts.is_empty(), "an attempt that is gone has parts; {what}");
            continue;
        }
        assert_eq!(end_of(&parts, trimmed), Some(archived), "parts do not reach the watermark; {what}");
        let (below, above): (Vec<Run>, Vec<Run>) = chunks.iter().partition(|(first, _)| *first < archived);
        assert_eq!(end_of(&above, archived), Some(next), "chunks do not reach the end; {what}");
        let below_end = below.last().map_or(archived, |(first, count)| first + count);
        assert!(below_end <= archived, "the watermark is inside of a chunk; {what}");
    }
}

/// Where runs that follow each other from `start` on end; `None` where they do not.
fn end_of(runs: &[Run], start: i64) -> Option<i64> {
    runs.iter().try_fold(start, |next, (first, count)| (*first == next).then_some(first + count))
}

async fn no_row_without_its_attempt(connection: &mut AnyConnection, shard: Shard) {
    for table in ["part", "chunk"] {
        let query = format!(
            "SELECT COUNT(*) FROM {table}_{shard} t LEFT JOIN attempt_{shard} a ON a.id = t.attempt_id WHERE a.id IS NULL"
        );
        assert_eq!(rows(connection, &query).await[0][0], 0, "{table}_{shard} has rows of no attempt");
    }
}

/// Every part stands in a live segment, which counts it.
async fn segments_count_their_parts(connection: &mut AnyConnection, mut entries: HashMap<i64, i64>) {
    let query = format!("SELECT id, CAST(state AS {INTEGER}), entries, dead_entries FROM segment");
    for row in rows(connection, &query).await {
        let [id, state, published, dead] = row[..] else { unreachable!() };
        let here = entries.remove(&id).unwrap_or(0);
        assert!(here == 0 || state == 1, "segment {id} is not live and has {here} parts");
        assert_eq!(published - dead, here, "segment {id} counts {published} entries, {dead} dead");
    }
    assert!(entries.is_empty(), "parts of segments that are not there: {entries:?}");
}

/// What both engines call a 64-bit number in a CAST.
const INTEGER: &str = "SIGNED";

async fn run(connection: &mut AnyConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
}

async fn rows(connection: &mut AnyConnection, query: &str) -> Vec<Vec<i64>> {
    let found = sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await;
    let found = found.unwrap_or_else(|error| panic!("{query}: {error}"));
    found.iter().map(|row| (0..row.len()).map(|at| row.get::<i64, _>(at)).collect()).collect()
}
