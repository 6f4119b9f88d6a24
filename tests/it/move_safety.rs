//! The move from tier to tier, disturbed at its worst moments.
//!
//! Most of them are met at the object store: a gate holds the archiver's PUT (planned, not yet verified) or its
//! GET (uploaded, not yet published), and the test acts meanwhile.

use std::time::Duration;

use futures::TryStreamExt;
use hyper::Method;
use logtier::catalog::{
    Aside, AsideKind, Catalog, Lease, LeaseError, NewEntry, NewSegment, PublishTimes, Sealed, SegmentId,
};
use logtier::db::Home;
use logtier::model::{LineRange, Millis};
use logtier::read::ReadError;
use serde_json::{Value, json};

use crate::harness::daemon::Daemon;
use crate::harness::logs::{
    self, append, batch, finish, home, messages, number, numbered, read_range, row, sql, tiers,
};
use crate::harness::s3::Fault;
use crate::harness::scenes::{archive_with, due, on_each_engine};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn expect_all(daemon: &Daemon, instance: &str, all: &[String]) {
    assert!(messages(&daemon.app, instance).await.expect("readable") == all, "{instance}: other lines came back");
}

async fn parts(home: &Home, id: i64) -> i64 {
    number(home, &format!("SELECT COUNT(*) FROM part_{} WHERE attempt_id = {id}", home.shard)).await
}

async fn chunks(home: &Home, id: i64) -> i64 {
    number(home, &format!("SELECT COUNT(*) FROM chunk_{} WHERE attempt_id = {id}", home.shard)).await
}

fn assert_done(report: &Value) {
    assert_eq!((&report["state"], &report["failures"]), (&json!("done"), &json!([])), "{report}");
}

fn failure<'r>(report: &'r Value, wanted: &str) -> &'r str {
    assert_eq!(report["state"], "failed", "{report}");
    let error = report["failures"][0]["error"].as_str().expect("a failure");
    assert!(error.contains(wanted), "{report}");
    error
}

/// Another daemon takes the mover's lease as if it had run out.
async fn take_over(home: &Home, ttl: Duration) -> Lease {
    sql(home, "UPDATE lease SET expires_at = 0").await;
    Lease::take(&home.db, "mover", "another", ttl).await.expect("asked").expect("free")
}

const TTL: Duration = Duration::from_secs(600);

/// The one segment that is being uploaded.
async fn uploading(home: &Home) -> i64 {
    number(home, "SELECT id FROM segment WHERE state = 0").await
}

#[test]
fn one_who_lost_the_lease_changes_nothing() {
    on_each_engine(&[], async |daemon, _| {
        let all = due(daemon, "i", 300).await;
        let (home, catalog) = (home(&daemon.app, "i"), &daemon.app.catalog);
        let old = Lease::take(&home.db, "zombie", "old", TTL).await.expect("asked").expect("free");
        let (segment, entry) = planned(daemon, &home, &old).await;
        assert!(Lease::take(&home.db, "zombie", "new", TTL).await.expect("asked").is_none(), "it is held");
        sql(&home, "UPDATE lease SET expires_at = 1").await;
        // Over, though nobody has taken it yet; then with a successor.
        let before = row(&daemon.app, "i").await;
        refused(catalog, &home, &old, segment, &entry, before.seen()).await;
        let new = Lease::take(&home.db, "zombie", "new", TTL).await.expect("asked").expect("free");
        assert_eq!(new.fence(), old.fence() + 1);
        refused(catalog, &home, &old, segment, &entry, before.seen()).await;
        // Nor does one of the same name after a restart, whose fence is higher.
        new.renew(&home.db, TTL).await.expect("held");
        old.clone().release(&home.db).await.expect("no error");
        new.renew(&home.db, TTL).await.expect("still held");
        assert_eq!(row(&daemon.app, "i").await, before);
        assert_eq!(number(&home, "SELECT COUNT(*) FROM segment WHERE state <> 0").await, 0);
        assert_eq!((parts(&home, before.id.get()).await, chunks(&home, before.id.get()).await), (0, 3));
        expect_all(daemon, "i", &all).await;
        // The one who has it may.
        let published = catalog.publish(&home.db, &new, sealed(segment), vec![entry], at(daemon)).await;
        assert_eq!(published.expect("held").attempts, 1);
        new.release(&home.db).await.expect("released");
        sql(&home, &format!("DELETE FROM attempt_{0} WHERE id > 0", home.shard)).await;
        sql(&home, &format!("DELETE FROM part_{0} WHERE attempt_id > 0", home.shard)).await;
        sql(&home, &format!("DELETE FROM chunk_{0} WHERE attempt_id > 0", home.shard)).await;
        sql(&home, "DELETE FROM segment").await;
    });
}

