//! A lost or restored database and the bucket give back every archived attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use logtier::app::{self, App};
use logtier::archive::Marked;
use logtier::audit::{Audit, Finding, Progress, RebuildSettings, RebuildSummary, rebuild};
use logtier::clock::Clock;
use logtier::config::Config;
use logtier::ingest::Batch;
use logtier::model::{Labels, LineRange};
use logtier::pairing::{self, PairingError};
use logtier::read::ReadError;

use crate::harness::daemon::{AT_ONCE, Daemon, config, runtime};
use crate::harness::logs::{append, batch, finish, key, messages, numbered, read_range, row};
use crate::harness::{ColdStore, Engine, Tiers, on_each_pair};

const SETTINGS: [(&str, &str); 1] = [("LOGTIER_ARCHIVE__OBJECT_SIZE", "4KiB")];

/// What a reader can know of an instance.
#[derive(Debug, PartialEq)]
struct Known {
    /// How many bytes, and their hash.
    lines: Result<(usize, u64), String>,
    row: Option<String>,
}

const ALL: [&str; 7] = ["plain", "large", "silent", "held", "deleted", "window", "late"];

async fn known(app: &App) -> BTreeMap<&'static str, Known> {
    let mut all = BTreeMap::new();
    for instance in ALL {
        let lines = read_range(app, instance, LineRange::new(0, u64::MAX)).await;
        let lines =
            lines.map(|(bytes, _)| (bytes.len(), logtier::cold::segment::content_hash(&bytes))).map_err(|error| {
                match error {
                    ReadError::NeverLogged => "never logged".to_owned(),
                    error => format!("{error:?}").split_whitespace().next().unwrap_or_default().to_owned(),
                }
            });
        let row = match lines.is_ok() {
            true => {
                let row = row(app, instance).await;
                let job = app.catalog.cluster.home(&key(instance).app, &key(instance).instance);
                let job = app.catalog.optional_name::<logtier::model::Job>(&job.db, row.job_id).await.expect("a name");
                Some(format!(
                    "{:?} {job:?} {:?} {:?} {:?} held {} lines {} {} {} bytes {} ts {:?} {:?} {:?} {:?} {:?} {:?}",
                    row.id,
                    row.labels,
                    row.state,
                    row.outcome,
                    row.held,
                    row.next_line,
                    row.archived_line,
                    row.trimmed_line,
                    row.raw_bytes,
                    row.first_ts,
                    row.last_ts,
                    row.levels,
                    row.created_at,
                    row.finished_at,
                    row.expires_at
                ))
            }
            false => None,
        };
        all.insert(instance, Known { lines, row });
    }
    all
}

/// A life of some days: archived, partly deleted, partly held, partly rewritten.
async fn live(daemon: &Daemon) {
    let (app, clock) = (&daemon.app, &daemon.clock);
    let labels = Labels::new([("k".to_owned(), "v".to_owned())].into()).unwrap();
    let job = Some("nightly".parse().unwrap());
    app.ingest.append(Batch { job, labels, ..batch("plain", numbered("plain", 0..50)) }).await.expect("stored");
    append(app, "large", &numbered("large", 0..3_000)).await;
    append(app, "window", &numbered("window", 0..40)).await;
    for instance in ["held", "deleted", "late"] {
        append(app, instance, &numbered(instance, 0..30)).await;
    }
    for instance in ["plain", "large", "silent", "held", "deleted", "late"] {
        finish(app, clock, instance).await;
    }
    assert_eq!(app.archiver.hold(&key("held").app, &key("held").instance, None, true).await.unwrap(), Marked::Done);
    assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
    let gone = key("deleted");
    assert_eq!(app.archiver.delete(&gone.app, &gone.instance, None).await.unwrap(), Marked::Done);
    // A second window, and lines after the end.
    append(app, "window", &numbered("window", 40..80)).await;
    append(app, "late", &numbered("late", 30..60)).await;
    clock.advance(Duration::from_secs(25 * 3600));
    append(app, "window", &numbered("window", 80..81)).await;
    clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
}

