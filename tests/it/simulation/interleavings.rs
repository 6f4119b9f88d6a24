//! Interleavings that have names: each met one of the rules that make the move safe.
//!
//! Two daemons, one attempt, and a stop at the one point that matters. Every answer is checked by
//! the model, and at the end the tables and the bucket must fit (`settle`).

use std::sync::Arc;

use logtier::archive::ArchiveSettings;
use logtier::model::Millis;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use sqlx::AssertSqlSafe;

use super::daemon::Place;
use super::driver::{Driver, Want};
use super::model::{Name, Violation};
use super::settle::{end_of_days, settle};
use super::world::{Fate, Stop};
use super::{BEGINNING, Template, ages, bucket, daemon, runtime, settings};
use crate::harness::mysql::TestDatabase;
use crate::harness::s3;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn at(point: &str) -> Stop {
    Stop::At(point.to_owned())
}

fn name() -> Name {
    ("i".to_owned(), 1)
}

/// Plays a scene on SQLite and memory, and on MariaDB and S3.
fn scene(play: impl AsyncFn(&mut Driver) -> Result<(), Violation>) {
    scenes(&[""], async |driver, _| play(driver).await);
}

/// The same for each of some points, the first also on MariaDB and S3: making its tables takes a second.
fn scenes(points: &[&str], play: impl AsyncFn(&mut Driver, &str) -> Result<(), Violation>) {
    let template = Template::new();
    for (number, point) in points.iter().enumerate() {
        let play = async |driver: &mut Driver| play(driver, point).await;
        one(&template.copy(&number.to_string()), Arc::new(InMemory::new()), &play);
    }
    let play = async |driver: &mut Driver| play(driver, points[0]).await;
    let Some(database) = TestDatabase::create() else { return };
    crate::harness::block_on_elsewhere(daemon::migrate(database.url()));
    let (place, _server) = s3::place_for_a_test();
    one(database.url(), Arc::new(place.store()), &play);
}

fn one(database_url: &str, objects: Arc<dyn ObjectStore>, play: &impl AsyncFn(&mut Driver) -> Result<(), Violation>) {
    logtier::cold::install_crypto_provider();
    runtime().block_on(async {
        let fate = Fate::new(1, Millis::new(BEGINNING));
        let objects = bucket(objects, &fate).await;
        // Whatever is due is built at once.
        let settings = ArchiveSettings { max_delay: std::time::Duration::ZERO, ..settings() };
        let place = Place { database_url: database_url.to_owned(), objects, settings };
        let mut driver = Driver::new(place, fate, 2, ages()).await;
        let mut played = play(&mut driver).await;
        if played.is_ok() {
            played = settle(&mut driver).await;
        }
        if played.is_ok() {
            played = end_of_days(&mut driver, ages().cold_for).await;
        }
        if let Err(violation) = played {
            panic!("{}\n{violation}", Vec::from(std::mem::take(&mut driver.trace)).join("\n"));
        }
        driver.close().await;
    });
}

/// Three batches of a finished attempt that are due.
async fn due(driver: &mut Driver) -> Result<(), Violation> {
    for _ in 0..3 {
        write(driver, 0, &name()).await?;
    }
    driver.finish(0, &name(), None, None, Stop::Never).await?;
    driver.advance(2 * HOUR, &[]).await
}

async fn write(driver: &mut Driver, daemon: usize, name: &Name) -> Result<usize, Violation> {
    let id = driver.new_batch(name, &[10, 20, 30], true, None);
    driver.append(daemon, &[id], Stop::Never).await?;
    Ok(id)
}

async fn read_all(driver: &mut Driver) -> Result<(), Violation> {
    for daemon in 0..2 {
        for name in driver.model.names() {
            driver.read(daemon, &name, Want::All, Stop::Never).await?;
        }
    }
    Ok(())
}

async fn number(driver: &Driver, query: &str) -> i64 {
    let db = &driver.daemon(1).catalog.cluster.servers()[0];
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(db.pool()).await.expect("a number")
}

/// How many objects there are in a state: 0 uploading, 1 live, 2 doomed.
async fn segments(driver: &Driver, state: u8) -> i64 {
    number(driver, &format!("SELECT COUNT(*) FROM segment WHERE state = {state}")).await
}