fn sealed(segment: SegmentId) -> Sealed {
    Sealed {
        segment,
        byte_length: 10,
        hash: [0; 32],
        index_offset: 5,
        frames_offset: 7,
        filter_offset: 5,
        entries: 1,
        lines: 300,
    }
}

fn at(daemon: &Daemon) -> PublishTimes {
    let now = daemon.clock.now();
    PublishTimes { now, purge_at: now, check_at: now.after(DAY) }
}

/// An upload of the instance `i`, ready to be published, of which no object exists.
async fn planned(daemon: &Daemon, home: &Home, lease: &Lease) -> (SegmentId, NewEntry) {
    let (attempt, now) = (row(&daemon.app, "i").await, daemon.clock.now());
    let new = NewSegment {
        ulid: daemon.clock.new_ulid(),
        app_id: attempt.app_id,
        rule_id: attempt.app_id,
        finish_day: 20_000,
        abandoned_at: now.after(DAY),
    };
    let segment = daemon.app.catalog.plan_segment(&home.db, lease, new, now).await.expect("planned");
    let entry = NewEntry {
        shard: home.shard,
        id: attempt.id,
        lines: attempt.hot_lines(),
        meta_version: attempt.meta_version,
        raw_bytes: attempt.raw_bytes,
        byte_offset: 0,
        byte_length: 5,
        skip: 0,
        ts_range: None,
        levels: attempt.levels,
        frames: Vec::new(),
        planned_meta: attempt.meta_version,
        expires_at: None,
        rule_id: 0,
    };
    (segment, entry)
}

fn aside(id: i64) -> Aside {
    let (what, reason, now) = ("i".to_owned(), "test".to_owned(), Millis::ZERO);
    let kind = AsideKind::Attempt;
    Aside { kind, id, shard: 0, what, reason, failures: 1, first_at: now, last_at: now, next_at: now }
}

/// Everything that needs the lease is refused to one who lost it.
async fn refused(
    catalog: &Catalog,
    home: &Home,
    lease: &Lease,
    segment: SegmentId,
    entry: &NewEntry,
    seen: logtier::catalog::Seen,
) {
    let later = Millis::new(i64::MAX / 2);
    let times = PublishTimes { now: later, purge_at: later, check_at: later };
    let published = catalog.publish(&home.db, lease, sealed(segment), vec![entry.clone()], times).await;
    let results = [
        published.map(drop),
        catalog.postpone(home, lease, vec![(seen, later)]).await,
        catalog.infer_finish(home, lease, vec![(seen, later)]).await,
        catalog.set_attempt_aside(home, lease, aside(entry.id.get()), later).await,
        catalog.purged(home, lease, vec![(seen, 300, later)]).await,
        catalog.forget(home, lease, entry.id).await,
        lease.renew(&home.db, TTL).await,
    ];
    for (at, result) in results.iter().enumerate() {
        assert!(matches!(result, Err(LeaseError::Lost)), "call {at}: {result:?}");
    }
}

#[test]
fn a_run_whose_lease_is_taken_over_publishes_nothing() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        let home = home(&daemon.app, "i");
        let other = tokio::sync::OnceCell::new();
        let steal = async {
            other.set(take_over(&home, TTL).await).expect("once");
            expect_all(daemon, "i", &all).await;
        };
        // In the middle of verify.
        let report = archive_with(daemon, s3, Method::GET, steal).await;
        failure(&report, "lease was lost");
        assert_eq!((&report["objects"], row(&daemon.app, "i").await.archived_line), (&json!(0), 0), "{report}");
        let other = other.into_inner().expect("taken");
        other.renew(&home.db, TTL).await.expect("its successor still has it");
        other.release(&home.db).await.expect("released");
        assert_eq!(daemon.archive().await["lines"], 300);
        expect_all(daemon, "i", &all).await;
    });
}