/// Takes all rows away, as if the database were new. Its file or server stays.
async fn lose_database(tiers: &Tiers, config: &Config) {
    let cluster = app::open_hot_tier(config, &Clock::default()).await.expect("open");
    for db in cluster.servers() {
        let mut tables: Vec<String> = ["lease", "task", "run", "daemon", "name", "segment"].map(str::to_owned).into();
        for shard in db.shards() {
            tables.extend(["attempt", "chunk", "batch", "part"].map(|name| shard.table(name)));
        }
        for table in tables {
            let delete = format!("DELETE FROM {table}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(delete)).execute(db.pool()).await.expect("emptied");
        }
        sqlx::raw_sql("DELETE FROM meta WHERE k = 'cluster'").execute(db.pool()).await.expect("emptied");
    }
    cluster.close().await;
    let _ = tiers;
}

async fn run(config: &Config, clock: &Clock, dry_run: bool) -> (RebuildSummary, Vec<Finding>) {
    let (catalog, store) = app::open_and_migrate(config, clock).await.expect("open");
    let cluster_id = pairing::adopt(&catalog, &store, dry_run).await.expect("one cluster");
    if !dry_run {
        pairing::begin_rebuild(&catalog, clock).await.expect("no daemon is alive");
    }
    let rules = Arc::new(config.retention.rules.clone());
    let settings = RebuildSettings { rules, cluster_id: cluster_id.clone(), dry_run };
    let audit = Audit { catalog, store, clock: clock.clone() };
    let mut found = Vec::new();
    let summary = rebuild(&audit, &settings, &Progress::default(), |finding| found.push(finding.clone())).await;
    if !dry_run {
        pairing::end_rebuild(&audit.catalog, &audit.store, &cluster_id).await.expect("noted");
    }
    audit.catalog.cluster.close().await;
    (summary.expect("both tiers answer"), found)
}

#[test]
fn an_empty_database_and_the_bucket_give_back_everything() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let settings = [SETTINGS[0], ("LOGTIER_RETENTION__DEFAULT__MAX_OPEN_FOR", "1d")];
            let config = config(tiers, &settings);
            let daemon = Daemon::start(tiers, &settings).await;
            let clock = daemon.clock.clone();
            live(&daemon).await;
            let before = known(&daemon.app).await;
            assert!(before["deleted"].lines.is_err() && before["window"].lines.is_ok(), "{before:?}");
            daemon.stop().await;
            lose_database(tiers, &config).await;
            let (dry, _) = run(&config, &clock, true).await;
            let (done, found) = run(&config, &clock, false).await;
            assert_eq!(found, [], "{done:?}");
            assert!(done.lines >= 3_000 && dry.lines >= done.lines && done.held == 1, "{dry:?} {done:?}");
            let (again, _) = run(&config, &clock, false).await;
            assert_eq!((again.parts, again.attempts, again.lines), (0, 0, 0), "{again:?}");
            let daemon = Daemon::start_at(tiers, &settings, clock.clone()).await;
            let mut after = known(&daemon.app).await;
            // Deleted: gone, or, where its bytes have left the bucket, unknown.
            assert!(after.remove("deleted").unwrap().lines.is_err());
            for (instance, after) in after {
                assert_eq!(after, before[instance], "{instance}");
            }
            // It lives on: new lines follow, and the archiver finds nothing wrong.
            append(&daemon.app, "late", &numbered("late", 60..70)).await;
            assert_eq!(messages(&daemon.app, "late").await.unwrap(), numbered("late", 0..70));
            clock.advance(Duration::from_secs(26 * 3600));
            assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
            assert_eq!(messages(&daemon.app, "late").await.unwrap(), numbered("late", 0..70));
            daemon.stop().await;
        });
    });
}