/// The first daemon's run stands at a point while its lease runs out, and the second does the work.
async fn overtaken_at(driver: &mut Driver, point: &str, pause: i64) -> Result<(), Violation> {
    due(driver).await?;
    assert!(!driver.run(0, at(point)).await?, "nothing came to {point}");
    driver.advance(pause, &[0]).await?;
    assert!(driver.run(1, Stop::Never).await?);
    assert_eq!(segments(driver, 1).await, 1 + i64::from(point == "end catalog::make_live"));
    read_all(driver).await?;
    driver.go_on(0, Stop::Never).await?;
    read_all(driver).await
}

#[test]
fn an_upload_that_stood_still_past_the_sweep_harms_nobody() {
    scene(async |driver| {
        // Its row is doomed after a day; the bytes come after that.
        overtaken_at(driver, "begin PUT sim/v1/app=a", 30 * HOUR).await?;
        assert_eq!((segments(driver, 0).await, segments(driver, 1).await, segments(driver, 2).await), (0, 1, 1));
        Ok(())
    });
}

#[test]
fn a_zombie_publishes_nothing_wherever_it_stood() {
    scenes(&["after plan", "after build", "after verify", "begin catalog::make_live"], async |driver, point| {
        overtaken_at(driver, point, 2 * MINUTE).await?;
        assert_eq!(segments(driver, 1).await, 1);
        Ok(())
    });
}

#[test]
fn a_fence_taken_inside_a_publish_lets_no_part_through() {
    scene(async |driver| {
        // Live, and nothing published of it: the sweeper looks after a day.
        overtaken_at(driver, "end catalog::make_live", 2 * MINUTE).await?;
        assert_eq!(number(driver, "SELECT COUNT(*) FROM segment WHERE state = 1 AND entries = 0").await, 1);
        driver.advance(25 * HOUR, &[]).await?;
        driver.run(1, Stop::Never).await?;
        assert_eq!(segments(driver, 1).await, 1);
        read_all(driver).await
    });
}

#[test]
fn a_fence_taken_inside_a_publish_stops_it_though_nobody_did_its_work() {
    scene(async |driver| {
        due(driver).await?;
        driver.run(0, at("end catalog::make_live")).await?;
        driver.advance(2 * MINUTE, &[0]).await?;
        // The successor has the lease and has done nothing yet.
        driver.run(1, at("after claim")).await?;
        driver.go_on(0, Stop::Never).await?;
        assert_eq!(number(driver, "SELECT (SELECT COUNT(*) FROM part_00) + (SELECT COUNT(*) FROM part_01)").await, 0);
        read_all(driver).await?;
        driver.go_on(0, Stop::Never).await?;
        read_all(driver).await
    });
}

#[test]
fn a_zombie_purges_nothing() {
    scene(async |driver| {
        due(driver).await?;
        driver.run(0, Stop::Never).await?;
        driver.advance(HOUR, &[]).await?;
        assert!(!driver.run(0, at("begin archive::purge")).await?, "nothing was purged");
        driver.advance(2 * MINUTE, &[0]).await?;
        assert!(driver.run(1, at("begin archive::purge")).await.is_ok_and(|over| !over));
        read_all(driver).await?;
        driver.go_on(0, Stop::Never).await?;
        read_all(driver).await
    });
}

#[test]
fn what_the_hot_tier_does_not_confirm_is_never_published() {
    scene(async |driver| {
        due(driver).await?;
        driver.run(0, at("after build")).await?;
        let change = async |driver: &Driver, by: i64| {
            let db = &driver.daemon(1).catalog.cluster.servers()[0];
            for shard in db.shards() {
                let change = format!("UPDATE chunk_{shard} SET hash = hash + {by} WHERE hash <> 0");
                sqlx::raw_sql(AssertSqlSafe(change)).execute(db.pool()).await.expect("changed");
            }
        };
        // The object is as it was built; the rows say that it should be another.
        change(driver, 1).await;
        driver.go_on(0, Stop::Never).await?;
        assert_eq!(segments(driver, 1).await, 0);
        change(driver, -1).await;
        read_all(driver).await
    });
}