#[test]
fn a_purge_whose_lease_is_over_deletes_nothing() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        let (home, id) = (home(&daemon.app, "i"), row(&daemon.app, "i").await.id.get());
        // A second object keeps the run busy between the publication of `i` and its purge.
        let other = tokio::sync::OnceCell::new();
        assert_eq!(daemon.archive().await["lines"], 300);
        assert_eq!(chunks(&home, id).await, 0);
        append(&daemon.app, "i", &numbered("late", 0..100)).await;
        daemon.clock.advance(DAY * 2);
        due(daemon, "j", 10).await;
        let steal = async { other.set(take_over(&home, TTL).await).expect("once") };
        let report = archive_with(daemon, s3, Method::GET, steal).await;
        failure(&report, "lease was lost");
        assert_eq!(report["purged_chunks"], 0, "{report}");
        other.into_inner().expect("taken").release(&home.db).await.expect("released");
        assert_done(&daemon.archive().await);
        expect_all(daemon, "i", &[all, numbered("late", 0..100)].concat()).await;
    });
}

#[test]
fn a_publication_does_not_say_when_what_was_opened_or_finished_since_expires() {
    on_each_engine(&[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "10d")], async |daemon, s3| {
        let app = &daemon.app;
        append(app, "opened", &numbered("opened", 0..20)).await;
        append(app, "finished", &numbered("finished", 0..20)).await;
        daemon.clock.advance(DAY * 2);
        // Both are taken for finished as of two days ago; then one is written to, and one finishes itself.
        let change = async {
            append(app, "opened", &numbered("late", 0..5)).await;
            finish(app, &daemon.clock, "finished").await;
        };
        archive_with(daemon, s3, Method::PUT, change).await;
        let opened = row(app, "opened").await;
        assert_eq!((opened.archived_line, opened.expires_at), (20, None));
        finish(app, &daemon.clock, "opened").await;
        daemon.archive().await;
        for instance in ["opened", "finished"] {
            let row = row(app, instance).await;
            let finished_at = row.finished_at.expect("finished");
            assert_eq!(row.expires_at, Some(finished_at.after(DAY * 10)), "{instance}");
        }
    });
}

#[test]
fn an_upload_that_the_sweeper_dooms_is_not_published() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        let home = home(&daemon.app, "i");
        let doom = async {
            let doomed = format!(
                "UPDATE segment SET state = 2, doomed_at = 1, due_at = 1 WHERE id = {}",
                uploading(&home).await
            );
            assert_eq!(sql(&home, &doomed).await, 1);
        };
        let report = archive_with(daemon, s3, Method::GET, doom).await;
        assert_eq!((&report["state"], &report["lines"]), (&json!("failed"), &json!(0)), "{report}");
        let attempt = row(&daemon.app, "i").await;
        assert_eq!((attempt.archived_line, parts(&home, attempt.id.get()).await), (0, 0));
        assert_eq!(tiers(&daemon.app, "i").await, "hot");
        expect_all(daemon, "i", &all).await;
        let report = daemon.archive().await;
        assert_eq!((&report["lines"], &report["state"]), (&json!(300), &json!("done")), "{report}");
        assert_eq!(tiers(&daemon.app, "i").await, "cold");
        expect_all(daemon, "i", &all).await;
        // The name that came to nothing is deleted, the other stays.
        let objects: Vec<_> = daemon.app.store.list("v1/app=a/").try_collect().await.expect("a listing");
        assert_eq!(objects.len(), 1, "{objects:?}");
    });
}

#[test]
fn a_line_that_comes_between_plan_and_publish_moves_later() {
    on_each_engine(&[], async |daemon, s3| {
        let mut all = due(daemon, "i", 300).await;
        let late = numbered("late", 0..3);
        all.extend(late.clone());
        let appended = async { append(&daemon.app, "i", &late).await };
        let report = archive_with(daemon, s3, Method::GET, appended).await;
        assert_done(&report);
        // The same run looks again: no wake-up is lost.
        assert_eq!((&report["lines"], &report["objects"]), (&json!(303), &json!(2)), "{report}");
        let attempt = row(&daemon.app, "i").await;
        assert_eq!((attempt.archived_line, parts(&home(&daemon.app, "i"), attempt.id.get()).await), (303, 2));
        expect_all(daemon, "i", &all).await;
        assert_eq!(tiers(&daemon.app, "i").await, "cold");
    });
}