#[test]
fn killed_in_the_middle_it_is_run_again() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let settings = [SETTINGS[0], ("LOGTIER_RETENTION__DEFAULT__MAX_OPEN_FOR", "1d")];
            let config = config(tiers, &settings);
            let daemon = Daemon::start(tiers, &settings).await;
            let clock = daemon.clock.clone();
            live(&daemon).await;
            let before = known(&daemon.app).await;
            daemon.stop().await;
            lose_database(tiers, &config).await;
            kill_after_the_first_object(tiers, &config, &settings).await;
            let refused = app::start(&config, clock.clone()).await.err().expect("half a catalog answers nothing");
            assert!(format!("{refused:#}").contains("run `logtier rebuild-catalog` again"), "{refused:#}");
            let (done, found) = run(&config, &clock, false).await;
            assert!(found.is_empty() && done.parts_known > 0 && done.parts > 0, "{found:?} {done:?}");
            let daemon = Daemon::start_at(tiers, &settings, clock).await;
            let mut after = known(&daemon.app).await;
            assert!(after.remove("deleted").unwrap().lines.is_err());
            for (instance, after) in after {
                assert_eq!(after, before[instance], "{instance}");
            }
            daemon.stop().await;
        });
    });
}

/// A real process, really killed.
async fn kill_after_the_first_object(tiers: &Tiers, config: &Config, settings: &[(&str, &str)]) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_logtier"));
    command.arg("rebuild-catalog").envs(tiers.env()).envs(AT_ONCE).envs(settings.iter().copied());
    command.env("LOGTIER_PAUSE_AFTER", "rebuild-object").stdout(std::process::Stdio::null());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("start logtier");
    let cluster = app::open_hot_tier(config, &Clock::default()).await.expect("open");
    for tries in 0.. {
        let objects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM segment")
            .fetch_one(cluster.servers()[0].pool())
            .await
            .expect("a number");
        if objects > 0 {
            break;
        }
        assert!(tries < 1_200 && child.try_wait().expect("asked").is_none(), "it brought nothing back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.close().await;
    child.kill().expect("kill it");
    child.wait().expect("it is gone");
}

/// The database of yesterday, and the bucket of today: what moved, was rewritten, held or deleted
/// since is as it was today.
#[test]
fn an_older_backup_and_the_bucket_give_back_the_newer_state() {
    let tiers = Tiers::new(Engine::Sqlite, ColdStore::Folder).expect("SQLite is always there");
    runtime().block_on(async {
        let settings = [
            SETTINGS[0],
            ("LOGTIER_RETENTION__DEFAULT__MAX_OPEN_FOR", "1d"),
            ("LOGTIER_RETENTION__ERASE_WITHIN", "0s"),
            ("LOGTIER_ARCHIVE__DOOMED_FOR", "0s"),
        ];
        let config = config(&tiers, &settings);
        let daemon = Daemon::start(&tiers, &settings).await;
        let clock = daemon.clock.clone();
        for instance in ["plain", "held", "deleted", "late"] {
            append(&daemon.app, instance, &numbered(instance, 0..20)).await;
        }
        for instance in ["deleted", "late"] {
            finish(&daemon.app, &clock, instance).await;
        }
        daemon.archive().await;
        daemon.stop().await;
        let backup = tempfile::tempdir().expect("a folder");
        copy_database(tiers.folder(), backup.path());
        // The rest of the day: everything moves, an object is rewritten, a log goes, a log is held.
        let daemon = Daemon::start_at(&tiers, &settings, clock.clone()).await;
        append(&daemon.app, "large", &numbered("large", 0..1_000)).await;
        append(&daemon.app, "late", &numbered("late", 20..40)).await;
        append(&daemon.app, "plain", &numbered("plain", 20..50)).await;
        let archiver = &daemon.app.archiver;
        let (gone, held) = (key("deleted"), key("held"));
        assert_eq!(archiver.delete(&gone.app, &gone.instance, None).await.unwrap(), Marked::Done);
        assert_eq!(archiver.hold(&held.app, &held.instance, None, true).await.unwrap(), Marked::Done);
        for instance in ["plain", "held", "large", "silent"] {
            finish(&daemon.app, &clock, instance).await;
        }
        for _ in 0..3 {
            assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
            clock.advance(Duration::from_secs(60));
        }
        let before = known(&daemon.app).await;
        daemon.stop().await;
        copy_database(backup.path(), tiers.folder());
        let (done, found) = run(&config, &clock, false).await;
        assert!(found.is_empty() && done.deleted == 1 && done.held == 1, "{found:?} {done:?}");
        let daemon = Daemon::start_at(&tiers, &settings, clock.clone()).await;
        let after = known(&daemon.app).await;
        for (instance, after) in after {
            assert_eq!(after, before[instance], "{instance}");
        }
        for _ in 0..3 {
            assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
            clock.advance(Duration::from_secs(3600));
        }
        assert_eq!(known(&daemon.app).await["large"].lines, before["large"].lines);
        daemon.stop().await;
    });
}

fn copy_database(from: &std::path::Path, to: &std::path::Path) {
    for name in ["hot.db", "hot.db-wal", "hot.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

#[test]
fn a_rebuild_is_refused_beside_daemons_and_on_another_clusters_database() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let config = config(tiers, &[]);
            let daemon = Daemon::start(tiers, &[]).await;
            append(&daemon.app, "plain", &numbered("plain", 0..5)).await;
            let alive =
                pairing::begin_rebuild(&daemon.app.catalog, &daemon.clock).await.expect_err("a daemon is alive");
            assert!(alive.to_string().contains("stop them first"), "{alive}");
            // The refused one leaves no trace: the next daemon starts.
            daemon.stop().await;
            let daemon = Daemon::start(tiers, &[]).await;
            let store = daemon.app.store.clone();
            let cluster = store.get(&logtier::cold::Key::cluster()).await.unwrap();
            store
                .put(&logtier::cold::Key::cluster(), br#"{"cluster":"x","created_by":"y"}"#.to_vec().into())
                .await
                .unwrap();
            let other = pairing::adopt(&daemon.app.catalog, &store, false).await.expect_err("another cluster");
            assert!(matches!(other, PairingError::Mismatch { .. }), "{other}");
            assert!(other.to_string().contains("check hot.url and cold.url"), "{other}");
            daemon.stop().await;
            let refused = app::start(&config, Clock::default()).await.err().expect("another cluster");
            assert!(format!("{refused:#}").contains("check hot.url and cold.url"), "{refused:#}");
            // An empty database takes the bucket's id over, in a rebuild and never by itself.
            lose_database(tiers, &config).await;
            for _ in 0..2 {
                let refused = app::start(&config, Clock::default()).await.err().expect("another cluster");
                assert!(format!("{refused:#}").contains("run `logtier rebuild-catalog`"), "{refused:#}");
            }
            run(&config, &Clock::default(), false).await;
            Daemon::start(tiers, &[]).await.stop().await;
            store.put(&logtier::cold::Key::cluster(), cluster).await.unwrap();
        });
    });
}

