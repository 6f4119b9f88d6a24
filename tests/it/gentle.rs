//! Purging and expiring wait where the database or its operator asks for it.

use std::time::Duration;

use logtier::clock::Clock;
use logtier::db::{Db, DbSettings, Home};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, finish, home, number, numbered, sql};
use crate::harness::mysql::TestDatabase;
use crate::harness::{ColdStore, Engine, Tiers, on_each_pair};

const HOUR: Duration = Duration::from_secs(3600);

async fn due(daemon: &Daemon, instance: &str) {
    append(&daemon.app, instance, &numbered(instance, 0..50)).await;
    finish(&daemon.app, &daemon.clock, instance).await;
}

async fn chunks(daemon: &Daemon, instance: &str) -> i64 {
    let home = home(&daemon.app, instance);
    number(&home, &format!("SELECT COUNT(*) FROM chunk_{}", home.shard)).await
}

/// Archives twice, since what was archived is purged by the round after; the last report.
async fn archive(daemon: &Daemon) -> Value {
    daemon.archive().await;
    let report = daemon.archive().await;
    assert_eq!(report["failures"], json!([]), "{report}");
    report
}

#[test]
fn while_it_is_paused_nothing_is_purged_and_nothing_expires() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start_at(tiers, &[], Clock::default()).await;
            due(&daemon, "old").await;
            archive(&daemon).await;
            assert_eq!(chunks(&daemon, "old").await, 0);
            daemon.clock.advance(200 * 24 * HOUR);
            due(&daemon, "i").await;

            let pause = daemon.url("/api/v1/purge/pause");
            daemon.send(daemon.client.put(format!("{pause}?reason=backup"))).await.expect(204);
            let status = daemon.get("/status").await.json();
            let why = status["retention"]["purge_paused"].as_str().expect("a reason");
            assert!(why.starts_with("backup (since 20"), "{why}");
            let report = archive(&daemon).await;
            assert_eq!(report["purge_stopped"], json!(format!("paused: {why}")), "{report}");
            assert_eq!((&report["expired"], &report["purged"]), (&json!(0), &json!(0)), "{report}");
            assert_ne!(chunks(&daemon, "i").await, 0);

            daemon.send(daemon.client.delete(&pause)).await.expect(204);
            assert_eq!(daemon.get("/status").await.json()["retention"]["purge_paused"], Value::Null);
            let report = daemon.archive().await;
            assert_eq!((&report["expired"], &report["purge_stopped"]), (&json!(1), &Value::Null), "{report}");
            assert_eq!(chunks(&daemon, "i").await, 0);
            let long = "x".repeat(201);
            daemon.send(daemon.client.put(format!("{pause}?reason={long}"))).await.expect(400);
            daemon.stop().await;
        });
    });
}

#[test]
fn outside_of_the_window_rows_stay() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let clock = Clock::default();
            let time = |ahead: u32| clock.now().after(ahead * HOUR).to_string()[11..16].to_owned();
            let window = format!("{}-{}", time(2), time(4));
            let settings = [("LOGTIER_PURGE__WINDOW", window.as_str()), ("LOGTIER_ARCHIVE__TIMEZONE", "UTC")];
            let daemon = Daemon::start_at(tiers, &settings, clock.clone()).await;
            due(&daemon, "i").await;
            assert_eq!(archive(&daemon).await["purge_stopped"], "it is outside of purge.window");
            assert_ne!(chunks(&daemon, "i").await, 0);
            clock.advance(3 * HOUR);
            assert_eq!(archive(&daemon).await["purge_stopped"], Value::Null);
            assert_eq!(chunks(&daemon, "i").await, 0);
            daemon.stop().await;
        });
    });
}

/// A daemon on MariaDB and a folder, whose lease outlives that its clock is moved.
async fn patient(tiers: &Tiers, settings: &[(&str, &str)]) -> Daemon {
    let settings = [settings, &[("LOGTIER_ARCHIVE__LEASE_TTL", "1h")]].concat();
    Daemon::start_at(tiers, &settings, Clock::default()).await
}

