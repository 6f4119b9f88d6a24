//! Logs for tests: names, records and batches, and the way to read them back.

use logtier::app::App;
use logtier::catalog::{Attempt, Declaration, FinishRequest};
use logtier::clock::Clock;
use logtier::db::Home;
use logtier::hot::Lines;
use logtier::ingest::Batch;
use logtier::model::{AttemptKey, AttemptNo, Labels, LineRange, Millis, Record, Timestamp};
use logtier::read::{ReadError, Tiers};

/// The first attempt of an instance of the app `a`.
pub fn key(instance: &str) -> AttemptKey {
    AttemptKey { app: "a".parse().unwrap(), instance: instance.parse().unwrap(), attempt: AttemptNo::FIRST }
}

pub fn record(message: &str) -> Record<'_> {
    Record {
        ts: Timestamp::from_nanos(1_800_000_000_000_000_000),
        level: None,
        source: "w".into(),
        message: message.into(),
        attrs: None,
        raw: None,
        partial: false,
    }
}

pub fn lines<M: AsRef<str>>(messages: impl IntoIterator<Item = M>) -> Lines {
    let mut lines = Lines::default();
    for message in messages {
        lines.push(&record(message.as_ref()), None);
    }
    lines
}

pub fn batch<M: AsRef<str>>(instance: &str, messages: impl IntoIterator<Item = M>) -> Batch {
    Batch {
        key: key(instance),
        job: None,
        labels: Labels::default(),
        lines: lines(messages),
        batch_key: None,
        at_line: None,
    }
}

/// Messages of different lengths that name their instance and line.
pub fn numbered(instance: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("{instance} line {n} {}", "x".repeat(n % 200))).collect()
}

/// Appends in batches of 100 lines, one after the other.
pub async fn append(app: &App, instance: &str, messages: &[String]) {
    for some in messages.chunks(100) {
        app.ingest.append(batch(instance, some)).await.expect("stored");
    }
}

pub async fn finish(app: &App, clock: &Clock, instance: &str) {
    let now = clock.now();
    let declaration = declaration(instance, now);
    app.catalog
        .finish(&FinishRequest { declaration, outcome: None, lines: None, finished_at: None }, now)
        .await
        .expect("finished");
}

pub fn declaration(instance: &str, idle_at: Millis) -> Declaration {
    Declaration { key: key(instance), job: None, labels: Labels::default(), started_at: None, idle_at }
}

/// The bytes of all records of a range, which must come without gap or repeat, and the tiers they came from.
pub async fn read_range(app: &App, instance: &str, range: LineRange) -> Result<(Vec<u8>, Tiers), ReadError> {
    let key = key(instance);
    let view = app.reader.open(&key.app, &key.instance, None).await?;
    let mut lines = app.reader.lines(&view, range);
    let (mut next, mut bytes) = (range.start(), Vec::new());
    while let Some(block) = lines.next().await? {
        assert_eq!(block.lines.start(), next, "{instance}: the line numbers have a gap or a repeat");
        assert_eq!(block.records().count() as u64, block.lines.len());
        next = block.lines.end();
        bytes.extend_from_slice(&block.records);
    }
    let end = range.intersect(view.attempt.lines()).end();
    assert_eq!(next, end.max(range.start()), "{instance}: the stream ended early");
    Ok((bytes, lines.touched()))
}

/// All messages of an instance.
pub async fn messages(app: &App, instance: &str) -> Result<Vec<String>, ReadError> {
    let (bytes, _) = read_range(app, instance, LineRange::new(0, u64::MAX)).await?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|json| Ok(Record::parse_json(json)?.message.into_owned())).collect()
}

/// Which tiers a read of everything asks.
pub async fn tiers(app: &App, instance: &str) -> &'static str {
    read_range(app, instance, LineRange::new(0, u64::MAX)).await.expect("readable").1.as_str()
}

/// The attempt's row, whatever its state.
pub async fn row(app: &App, instance: &str) -> Attempt {
    let key = key(instance);
    app.reader.show(&key.app, &key.instance, None).await.expect("a row").attempt
}

pub fn home(app: &App, instance: &str) -> Home {
    let key = key(instance);
    app.catalog.cluster.home(&key.app, &key.instance)
}

/// Runs SQL behind the daemon's back; `{…}` of the text is up to the caller. Answers the rows changed.
pub async fn sql(home: &Home, statement: &str) -> u64 {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(home.db.pool()).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
}

/// One number out of the database.
pub async fn number(home: &Home, query: &str) -> i64 {
    let found = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(home.db.pool()).await;
    found.unwrap_or_else(|error| panic!("{query}: {error}"))
}
