//! What a page of an archived log costs while the catalog grows.
//!
//!     MARIADB_ARGS=… scripts/mariadb.sh start       prints the URL of a private server
//!     cargo bench --bench catalog_rows -- URL/DATABASE [MOST_ROWS]
//!
//! A daemon in this process archives a few logs into a temporary folder; then their rows are copied under other names, until
//! there are 10,000, 100,000 … archived attempts. Each time the pages of the real logs are read over HTTP, and the
//! rows of random others are looked up. docs/performance.md holds the table.

#![allow(clippy::print_stdout, clippy::expect_used, clippy::disallowed_methods, reason = "a measurement")]

use std::time::{Duration, Instant};

use logtier::app::{self, App};
use logtier::clock::Clock;
use logtier::config::{Config, Env};
use logtier::model::{App as AppName, Instance, LineRange};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

const LOGS: usize = 400;
const LOOKUPS: usize = 2_000;
/// A statement of this many rows holds its locks for some seconds; nobody else is there.
const COPIED_AT_ONCE: u64 = 100_000;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(url) = args.next() else { return println!("catalog_rows: wants mysql://USER@HOST:PORT/DATABASE") };
    let most: u64 = args.next().map_or(10_000_000, |rows| rows.parse().expect("a number of rows"));
    let folder = std::env::temp_dir().join(format!("logtier-catalog-rows-{}", std::process::id()));
    let app = start(&url, &folder).await;
    let api = format!("http://{}/api/v1", app.address);
    let client = reqwest::Client::new();
    archive(&client, &api).await;
    let mut connection = MySqlConnection::connect(&url).await.expect("a server");
    println!("archived attempts | page, first / again (median, 90 %) | row of a random attempt (median, 90 %)");
    let (mut rows, mut copies) = (10_000, 0);
    while rows <= most {
        copies = copy(&mut connection, &app, rows, copies).await;
        let first = pages(&client, &api).await;
        let again = pages(&client, &api).await;
        let lookup = lookups(&app, copies).await;
        println!("{rows:>17} | {} / {} | {}", shown(first), shown(again), shown(lookup));
        rows *= 10;
    }
    app.shut_down().await;
    std::fs::remove_dir_all(folder).expect("removed");
}

async fn start(url: &str, folder: &std::path::Path) -> App {
    logtier::cold::install_crypto_provider();
    let cold = format!("file://{}/cold", folder.display());
    let settings = [
        ("LOGTIER_DATA_DIR", folder.to_str().expect("UTF-8")),
        ("LOGTIER_SERVER__LISTEN", "127.0.0.1:0"),
        ("LOGTIER_HOT__URL", url),
        ("LOGTIER_COLD__URL", &cold),
        ("LOGTIER_COLD__SHARED", "true"),
        ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s"),
        ("LOGTIER_ARCHIVE__PURGE_GRACE", "0s"),
        ("LOGTIER_ARCHIVE__SCHEDULE", "0 0 1 1 *"),
    ];
    let env: Env = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    std::fs::create_dir_all(folder.join("cold")).expect("a folder");
    let config = Config::load(None, &env).unwrap_or_else(|problems| panic!("{problems}"));
    app::start(&config, Clock::default()).await.expect("a daemon")
}

fn log(number: usize) -> String {
    // Among the copies, in the order of names.
    format!("{:07}-log", number * 1_543)
}

async fn archive(client: &reqwest::Client, api: &str) {
    for number in 0..LOGS {
        let records =
            |line| format!("{{\"ts\":{},\"message\":\"line {line} of {number}\"}}\n", 1_767_225_600_000_u64 + line);
        let url = format!("{api}/apps/default/instances/{}", log(number));
        let body: String = (0..14).map(records).collect();
        post(client, &format!("{url}/records"), "application/x-ndjson", body).await;
        post(client, &format!("{url}/finish"), "application/json", "{\"outcome\":\"succeeded\"}".to_owned()).await;
    }
    post(client, &format!("{api}/archive?wait=60"), "application/json", "{}".to_owned()).await;
}