#[test]
fn an_attempt_that_goes_between_plan_and_publish_gets_no_part() {
    on_each_engine(&[], async |daemon, s3| {
        due(daemon, "goes", 200).await;
        let stays = due(daemon, "stays", 200).await;
        let home = home(&daemon.app, "goes");
        let now = daemon.clock.now().get();
        let delete = format!("UPDATE attempt_{} SET state = 4, gone_at = {now}, due_at = {now}", home.shard);
        let delete = format!("{delete} WHERE id = {}", row(&daemon.app, "goes").await.id.get());
        let gone = async { assert_eq!(sql(&home, &delete).await, 1) };
        let report = archive_with(daemon, s3, Method::GET, gone).await;
        assert_done(&report);
        assert_eq!((&report["lines"], &report["attempts"]), (&json!(200), &json!(1)), "{report}");
        let attempt = row(&daemon.app, "goes").await;
        assert_eq!((attempt.archived_line, parts(&home, attempt.id.get()).await), (0, 0));
        assert!(matches!(messages(&daemon.app, "goes").await, Err(ReadError::Gone { .. })));
        assert!(daemon.app.ingest.append(batch("goes", ["no"])).await.is_err());
        expect_all(daemon, "stays", &stays).await;
        assert_eq!(chunks(&home, attempt.id.get()).await, 0, "its chunks go, as it is gone");
    });
}

#[test]
fn a_damaged_chunk_sets_its_attempt_aside_and_no_other() {
    on_each_engine(&[], async |daemon, _| {
        let damaged = due(daemon, "damaged", 300).await;
        let half = due(daemon, "half", 300).await;
        let whole = due(daemon, "whole", 300).await;
        let (id, place) = (row(&daemon.app, "damaged").await.id.get(), home(&daemon.app, "damaged"));
        flip(&place, id, 0).await;
        let (half_id, half_place) = (row(&daemon.app, "half").await.id.get(), home(&daemon.app, "half"));
        flip(&half_place, half_id, 200).await;
        let report = daemon.archive().await;
        assert_eq!((&report["state"], &report["lines"]), (&json!("failed"), &json!(500)), "{report}");
        assert_eq!(report["failures"].as_array().map(Vec::len), Some(2), "{report}");
        assert!(report["failures"].to_string().contains("a/damaged"), "{report}");
        expect_all(daemon, "whole", &whole).await;
        assert_eq!(tiers(&daemon.app, "whole").await, "cold");
        // What is before the damage moved; the rest is all there, and an error to a reader, not an end.
        for (place, id, archived) in [(&place, id, 0), (&half_place, half_id, 200)] {
            let watermark = format!("SELECT archived_line FROM attempt_{} WHERE id = {id}", place.shard);
            assert_eq!((number(place, &watermark).await, chunks(place, id).await), (archived, 3));
        }
        assert!(matches!(messages(&daemon.app, "half").await, Err(ReadError::Hot(_))));
        let (before, _) = read_range(&daemon.app, "half", LineRange::new(0, 200)).await.expect("readable");
        assert!(before == logs::lines(&half[..200]).json());
        assert_eq!(daemon.archive().await["failures"], json!([]), "it is left alone for a while");
        // Healed, they move.
        flip(&place, id, 0).await;
        flip(&half_place, half_id, 200).await;
        daemon.clock.advance(DAY);
        let report = daemon.archive().await;
        assert_done(&report);
        assert_eq!(report["lines"], 400, "{report}");
        expect_all(daemon, "damaged", &damaged).await;
        expect_all(daemon, "half", &half).await;
    });
}

/// Turns one byte of a chunk over; a second time heals it.
async fn flip(home: &Home, id: i64, first_line: i64) {
    let table = home.shard.table("chunk");
    let read = format!("SELECT data FROM {table} WHERE attempt_id = {id} AND first_line = {first_line}");
    let data: Vec<u8> = sqlx::query_scalar(sqlx::AssertSqlSafe(read)).fetch_one(home.db.pool()).await.expect("a chunk");
    let mut data = data;
    let middle = data.len() / 2;
    data[middle] ^= 0x10;
    let write = format!("UPDATE {table} SET data = ? WHERE attempt_id = {id} AND first_line = {first_line}");
    sqlx::query(sqlx::AssertSqlSafe(write)).bind(data).execute(home.db.pool()).await.expect("written");
}