/// Lets a run begin while something holds purging up, looks that it does, and moves the clock beyond its patience.
async fn gives_up(daemon: &Daemon) -> Value {
    let run = daemon.app.archiver.request_run().await.expect("asked for");
    tokio::time::sleep(Duration::from_millis(700)).await;
    let report = daemon.app.archiver.report(run).await.expect("asked").expect("known");
    assert_eq!(report.state, "running", "it waits");
    daemon.clock.advance(Duration::from_secs(31));
    let report = daemon.app.archiver.wait_for(run, HOUR).await.expect("asked").expect("known");
    serde_json::to_value(report).expect("JSON")
}

#[test]
fn lock_waits_hold_purging_up() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::Folder) else { return };
    runtime().block_on(async {
        let daemon = patient(&tiers, &[("LOGTIER_PURGE__MAX_LOCK_WAITS", "0")]).await;
        due(&daemon, "i").await;
        let any = home(&daemon.app, "i");
        sql(&any, "CREATE TABLE probe (a INT PRIMARY KEY)").await;
        sql(&any, "INSERT INTO probe VALUES (1)").await;
        let url = tiers.env().into_iter().find(|(name, _)| name == "LOGTIER_HOT__URL").expect("a database").1;
        let mut holder = MySqlConnection::connect(&url).await.expect("connected");
        sqlx::raw_sql("BEGIN; DELETE FROM probe WHERE a = 1").execute(&mut holder).await.expect("locked");
        let mut waiter = MySqlConnection::connect(&url).await.expect("connected");
        let waiting = tokio::spawn(async move {
            let waits = sqlx::raw_sql("SET innodb_lock_wait_timeout = 60; SELECT * FROM probe WHERE a = 1 FOR UPDATE");
            waits.execute(&mut waiter).await.expect("let through").rows_affected()
        });
        let report = gives_up(&daemon).await;
        let why = report["purge_stopped"].as_str().expect("a reason");
        assert!(why.contains("row locks are being waited for, more than purge.max_lock_waits = 0"), "{why}");
        assert_ne!(chunks(&daemon, "i").await, 0);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.expect("let go");
        waiting.await.expect("it got the lock");
        // Other tests on the same server wait for locks, too, but not for long.
        archive(&daemon).await;
        assert_eq!(chunks(&daemon, "i").await, 0);
        daemon.stop().await;
    });
}

#[test]
fn a_replica_that_is_behind_holds_purging_up() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::Folder) else { return };
    let replica = TestDatabase::create().expect("a second database");
    runtime().block_on(async {
        let settings = DbSettings { url: replica.url().to_owned(), max_connections: 1, acquire_timeout: HOUR };
        let db = Db::connect(&settings, 0, Vec::new(), Clock::default()).await.expect("a URL");
        let copy = Home { db: db.into(), shard: logtier::db::Shard::new(0) };
        let daemon = patient(&tiers, &[("LOGTIER_HOT__REPLICAS", replica.url())]).await;
        due(&daemon, "i").await;
        let report = gives_up(&daemon).await;
        let why = report["purge_stopped"].as_str().expect("a reason").to_owned();
        assert!(why.starts_with("replica 1 of server 0 does not answer: "), "{why}");

        sql(&copy, "CREATE TABLE lease (task VARBINARY(32), owner VARBINARY(64), expires_at BIGINT)").await;
        // As it stood before the run took it.
        sql(&copy, "INSERT INTO lease VALUES ('mover', '', 0)").await;
        let report = gives_up(&daemon).await;
        let why = report["purge_stopped"].as_str().expect("a reason").to_owned();
        assert!(why.starts_with("replica 1 of server 0 is ") && why.contains(" s behind, more than"), "{why}");
        assert_ne!(chunks(&daemon, "i").await, 0);

        let caught_up = daemon.clock.now().after(4 * HOUR).get();
        sql(&copy, &format!("UPDATE lease SET expires_at = {caught_up}")).await;
        assert_eq!(archive(&daemon).await["purge_stopped"], Value::Null);
        assert_eq!(chunks(&daemon, "i").await, 0);
        copy.db.close().await;
        daemon.stop().await;
    });
}