#[test]
fn an_object_that_comes_back_gives_its_lines_back() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let config = config(tiers, &SETTINGS);
            let daemon = Daemon::start(tiers, &SETTINGS).await;
            let clock = daemon.clock.clone();
            append(&daemon.app, "late", &numbered("late", 0..30)).await;
            finish(&daemon.app, &clock, "late").await;
            daemon.archive().await;
            append(&daemon.app, "late", &numbered("late", 30..60)).await;
            daemon.archive().await;
            let store = daemon.app.store.clone();
            daemon.stop().await;
            lose_database(tiers, &config).await;
            let listed: Vec<_> = store.list("v1/app=a/").try_collect().await.expect("a listing");
            let first = listed.iter().map(|object| &object.key).min().expect("two objects");
            let bytes = store.get(first).await.expect("read");
            store.delete(first).await.expect("taken away");
            let (done, _) = run(&config, &clock, false).await;
            assert_eq!((done.lines, done.attempts_cut), (30, 1), "{done:?}");
            store.put(first, bytes).await.expect("put back");
            let (done, _) = run(&config, &clock, false).await;
            assert_eq!((done.lines, done.parts_known, done.attempts_cut), (30, 1, 0), "{done:?}");
            let daemon = Daemon::start_at(tiers, &SETTINGS, clock).await;
            assert_eq!(messages(&daemon.app, "late").await.unwrap(), numbered("late", 0..60));
            daemon.stop().await;
        });
    });
}