#[test]
fn an_object_damaged_on_its_way_is_never_published() {
    let damages: [fn(&mut Vec<u8>); 3] = [
        |object| {
            let middle = object.len() / 4;
            object[middle] ^= 1;
        },
        |object| object.truncate(object.len() - 1),
        |object| object.extend_from_slice(b"{}"),
    ];
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        let home = home(&daemon.app, "i");
        for damage in damages {
            let spoil = async {
                let objects = objects(&s3.bucket_folder().join("logs/v1/app=a"));
                let newest =
                    objects.iter().max_by_key(|path| path.file_name().map(ToOwned::to_owned)).expect("an object");
                let mut bytes = std::fs::read(newest).expect("read");
                damage(&mut bytes);
                std::fs::write(newest, bytes).expect("written");
            };
            let report = archive_with(daemon, s3, Method::GET, spoil).await;
            assert_eq!((&report["state"], &report["objects"]), (&json!("failed"), &json!(0)), "{report}");
            let attempt = row(&daemon.app, "i").await;
            assert_eq!((attempt.archived_line, chunks(&home, attempt.id.get()).await), (0, 3));
            assert_eq!(parts(&home, attempt.id.get()).await, 0);
            expect_all(daemon, "i", &all).await;
            daemon.clock.advance(DAY);
        }
        let report = daemon.archive().await;
        assert_eq!((&report["lines"], &report["state"]), (&json!(300), &json!("done")), "{report}");
        expect_all(daemon, "i", &all).await;
        assert_eq!(objects(&s3.bucket_folder().join("logs/v1/app=a")).len(), 1, "spoilt objects are swept");
    });
}

/// All files below a folder that are objects.
fn objects(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| if path.is_dir() { objects(&path) } else { vec![path] });
    found.filter(|path| path.to_string_lossy().ends_with(".ndjson.zst")).collect()
}

#[test]
fn a_store_that_refuses_costs_a_run_and_nothing_else() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        for fault in [Fault::Deny, Fault::Refuse] {
            s3.fail_next(20, Some(Method::PUT), fault);
            let report = daemon.archive().await;
            assert_eq!((&report["state"], &report["objects"]), (&json!("failed"), &json!(0)), "{report}");
            s3.clear_faults();
            assert_eq!(tiers(&daemon.app, "i").await, "hot");
            expect_all(daemon, "i", &all).await;
        }
        // No need to wait: nothing was wrong with the attempt.
        assert_eq!(daemon.archive().await["lines"], 300);
        // Nor is a cold tier that cannot be read an empty one.
        s3.fail_next(20, Some(Method::GET), Fault::Deny);
        assert!(matches!(messages(&daemon.app, "i").await, Err(ReadError::Cold(_))));
        s3.clear_faults();
        expect_all(daemon, "i", &all).await;
    });
}

#[test]
fn a_lost_answer_stores_nothing_twice() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 300).await;
        s3.fail_next(1, Some(Method::PUT), Fault::LoseAnswer);
        let first = daemon.archive().await;
        let lines = first["lines"].as_u64().expect("a number");
        let second = daemon.archive().await;
        assert_eq!(lines + second["lines"].as_u64().expect("a number"), 300, "{first} {second}");
        let attempt = row(&daemon.app, "i").await;
        assert_eq!(parts(&home(&daemon.app, "i"), attempt.id.get()).await, 1);
        expect_all(daemon, "i", &all).await;
        assert_eq!(tiers(&daemon.app, "i").await, "cold");
        let live = number(&home(&daemon.app, "i"), "SELECT COUNT(*) FROM segment WHERE state = 1").await;
        assert_eq!(live, 1);
    });
}

#[test]
fn a_reader_under_way_notices_no_purge() {
    on_each_engine(&[], async |daemon, _| {
        let all = due(daemon, "i", 4_000).await;
        let key = logs::key("i");
        let view = daemon.app.reader.open(&key.app, &key.instance, None).await.expect("open");
        let mut lines = daemon.app.reader.lines(&view, LineRange::new(0, u64::MAX));
        let mut read = lines.next().await.expect("read").expect("a block").records.to_vec();
        // All that the snapshot knows of is gone before the second block.
        let report = daemon.archive().await;
        assert_eq!((&report["lines"], &report["purged"]), (&json!(4_000), &json!(1)), "{report}");
        assert_eq!(chunks(&home(&daemon.app, "i"), view.attempt.id.get()).await, 0);
        while let Some(block) = lines.next().await.expect("no gap") {
            read.extend_from_slice(&block.records);
        }
        assert_eq!(lines.touched().as_str(), "hot+cold");
        let whole = logs::lines(&all);
        assert!(read == whole.json(), "other bytes came back");
    });
}

