//! No statement scans a table that grows.
//!
//! A scenario runs every statement on MariaDB against tables of some thousand rows. The server logs each with the
//! number of rows that it looked at, and explains its plan. Both must stay small.

use std::collections::BTreeMap;
use std::time::Duration;

use logtier::app::App;
use logtier::archive::Marked;
use logtier::audit::{Audit, Progress, RebuildSettings, rebuild};
use logtier::catalog::{
    Aside, AsideKind, BatchKey, Catalog, DaemonRow, FinishRequest, Lease, ListFilter, NewSegment, SegmentCursor,
    SegmentId, SweptSegment, batches,
};
use logtier::db::{Db, Home};
use logtier::ingest::Batch;
use logtier::model::{AttemptId, Level, LineRange, Millis};
use logtier::read::{Block, Filter, PageRequest, View};
use regex::Regex;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, batch, declaration, finish, home, messages, numbered, row, sql};
use crate::harness::{ColdStore, Engine, Tiers, note_skip};

/// Rows of each table that grows, in each shard.
const ROWS: u64 = 6_000;

/// What one statement may look at: the longest list has 1,000 rows, some are read again to count or join them.
const MAX_EXAMINED: u64 = 2_100;

/// Statements that look at more: what `status` counts has a bound of its own, which it tells.
const COUNTED: [&str; 2] = ["/* catalog::segment_summary */", "/* catalog::due_summary */"];

/// Tables that stay small whatever is stored: a row a daemon, a task, a fact, a change of rules, a failure.
const SMALL_TABLES: [&str; 7] = ["meta", "lease", "task", "daemon", "rule_set", "finding", "set_aside"];

/// Statements that the scenario does not run, and why.
const NOT_RUN: [(&str, &str); 5] = [
    ("/* catalog::hot_bytes */ SELECT (page_count", "is SQLite's"),
    ("/* db::migrate */", "takes a lock by name, reads no table"),
    ("/* db::set_meta */", "changes one row of meta while migrating"),
    ("/* db::set_meta_once */", "adds a row to meta at the first start"),
    ("/* catalog::hot_size */ SELECT COUNT(*)", "is SQLite's"),
];

/// Plans that read a whole index or table, and why that is right.
const MAY_SCAN: [(&str, &str); 6] = [
    ("/* catalog::lock_waits */", "asks the server for one of its counters"),
    ("/* catalog::hot_bytes */", "asks the server what it knows of its tables"),
    ("/* catalog::runs */", "walks the key from its end, as far as its LIMIT"),
    ("/* catalog::segment_summary */", "counts up to its LIMIT, which its caller keeps small"),
    ("/* catalog::audited_total */", "counts up to its LIMIT"),
    ("/* catalog::hot_size */", "asks the server what it knows of one table"),
];

#[test]
fn no_statement_scans_a_table_that_grows() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::Folder) else { return };
    runtime().block_on(async {
        let url = tiers.env().into_iter().find(|(name, _)| name == "LOGTIER_HOT__URL").expect("a database").1;
        let mut server = MySqlConnection::connect(&url).await.expect("connect");
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut server).await.expect("a version");
        if !version.contains("MariaDB") {
            return note_skip("plans, which are read as MariaDB tells them");
        }
        let settings = [
            ("LOGTIER_HOT__SHARDS", "2"),
            ("LOGTIER_HOT__CONNECTIONS", "4"),
            ("LOGTIER_ARCHIVE__REWRITE_AT", "1%"),
            ("LOGTIER_ARCHIVE__PRESSURE_SIZE", "1TiB"),
        ];
        let daemon = Daemon::start(&tiers, &settings).await;
        fill(&mut server).await;
        let log = Log::begin(&mut server, &daemon).await;
        scenario(&daemon).await;
        let seen = log.end(&mut server).await;
        let mut wrong = Vec::new();
        never_seen(&seen, &mut wrong);
        for logged in seen.values() {
            examine(&mut server, logged, &mut wrong).await;
        }
        assert!(wrong.is_empty(), "{} of {} statements:\n{}", wrong.len(), seen.len(), wrong.join("\n"));
        daemon.stop().await;
    });
}