async fn post(client: &reqwest::Client, url: &str, kind: &str, body: String) {
    let answer = client.post(url).header("content-type", kind).body(body).send().await.expect("an answer");
    let status = answer.status();
    assert!(status.is_success(), "{url}: {status} {}", answer.text().await.unwrap_or_default());
}

/// Copies the rows of one archived attempt of each shard until there are so many in all; answers how many
/// copies a shard has.
async fn copy(connection: &mut MySqlConnection, app: &App, rows: u64, copies: u64) -> u64 {
    let shards = app.catalog.cluster.shard_count() as u64;
    let wanted = (rows - LOGS as u64) / shards;
    for shard in 0..shards {
        for from in (copies..wanted).step_by(COPIED_AT_ONCE as usize) {
            let until = (from + COPIED_AT_ONCE).min(wanted) - 1;
            for (table, names) in [("attempt", vec!["id", "instance"]), ("part", vec!["attempt_id"])] {
                let columns = columns(connection, &format!("{table}_{shard:02}")).await;
                let value = |column: &String| match column.as_str() {
                    "instance" => format!("CONCAT(LPAD(seq, 7, '0'), '-{shard:02}')"),
                    name if names.contains(&name) => format!("t.{name} - 100000000000 + seq"),
                    name => format!("t.{name}"),
                };
                let values: Vec<String> = columns.iter().map(value).collect();
                let template = match table {
                    "attempt" => {
                        format!("SELECT * FROM attempt_{shard:02} WHERE instance LIKE '%-log' ORDER BY id LIMIT 1")
                    }
                    _ => format!(
                        "SELECT p.* FROM part_{shard:02} p JOIN attempt_{shard:02} a ON a.id = p.attempt_id \
                         WHERE a.instance LIKE '%-log' ORDER BY a.id LIMIT 1"
                    ),
                };
                let statement = format!(
                    "INSERT INTO {table}_{shard:02} ({}) SELECT {} FROM ({template}) t JOIN seq_{from}_to_{until}",
                    columns.join(", "),
                    values.join(", ")
                );
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await.expect("copied");
            }
        }
    }
    wanted
}

async fn columns(connection: &mut MySqlConnection, table: &str) -> Vec<String> {
    let query = "SELECT CAST(column_name AS CHAR) FROM information_schema.columns WHERE table_schema = DATABASE() \
                 AND table_name = ? ORDER BY ordinal_position";
    sqlx::query_scalar(query).bind(table).fetch_all(connection).await.expect("columns")
}

async fn pages(client: &reqwest::Client, api: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..LOGS {
        let started = Instant::now();
        let url = format!("{api}/apps/default/instances/{}/records", log(number));
        let answer = client.get(&url).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
        let page = answer.bytes().await.expect("a page");
        times.push(started.elapsed());
        assert!(page.windows(4).any(|bytes| bytes == b"line"), "an empty page");
    }
    times
}

/// Rows and parts of copies, of all shards in turn.
async fn lookups(app: &App, copies: u64) -> Vec<Duration> {
    let (name, all): (AppName, _) = ("default".parse().expect("an app"), LineRange::new(0, i64::MAX as u64));
    let (mut times, mut number) = (Vec::new(), 0_u64);
    while times.len() < LOOKUPS {
        // Steps through all numbers in an order that jumps.
        number = (number + 7_368_787) % copies;
        let shard = (0..app.catalog.cluster.shard_count()).find(|shard| {
            let instance: Instance = format!("{number:07}-{shard:02}").parse().expect("an instance");
            usize::from(app.catalog.cluster.home(&name, &instance).shard.number()) == *shard
        });
        let Some(shard) = shard else { continue };
        let instance: Instance = format!("{number:07}-{shard:02}").parse().expect("an instance");
        let started = Instant::now();
        let found = app.catalog.snapshot(&name, &instance, None, all).await.expect("an answer");
        times.push(started.elapsed());
        assert_eq!(found.expect("a copy").parts.len(), 1);
    }
    times
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e3;
    format!("{:.2}, {:.2} ms", at(50), at(90))
}