#[test]
fn an_attempt_deleted_between_plan_and_publish_gets_no_part() {
    scenes(&["after plan", "after build", "after verify", "end catalog::make_live"], async |driver, point| {
        due(driver).await?;
        driver.run(0, at(point)).await?;
        driver.delete(1, &name(), Stop::Never).await?;
        driver.go_on(0, Stop::Never).await?;
        read_all(driver).await?;
        assert_eq!(number(driver, "SELECT (SELECT COUNT(*) FROM part_00) + (SELECT COUNT(*) FROM part_01)").await, 0);
        Ok(())
    });
}

#[test]
fn a_line_that_comes_between_plan_and_publish_is_not_lost() {
    scenes(
        &["after plan", "begin PUT", "after build", "after verify", "end catalog::make_live"],
        async |driver, point| {
            due(driver).await?;
            driver.run(0, at(point)).await?;
            write(driver, 1, &name()).await?;
            driver.go_on(0, Stop::Never).await?;
            read_all(driver).await?;
            driver.advance(HOUR, &[]).await?;
            driver.run(1, Stop::Never).await?;
            read_all(driver).await
        },
    );
}

#[test]
fn a_finish_that_was_inferred_ends_with_the_next_line() {
    scene(async |driver| {
        write(driver, 0, &name()).await?;
        driver.advance(30 * HOUR, &[]).await?;
        driver.run(0, Stop::Never).await?;
        // Archived as finished; then its job goes on, and says when it is really over.
        for _ in 0..3 {
            write(driver, 1, &name()).await?;
            read_all(driver).await?;
            driver.advance(20 * HOUR, &[]).await?;
            driver.run(0, Stop::Never).await?;
        }
        driver.finish(1, &name(), None, Some(12), Stop::Never).await?;
        // Its retention counts from the last finish: the model refuses an earlier end.
        for _ in 0..6 {
            driver.advance(11 * HOUR, &[]).await?;
            driver.run(0, Stop::Never).await?;
            read_all(driver).await?;
        }
        Ok(())
    });
}

#[test]
fn a_client_that_finishes_what_was_inferred_gets_the_whole_retention() {
    scene(async |driver| {
        write(driver, 0, &name()).await?;
        driver.advance(60 * HOUR, &[]).await?;
        driver.run(0, Stop::Never).await?;
        // 12 hours before the inferred end of it.
        driver.finish(0, &name(), None, None, Stop::Never).await?;
        // No run has told the row its new end yet.
        driver.advance(13 * HOUR, &[]).await?;
        read_all(driver).await?;
        for _ in 0..6 {
            driver.advance(11 * HOUR, &[]).await?;
            driver.run(1, Stop::Never).await?;
            read_all(driver).await?;
        }
        Ok(())
    });
}

#[test]
fn a_key_sent_again_after_another_attempt_opened_stays_with_its_own() {
    scenes(&["begin ingest::write", "end ingest::write"], async |driver, point| {
        write(driver, 0, &name()).await?;
        let id = driver.new_batch(&name(), &[5, 5], true, None);
        driver.append(0, &[id], at(point)).await?;
        driver.kill(0).await;
        driver.start(0).await;
        write(driver, 1, &("i".to_owned(), 2)).await?;
        for _ in 0..2 {
            driver.append(1, &[id], Stop::Never).await?;
            read_all(driver).await?;
        }
        Ok(())
    });
}

#[test]
fn a_daemon_whose_clock_is_days_ahead_expires_nothing() {
    scene(async |driver| {
        due(driver).await?;
        driver.run(1, Stop::Never).await?;
        for days in [100, -100] {
            driver.set_skew(0, days * 24 * HOUR);
            driver.run(0, Stop::Never).await?;
            driver.set_skew(0, 0);
            read_all(driver).await?;
        }
        Ok(())
    });
}

#[test]
fn a_writer_that_stood_still_does_not_age_its_attempt() {
    scene(async |driver| {
        // No key: nothing limits how long it may stand.
        let id = driver.new_batch(&name(), &[5], false, None);
        driver.append(0, &[id], at("begin ingest::write")).await?;
        driver.advance(100 * HOUR, &[0]).await?;
        write(driver, 1, &name()).await?;
        driver.go_on(0, Stop::Never).await?;
        for _ in 0..6 {
            driver.advance(11 * HOUR, &[]).await?;
            driver.run(1, Stop::Never).await?;
            read_all(driver).await?;
        }
        Ok(())
    });
}