async fn execute(server: &mut MySqlConnection, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(server).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Years of other instances: two thirds archived, one third hot, all set aside for long.
async fn fill(server: &mut MySqlConnection) {
    execute(server, "CREATE TABLE test_number (n INT PRIMARY KEY)").await;
    let digits = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION \
                  SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    execute(
        server,
        &format!(
            "INSERT INTO test_number SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * d.d \
             FROM {digits} a, {digits} b, {digits} c, {digits} d WHERE a.d + 10 * b.d + 100 * c.d + 1000 * d.d < {ROWS}"
        ),
    )
    .await;
    // Half of the attempts belong to one app, which has fifty jobs; one job is rare.
    let hot = ROWS / 3 * 2;
    let for_each_shard = [
        format!(
            "INSERT INTO attempt_SHARD SELECT n, 900000 + IF(n % 2, 0, n % 20), CONCAT('i', n), 1, \
             IF(n = 3, 900499, 900100 + n % 50), '', 1, 0, 0, 1, 1, 20, IF(n < {hot}, 20, 0), IF(n < {hot}, 20, 0), \
             0, 1000, IF(n < {hot}, 1000, 0), 1, 2, 0, n, n, n, n, 9000000000000 + n, NULL, 1, 0, 9000000000000 + n \
             FROM test_number"
        ),
        format!(
            "INSERT INTO part_SHARD SELECT n, 0, 20, 1 + n DIV 2, 0, 9, 0, 1, 2, 0, '' FROM test_number WHERE n < {hot}"
        ),
        format!("INSERT INTO chunk_SHARD SELECT n, 0, 10, 1, 2, 0, 0, 1, 1, 'x' FROM test_number WHERE n >= {hot}"),
        format!("INSERT INTO chunk_SHARD SELECT n, 10, 10, 1, 2, 0, 0, 1, 1, 'x' FROM test_number WHERE n >= {hot}"),
        "INSERT INTO batch_SHARD SELECT UNHEX(MD5(n)), 1, n, 0, 1, 9000000000000 + n FROM test_number".to_owned(),
    ];
    for statement in for_each_shard {
        for shard in ["00", "01"] {
            execute(server, &statement.replace("SHARD", shard)).await;
        }
    }
    let once = [
        "INSERT INTO name SELECT 900000 + n, IF(n < 20, 1, IF(n < 500, 2, 3)), CONCAT('name ', n) FROM test_number \
         WHERE n < 1000",
        "INSERT INTO name VALUES (900000, 1, 'large'), (901000, 2, 'other')",
        "INSERT INTO segment SELECT n, UNHEX(MD5(n)), 900000, 900600, 1, 1, 'mover', 1, 9, NULL, 5, 7, 5, \
         (SELECT COUNT(*) FROM part_00 WHERE segment_id = n) + (SELECT COUNT(*) FROM part_01 WHERE segment_id = n), \
         0, 20, 0, n, NULL, 2, 20, 0, NULL, NULL, 0, 9000000000000 + n FROM test_number",
        "INSERT INTO run SELECT 9000000000000000 - n, 'd', n, n, '{}' FROM test_number WHERE n < 2000",
    ];
    for statement in once {
        execute(server, statement).await;
    }
    for table in ["attempt_00", "attempt_01", "part_00", "part_01", "chunk_00", "chunk_01", "batch_00", "batch_01"]
        .into_iter()
        .chain(["name", "segment", "run"])
    {
        execute(server, &format!("ANALYZE TABLE {table}")).await;
    }
}

/// The server's log of slow statements, to which the daemon's connections count every one.
struct Log {
    before: (String, i64),
    database: String,
}

/// One statement of each shape, with the most rows that any of its kind looked at.
struct Logged {
    statement: String,
    examined: u64,
}

impl Log {
    async fn begin(server: &mut MySqlConnection, daemon: &Daemon) -> Log {
        let query = "SELECT @@global.log_output AS output, CAST(@@global.slow_query_log AS SIGNED) AS slow, \
                     DATABASE() AS name";
        let now = sqlx::query(query).fetch_one(&mut *server).await.expect("settings");
        execute(server, "SET GLOBAL log_output = 'TABLE', GLOBAL slow_query_log = 1").await;
        let pool = daemon.app.catalog.cluster.servers()[0].pool();
        // All of them at once, so that each is another.
        let mut connections = Vec::new();
        for _ in 0..4 {
            let mut connection = pool.acquire().await.expect("a connection");
            let every =
                "SET SESSION long_query_time = 0, SESSION slow_query_log = 1, SESSION min_examined_row_limit = 0";
            sqlx::raw_sql(every).execute(&mut *connection).await.expect("set");
            // A statement prepared before would be logged without its values.
            connection.clear_cached_statements().await.expect("forgotten");
            connections.push(connection);
        }
        Log { before: (now.get("output"), now.get("slow")), database: now.get("name") }
    }

    async fn end(self, server: &mut MySqlConnection) -> BTreeMap<String, Logged> {
        let query = "SELECT CAST(sql_text AS BINARY) AS sql_text, CAST(rows_examined AS SIGNED) \
                     AS examined FROM mysql.slow_log WHERE db = ? AND sql_text LIKE '/*%'";
        let rows = sqlx::query(query).bind(&self.database).fetch_all(&mut *server).await.expect("the log");
        let (output, slow) = self.before;
        execute(server, &format!("SET GLOBAL log_output = '{output}', GLOBAL slow_query_log = {slow}")).await;
        let values = Regex::new(r"(?s)'(?:[^'\\]|\\.|'')*'|\b\d+\b|\bNULL\b").expect("a pattern");
        let lists = Regex::new(r"(?:[?,() ]|X|_binary|OR a\.app_id = \? AND a\.instance = \? AND a\.attempt = \?){9,}");
        let lists = lists.expect("a pattern");
        let limits = Regex::new(r"(LIMIT|OFFSET) \?").expect("a pattern");
        let mut seen: BTreeMap<String, Logged> = BTreeMap::new();
        let mut without_values = BTreeMap::new();
        for row in rows {
            // A chunk's bytes stand in its INSERT.
            let statement = String::from_utf8_lossy(row.get("sql_text")).into_owned();
            let examined: i64 = row.get("examined");
            let has_values = !values.replace_all(&statement, "").contains('?');
            let shape = values.replace_all(&statement, "?");
            let shape = lists.replace_all(&shape, "(…)").into_owned();
            let examined = examined.unsigned_abs();
            // Prepared now, or before the log began.
            if !has_values {
                let statement = limits.replace_all(&statement, "$1 1").replace('?', "'1'");
                without_values.insert(shape, Logged { statement, examined });
                continue;
            }
            let logged = seen.entry(shape).or_insert(Logged { statement: statement.clone(), examined });
            if examined > logged.examined {
                *logged = Logged { statement, examined };
            }
        }
        for (shape, logged) in without_values {
            seen.entry(shape).or_insert(logged);
        }
        seen
    }
}

/// Every statement that the source holds must have been run, else nothing is known of it.
fn never_seen(seen: &BTreeMap<String, Logged>, wrong: &mut Vec<String>) {
    let begin = Regex::new(r#"/\* [a-z_]+::[a-z_]+ \*/[^"\\{?]*"#).expect("a pattern");
    let mut found = 0;
    let mut files = Vec::new();
    for folder in ["catalog", "hot", "db"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
        let entries = std::fs::read_dir(folder).expect("a source folder").map(|entry| entry.expect("an entry").path());
        files.extend(
            entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sql"))),
        );
    }
    for file in files {
        let source = std::fs::read_to_string(file);
        for begin in begin.find_iter(&source.expect("the source")) {
            found += 1;
            let begin = begin.as_str().trim_end();
            let exempt = NOT_RUN.iter().any(|(name, _)| begin.starts_with(name));
            if !exempt && !seen.values().any(|logged| logged.statement.starts_with(begin)) {
                wrong.push(format!("never run: {begin}"));
            }
        }
    }
    assert!(found > 60, "only {found} statements were found in the source");
}

/// The plan of one statement and the rows it looked at.
async fn examine(server: &mut MySqlConnection, logged: &Logged, wrong: &mut Vec<String>) {
    let Logged { statement, examined } = logged;
    let shown: String = statement.chars().take(200).collect();
    if *examined > MAX_EXAMINED && !COUNTED.iter().any(|name| statement.starts_with(name)) {
        wrong.push(format!("{examined} rows examined: {shown}"));
    }
    if MAY_SCAN.iter().any(|(name, _)| statement.starts_with(name)) {
        return;
    }
    let plan = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {statement}"))).fetch_all(&mut *server).await;
    for step in plan.unwrap_or_else(|error| panic!("explain {shown}: {error}")) {
        let text = |name: &str| step.get::<Option<String>, _>(name).unwrap_or_default();
        let (kind, table, access, extra) = (text("select_type"), text("table"), text("type"), text("Extra"));
        let is_small = SMALL_TABLES.contains(&table.as_str()) || table.starts_with('<') || table.is_empty();
        // Adding rows is called a scan, too.
        if is_small || kind == "INSERT" {
            continue;
        }
        if access == "ALL" || access == "index" {
            wrong.push(format!("{access} on {table} ({extra}): {shown}"));
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Does everything that a daemon does.
async fn scenario(daemon: &Daemon) {
    let app = &daemon.app;
    lives(daemon).await;
    lists(app, daemon.clock.now()).await;
    for &shard in app.catalog.cluster.servers()[0].shards() {
        let home = Home { db: app.catalog.cluster.servers()[0].clone(), shard };
        looks(&app.catalog, &home, daemon.clock.now()).await;
    }
    segments(daemon).await;
    audits(&app.catalog).await;
    brought_back(daemon).await;
    said_of_itself(&app.catalog, &app.catalog.cluster.servers()[0], daemon.clock.now()).await;
}

/// Attempts from their first line until they are forgotten.
async fn lives(daemon: &Daemon) {
    let (app, clock) = (&daemon.app, &daemon.clock);
    for n in 0..40u8 {
        let instance = format!("new {n}");
        let keyed = BatchKey { hash: [n; 16], content: 1 };
        let job = Some(format!("job {}", n % 3).parse().expect("a name"));
        let keyed = Batch { job, batch_key: Some(keyed), ..batch(&instance, numbered(&instance, 0..30)) };
        let both = vec![keyed.clone(), batch(&format!("other {n}"), ["a"])];
        for answer in app.ingest.append_all(both).await {
            answer.expect("stored");
        }
        assert!(app.ingest.append(keyed).await.expect("known").repeated);
        messages(app, &instance).await.expect("readable");
    }
    newest(app).await;
    append(app, "large", &numbered("large", 0..2_000)).await;
    // More chunks than one transaction purges, more bytes than are compared together with others'.
    for n in 0..600 {
        app.ingest.append(batch("long", [format!("{n:02000}")])).await.expect("stored");
    }
    read_with_filters(app, "large").await;
    declare_and_finish(app, clock.now()).await;
    hold_and_delete(app).await;
    assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
    // Its object is rewritten with the next run.
    let gone = crate::harness::logs::key("new 5");
    assert_eq!(app.archiver.delete(&gone.app, &gone.instance, None).await.expect("marked"), Marked::Done);
    append(app, "new 1", &numbered("late", 0..3)).await;
    messages(app, "new 1").await.expect("readable");
    // The silent ones count as finished, an outcome comes late, late lines move; then all of it ends.
    clock.advance(2 * DAY);
    app.catalog.finish(&outcome("new 2", clock.now()), clock.now()).await.expect("finished");
    let report = daemon.archive().await;
    assert_eq!(
        (&report["failures"], report["inferred"].as_u64() > Some(0)),
        (&serde_json::json!([]), true),
        "{report}"
    );
    append(app, "new 2", &numbered("late", 0..3)).await;
    clock.advance(2 * DAY);
    daemon.archive().await;
    clock.advance(200 * DAY);
    assert!(daemon.archive().await["expired"].as_u64() > Some(40));
    clock.advance(800 * DAY);
    let report = daemon.archive().await;
    assert!(report["forgotten"].as_u64() > Some(40), "{report}");
}

/// What the followers of many attempts of a shard are shown.
async fn newest(app: &App) {
    let mut views = Vec::new();
    for n in 0..40 {
        let key = crate::harness::logs::key(&format!("new {n}"));
        views.push(app.reader.open(&key.app, &key.instance, None).await.expect("a view"));
    }
    views.sort_by_key(View::place);
    for some in views.chunk_by(|a, b| a.place() == b.place()) {
        let asked: Vec<_> = some.iter().map(|view| (view, LineRange::new(0, 30))).collect();
        let blocks = app.reader.newest(&asked).await.expect("looked");
        let lines = |blocks: &Vec<Block>| blocks.iter().map(|block| block.lines.len()).sum::<u64>();
        assert!(blocks.iter().all(|blocks| blocks.as_ref().map(lines) == Some(30)), "{blocks:?}");
        let later: Vec<_> = some.iter().map(|view| (view, LineRange::new(0, 31))).collect();
        assert!(app.reader.newest(&later).await.expect("looked").iter().all(Option::is_none));
    }
}

/// Both ways through the outlines of chunks.
async fn read_with_filters(app: &App, instance: &str) {
    let key = crate::harness::logs::key(instance);
    let view = app.reader.open(&key.app, &key.instance, None).await.expect("a view");
    for reverse in [false, true] {
        let filter = Filter { level: Some(Level::Error), ..Filter::default() };
        let request = PageRequest { limit: 10, filter, reverse, ..PageRequest::default() };
        app.reader.page(&view, &request).await.expect("a page");
    }
}

async fn hold_and_delete(app: &App) {
    let (kept, other) = (crate::harness::logs::key("new 3"), crate::harness::logs::key("new 4"));
    for on in [true, false] {
        assert_eq!(app.archiver.hold(&kept.app, &kept.instance, None, on).await.expect("marked"), Marked::Done);
    }
    assert_eq!(app.archiver.delete(&other.app, &other.instance, None).await.expect("marked"), Marked::Done);
    let held = home(app, "new 3");
    let attempt = app.catalog.attempts_of(&kept.app, &kept.instance, 1).await.expect("attempts");
    let found = app.catalog.snapshot(&kept.app, &kept.instance, attempt.first().copied(), LineRange::new(0, 0)).await;
    let id = found.expect("a snapshot").expect("an attempt").attempt.id;
    app.catalog.set_hold(&held, id, true, Millis::ZERO).await.expect("held");
    assert!(!app.catalog.delete(&held, id, Millis::ZERO).await.expect("an answer"), "it is held");
    app.catalog.set_hold(&held, id, false, Millis::ZERO).await.expect("released");
    let job = "job 0".parse().expect("a name");
    app.catalog.newer_runs(&kept.app, &job, AttemptId::stored(1), 5).await.expect("a number");
}

async fn declare_and_finish(app: &App, now: Millis) {
    app.catalog.declare(&declaration("declared", now.after(DAY)), now).await.expect("declared");
    finish(app, &logtier::clock::Clock::default(), "declared").await;
    for n in 0..30 {
        finish(app, &logtier::clock::Clock::default(), &format!("new {n}")).await;
    }
}

fn outcome(instance: &str, now: Millis) -> FinishRequest {
    let outcome = logtier::model::Outcome::from_code(1);
    FinishRequest { declaration: declaration(instance, now), outcome, lines: None, finished_at: None }
}

/// Lists, by every filter; of a catalog that remembers no names.
async fn lists(app: &App, now: Millis) {
    let catalog = Catalog::new(app.catalog.cluster.clone());
    let (large, job) = ("large".parse().expect("a name"), "name 120".parse().expect("a name"));
    let rare = "name 499".parse().expect("a name");
    let filters = [
        ListFilter::default(),
        ListFilter { app: Some(large), ..ListFilter::default() },
        ListFilter { app: Some("large".parse().expect("a name")), job: Some(job), ..ListFilter::default() },
        ListFilter { job: Some(rare), ..ListFilter::default() },
    ];
    for filter in filters {
        catalog.list(&filter, None, 50, now).await.expect("a list");
    }
    catalog.apps("name", 100).await.expect("apps");
    catalog.jobs(&"large".parse().expect("a name"), 100).await.expect("jobs");
    for &shard in app.catalog.cluster.servers()[0].shards() {
        catalog.hot_size(&app.catalog.cluster.servers()[0], shard).await.expect("a size");
    }
    append(app, "seen", &numbered("seen", 0..3)).await;
    let key = crate::harness::logs::key("seen");
    catalog.attempts_of(&key.app, &key.instance, 10).await.expect("attempts");
    catalog.snapshot(&key.app, &key.instance, None, LineRange::new(0, 9)).await.expect("a snapshot");
    catalog.snapshot(&key.app, &key.instance, Some(key.attempt), LineRange::new(0, 9)).await.expect("a snapshot");
    catalog.segments_of(&home(app, "seen"), AttemptId::stored(7), 10).await.expect("segments");
}

/// Looks at the agenda when thousands are due.
async fn looks(catalog: &Catalog, home: &Home, now: Millis) {
    let all = Millis::new(i64::MAX / 2);
    let due = catalog.due(home, all, None, 500).await.expect("due");
    let last = due.last().expect("many are due");
    let cursor = logtier::catalog::DueCursor { due_at: last.due_at, id: last.id };
    assert_eq!(catalog.due(home, all, Some(cursor), 500).await.expect("due").len(), 500);
    catalog.due_summary(home, all, 1_000).await.expect("a summary");
    catalog.next_due(home, now).await.expect("asked");
    // Batch keys that are all too old.
    assert_eq!(batches::forget(home, all, 500).await.expect("forgotten"), 500);
    catalog.lock_waits(&home.db).await.expect("asked").expect("MariaDB knows it");
    let lease = Lease::take(&home.db, "look", "test", DAY).await.expect("asked").expect("free");
    assert!(catalog.replica_lag(&home.db, &home.db, &lease).await.expect("asked").is_zero());
    lease.renew(&home.db, DAY).await.expect("renewed");
    for kind in [AsideKind::Attempt, AsideKind::Object] {
        let (what, reason) = ("what".to_owned(), "why".to_owned());
        let (id, shard) = (last.id.get(), home.shard.number());
        let aside = Aside { kind, id, shard, what, reason, failures: 1, first_at: now, last_at: now, next_at: now };
        catalog.set_object_aside(&home.db, &aside).await.expect("set aside");
        catalog.set_attempt_aside(home, &lease, aside, last.due_at).await.expect("set aside");
    }
    assert_eq!(catalog.list_aside(&home.db, None, 1_000).await.expect("a list").len(), 2);
    assert_eq!(catalog.count_aside(&home.db, 1_000).await.expect("a number"), 2);
    assert_eq!(catalog.retry_aside(&home.db, now).await.expect("tried again"), 2);
    for kind in [AsideKind::Attempt, AsideKind::Object] {
        catalog.no_longer_aside(&home.db, kind, last.id.get()).await.expect("mended");
    }
    lease.release(&home.db).await.expect("released");
}

/// Objects, when thousands are due to be swept.
async fn segments(daemon: &Daemon) {
    let (catalog, now) = (&daemon.app.catalog, daemon.clock.now());
    let db = &catalog.cluster.servers()[0];
    let lease = Lease::take(db, "look", "test", DAY).await.expect("asked").expect("free");
    let new = || NewSegment { ulid: daemon.clock.new_ulid(), app_id: 1, rule_id: 1, finish_day: 1, abandoned_at: now };
    let id: SegmentId = catalog.plan_segment(db, &lease, new(), now).await.expect("planned");
    assert!(catalog.doom_upload(db, id, now).await.expect("doomed"));
    let due = catalog.due_segments(db, Millis::new(i64::MAX / 2), 1_000).await.expect("due");
    for swept in due.iter().filter(|swept| swept.segment.id == id || swept.segment.finish_day == 1).take(3) {
        catalog.doom_segment(db, &swept.segment, now).await.expect("asked");
        catalog.postpone_segment(db, swept, now, 1).await.expect("put off");
        catalog.forget_segment(db, swept.segment.id).await.expect("forgotten");
    }
    let is_live = |swept: &&SweptSegment| swept.segment.state == logtier::catalog::SegmentState::Live;
    let some = due.iter().find(is_live).expect("one is live").segment.id;
    let home = Home { db: db.clone(), shard: db.shards()[0] };
    catalog.parts_in(&home, some, None, 1_000).await.expect("parts");
    let live = &due.iter().find(is_live).expect("one is live").segment;
    assert!(!catalog.doom_segment(db, live, now).await.expect("asked"), "it has entries");
    catalog.segment_summary(db, 1_000).await.expect("a summary");
    searched(catalog, db, some).await;
    lease.release(db).await.expect("released");
}

/// A rebuild finds an attempt whose part moved, then one that the catalog does not know.
async fn brought_back(daemon: &Daemon) {
    let app = &daemon.app;
    // Whatever else is due moves before, so that the attempt has an object of its own.
    daemon.clock.advance(2 * DAY);
    daemon.archive().await;
    append(app, "back", &numbered("back", 0..20)).await;
    finish(app, &daemon.clock, "back").await;
    daemon.clock.advance(DAY);
    assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
    let (home, id) = (home(app, "back"), row(app, "back").await.id);
    let shard = home.shard;
    let object = app.catalog.segments_of(&home, id, 1).await.expect("an object")[0].id.get();
    let moves = [
        format!("DELETE FROM segment WHERE id = {object}"),
        format!("UPDATE part_{shard} SET segment_id = 7 WHERE attempt_id = {}", id.get()),
        "UPDATE segment SET entries = entries + 1 WHERE id = 7".to_owned(),
    ];
    let losses = [
        format!("DELETE FROM segment WHERE id = {object}"),
        format!("DELETE FROM part_{shard} WHERE attempt_id = {}", id.get()),
        format!("DELETE FROM attempt_{shard} WHERE id = {}", id.get()),
    ];
    for statements in [moves, losses] {
        for statement in statements {
            assert_eq!(sql(&home, &statement).await, 1, "{statement}");
        }
        let audit = Audit { catalog: app.catalog.clone(), store: app.store.clone(), clock: daemon.clock.clone() };
        let rules = std::sync::Arc::new(daemon.rules().clone());
        let cluster_id = home.db.meta("cluster").await.expect("asked").expect("an id");
        let settings = RebuildSettings { rules, cluster_id, dry_run: false };
        let done = rebuild(&audit, &settings, &Progress::default(), |_| {}).await.expect("brought back");
        assert_eq!((done.parts, done.lines), (1, 20), "{done:?}");
    }
    assert_eq!(messages(app, "back").await.expect("readable"), numbered("back", 0..20));
    app.catalog.trim_to_parts(&home, id).await.expect("asked");
}

/// What `verify` asks, of an app whose objects all stand in one folder.
async fn audits(catalog: &Catalog) {
    let db = &catalog.cluster.servers()[0];
    for app_id in [None, Some(900_000)] {
        catalog.audited_total(db, app_id, 0, 1_000).await.expect("a total");
    }
    let folder = catalog.next_folder(db, 900_000, (0, 0)).await.expect("asked").expect("a folder");
    catalog.next_folder(db, 900_000, folder).await.expect("asked");
    let page = catalog.folder_segments(db, 900_000, folder, None, 1_000).await.expect("objects");
    let last = page.last().expect("many").segment.id;
    assert!(!catalog.folder_segments(db, 900_000, folder, Some(last), 1_000).await.expect("objects").is_empty());
    catalog.audited_segment(db, last).await.expect("asked");
    let page = catalog.segments_after(db, 1_000, 100).await.expect("objects");
    let found_at = Millis::new(1);
    let finding = logtier::catalog::FindingRow {
        segment: page[0].segment.id,
        kind: "missing".to_owned(),
        name: "v1/x".to_owned(),
        what: "gone".to_owned(),
        hit: 1,
        found_at,
    };
    catalog.put_finding(db, &finding).await.expect("noted");
    assert_eq!(catalog.findings(db, 10).await.expect("findings").first(), Some(&finding));
    catalog.forget_finding(db, finding.segment).await.expect("forgotten");
    catalog.forget_findings(db, found_at).await.expect("forgotten");
    for &shard in db.shards() {
        let home = Home { db: db.clone(), shard };
        catalog.part_spots(&home, last).await.expect("parts");
        catalog.attempts_in(&home, last, 5).await.expect("attempts");
        for app_id in [None, Some(900_000)] {
            let page = catalog.attempts_before(&home, app_id, AttemptId::stored(3_000), 64).await.expect("attempts");
            let mut ids: Vec<_> = page.iter().map(|attempt| attempt.id).collect();
            ids.sort_unstable();
            catalog.part_spans(&home, &ids, 10, 4_096).await.expect("spans");
            logtier::hot::spans(&home, &ids, 10, 4_096).await.expect("spans");
        }
    }
}

/// What a search over everything asks, beyond the first page.
async fn searched(catalog: &Catalog, db: &std::sync::Arc<Db>, some: SegmentId) {
    let (large, before) = ("large".parse().expect("an app"), AttemptId::stored(5_500));
    catalog.list_hot(Some(&large), Some(before)).await.expect("a page");
    catalog.list_hot(None, None).await.expect("a page");
    for app in [None, Some(&large)] {
        let (_, next) = catalog.live_segments(db, app, SegmentCursor::START).await.expect("a page");
        catalog.live_segments(db, app, next.expect("there are more")).await.expect("a page");
    }
    assert!(catalog.is_live(db, some).await.expect("asked"));
}

async fn said_of_itself(catalog: &Catalog, db: &std::sync::Arc<Db>, now: Millis) {
    db.ping().await.expect("it answers");
    db.meta("schema").await.expect("meta");
    let daemon = DaemonRow { name: "d".into(), rules: "r".into(), version: "v".into(), started_at: now, seen_at: now };
    catalog.heartbeat(db, &daemon).await.expect("noted");
    catalog.daemons(db, Millis::ZERO).await.expect("daemons");
    catalog.forget_daemons(db, "d", Millis::ZERO).await.expect("forgotten");
    catalog.task_ended(db, "test", now, Some("error")).await.expect("noted");
    catalog.tasks(db).await.expect("tasks");
    catalog.leases(db).await.expect("leases");
    let runs = catalog.runs(db, None, 100).await.expect("runs");
    catalog.runs(db, Some(runs[0].id), 1).await.expect("one run");
    catalog.forget_runs(db, Millis::new(9_000_000_000_000_000 - 1_900)).await.expect("forgotten");
    let names = Catalog::new(catalog.cluster.clone());
    names.name_of(db, 900_020).await.expect("a name");
}