/// A bucket that is emptied, or another's, while the daemon runs: nothing moves there, and nothing is purged.
#[test]
fn a_bucket_that_is_not_ours_stops_the_archiver() {
    on_each_engine(&[], async |daemon, s3| {
        let first = due(daemon, "first", 20).await;
        daemon.archive().await;
        let all = due(daemon, "i", 50).await;
        let object = s3.bucket_folder().join("logs/v1/cluster.json");
        let ours = std::fs::read_to_string(&object).expect("there");
        let id = daemon.get("/status").await.json()["cluster_id"].as_str().expect("an id").to_owned();
        for theirs in [None, Some(ours.replace(&id, "01ANOTHERCLUSTER"))] {
            match &theirs {
                None => std::fs::remove_file(&object).expect("removed"),
                Some(text) => std::fs::write(&object, text).expect("written"),
            }
            let report = daemon.archive().await;
            assert_eq!(
                (&report["state"], &report["objects"], &report["purged"]),
                (&json!("failed"), &json!(0), &json!(0))
            );
            let failures = report["failures"].as_array().expect("a list");
            assert!(failures.len() == 1 && failures[0].to_string().contains("not this database's"), "{report}");
            let status = daemon.get("/status").await.json();
            assert!(
                status["cold"]["error"].as_str().is_some_and(|said| said.contains("nothing is archived")),
                "{status}"
            );
            expect_all(daemon, "i", &all).await;
        }
        std::fs::write(&object, ours).expect("written");
        let report = daemon.archive().await;
        assert_eq!((&report["state"], &report["lines"]), (&json!("done"), &json!(50)), "{report}");
        expect_all(daemon, "i", &all).await;
        expect_all(daemon, "first", &first).await;
    });
}

/// A bucket that lost everything is away; one that lost an object says which. Neither is an empty log.
#[test]
fn what_the_cold_tier_lost_is_never_an_empty_log() {
    on_each_engine(&[], async |daemon, s3| {
        let all = due(daemon, "i", 50).await;
        daemon.archive().await;
        // Purged, so that no reader knows anything from before.
        daemon.archive().await;
        let (bucket, aside) = (s3.bucket_folder().join("logs"), s3.bucket_folder().join("aside"));
        let read = async || {
            let answer = daemon.get("/apps/a/instances/i/records").await;
            (answer.status, answer.json()["type"].as_str().unwrap_or_default().to_owned())
        };
        std::fs::rename(&bucket, &aside).expect("moved");
        // A mark there would be forgotten.
        let hold = daemon.client.put(daemon.url("/api/v1/apps/a/instances/i/hold"));
        assert_eq!(daemon.send(hold).await.status, 503);
        assert!(!bucket.exists(), "something was written to the emptied bucket");
        assert_eq!(read().await, (503, "urn:logtier:problem:unavailable".to_owned()));
        std::fs::create_dir_all(bucket.join("v1")).expect("created");
        std::fs::copy(aside.join("v1/cluster.json"), bucket.join("v1/cluster.json")).expect("copied");
        assert_eq!(read().await, (500, "urn:logtier:problem:missing".to_owned()));
        std::fs::remove_dir_all(&bucket).expect("removed");
        std::fs::rename(&aside, &bucket).expect("moved back");
        expect_all(daemon, "i", &all).await;
    });
}

/// A rehearsal says what the run does that it stands for, however much that is.
#[test]
fn a_dry_run_counts_what_the_run_moves() {
    on_each_engine(&[], async |daemon, _| {
        let attempts = 230;
        for n in 0..attempts {
            append(&daemon.app, &format!("i{n}"), &numbered("x", 0..2)).await;
            finish(&daemon.app, &daemon.clock, &format!("i{n}")).await;
        }
        let said = daemon.post("/archive?dry_run=true", "").await.expect(200).json();
        let done = daemon.archive().await;
        for (what, number) in
            [("attempts", attempts), ("lines", 2 * attempts), ("objects", 1), ("moves_not_listed", 30)]
        {
            assert_eq!((&said[what], &done[what]), (&json!(number), &json!(number)), "{what}");
        }
        assert_eq!((said["moves"].as_array().map(Vec::len), &said["waiting"]), (Some(200), &json!([])));
        let then = daemon.archive().await;
        assert_eq!((&then["attempts"], &then["state"]), (&json!(0), &json!("done")));
        assert!(then["next_due_at"].is_string(), "when the first of them expires: {then}");
    });
}
