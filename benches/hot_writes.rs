//! How chunks are written to MariaDB: rows of an INSERT, and prepared statements or text.
//!
//!     MARIADB_DURABLE=1 MARIADB_ARGS=… scripts/mariadb.sh start     prints the URL of a private server
//!     cargo bench --bench hot_writes -- URL/DATABASE RECORDS.ndjson
//!
//! Each way writes the same chunks into an empty table, 64 a transaction, with one connection, and every other round in
//! the opposite order; the median of the rounds counts. docs/performance.md holds the table.

#![allow(clippy::print_stdout, clippy::expect_used, clippy::disallowed_methods, reason = "a measurement")]

use std::fmt::Write as _;
use std::time::Instant;

use logtier::hot::{self, Chunk};
use logtier::ingest::{self, Defaults};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

const CHUNKS_PER_TX: usize = 64;
const ROUNDS: usize = 7;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A prepared statement of so many rows: the binary protocol.
    Binary(usize),
    /// One statement of so many rows as text, payloads in hexadecimal.
    Text(usize),
    /// The transaction as one text of several statements of so many rows: a single round trip.
    OneText(usize),
}

const WAYS: [Way; 8] = [
    Way::Binary(1),
    Way::Binary(4),
    Way::Binary(16),
    Way::Binary(64),
    Way::Text(1),
    Way::Text(16),
    Way::Text(64),
    Way::OneText(64),
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (Some(url), Some(file)) = (args.next(), args.next()) else {
        return println!("hot_writes: wants mysql://USER@HOST:PORT/DATABASE and a file of records");
    };
    let chunks = chunks_of(&std::fs::read(file).expect("a file of NDJSON records"));
    let bytes: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
    println!("{} chunks of {} bytes on average, {CHUNKS_PER_TX} a transaction", chunks.len(), bytes / chunks.len());
    let mut connection = MySqlConnection::connect(&url).await.expect("a server");
    let mut seconds = vec![Vec::new(); WAYS.len()];
    for round in 0..ROUNDS {
        let mut order: Vec<usize> = (0..WAYS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for way in order {
            seconds[way].push(write(&mut connection, &chunks, WAYS[way]).await);
        }
    }
    let medians = seconds.iter_mut().map(|of_way| {
        of_way.sort_by(f64::total_cmp);
        of_way[ROUNDS / 2]
    });
    let medians: Vec<f64> = medians.collect();
    let best = WAYS.iter().position(|way| *way == Way::Binary(64)).expect("is among them");
    for (way, median) in WAYS.iter().zip(&medians) {
        let name = match way {
            Way::Binary(rows) => format!("prepared, {rows} rows"),
            Way::Text(rows) => format!("text, {rows} rows"),
            Way::OneText(rows) => format!("one text, {rows} rows"),
        };
        println!("{name:20} {:8.0} chunks/s  {:.2} x", chunks.len() as f64 / median, medians[best] / median);
    }
}

/// The chunks of the records' instances, as requests of 500 lines make them.
fn chunks_of(records: &[u8]) -> Vec<Chunk> {
    let defaults = Defaults { max_record_bytes: 1 << 20, ..Defaults::default() };
    let lines: Vec<&[u8]> = records.split_inclusive(|byte| *byte == b'\n').collect();
    let batches = lines.chunks(500).flat_map(|some| ingest::decode_bulk(&some.concat(), &defaults).batches);
    batches.flat_map(|batch| hot::encode([&batch.lines]).expect("encoded")).collect()
}

async fn write(connection: &mut MySqlConnection, chunks: &[Chunk], way: Way) -> f64 {
    run(connection, "DROP TABLE IF EXISTS bench_chunk".to_owned()).await;
    let table = "CREATE TABLE bench_chunk (attempt_id BIGINT NOT NULL, first_line BIGINT NOT NULL, \
                 line_count INT NOT NULL, first_ts BIGINT NOT NULL, raw_len INT NOT NULL, hash BIGINT NOT NULL, \
                 data MEDIUMBLOB NOT NULL, PRIMARY KEY (attempt_id, first_line)) ENGINE=InnoDB";
    run(connection, table.to_owned()).await;
    let started = Instant::now();
    for (number, of_tx) in chunks.chunks(CHUNKS_PER_TX).enumerate() {
        let first = (number * CHUNKS_PER_TX) as i64;
        match way {
            Way::OneText(rows) => {
                let inserts = texts(of_tx, first, rows).join("; ");
                run(connection, format!("BEGIN; {inserts}; COMMIT")).await;
            }
            Way::Text(rows) => {
                run(connection, "BEGIN".to_owned()).await;
                for text in texts(of_tx, first, rows) {
                    run(connection, text).await;
                }
                run(connection, "COMMIT".to_owned()).await;
            }
            Way::Binary(rows) => {
                run(connection, "BEGIN".to_owned()).await;
                for (at, some) in of_tx.chunks(rows).enumerate() {
                    prepared(connection, some, first + (at * rows) as i64).await;
                }
                run(connection, "COMMIT".to_owned()).await;
            }
        }
    }
    started.elapsed().as_secs_f64()
}

async fn run(connection: &mut MySqlConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.expect("done");
}

const INSERT: &str =
    "INSERT INTO bench_chunk (attempt_id, first_line, line_count, first_ts, raw_len, hash, data) VALUES ";

async fn prepared(connection: &mut MySqlConnection, chunks: &[Chunk], first: i64) {
    let rows = vec!["(?, ?, ?, ?, ?, ?, ?)"; chunks.len()].join(", ");
    let mut query = sqlx::query(AssertSqlSafe(format!("{INSERT}{rows}")));
    for (at, chunk) in (first..).zip(chunks) {
        query = query.bind(at).bind(0_i64).bind(chunk.line_count).bind(chunk.first_ts.nanos());
        query = query.bind(chunk.raw_len).bind(chunk.hash).bind(chunk.data.as_slice());
    }
    query.execute(connection).await.expect("inserted");
}

fn texts(chunks: &[Chunk], first: i64, rows: usize) -> Vec<String> {
    let of_some = |(some, first): (&[Chunk], i64)| {
        let mut text = INSERT.to_owned();
        for (at, chunk) in (first..).zip(some) {
            let separator = if at == first { "" } else { ", " };
            let (lines, ts, len, hash) = (chunk.line_count, chunk.first_ts.nanos(), chunk.raw_len, chunk.hash);
            write!(text, "{separator}({at}, 0, {lines}, {ts}, {len}, {hash}, X'").expect("a String takes all");
            text.reserve(2 * chunk.data.len() + 2);
            text.extend(chunk.data.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]));
            text.push_str("')");
        }
        text
    };
    chunks.chunks(rows).zip((first..).step_by(rows)).map(of_some).collect()
}

const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
