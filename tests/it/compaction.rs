//! Rewriting: what was deleted leaves the bucket in time, and nothing else does.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use hyper::Method;
use logtier::archive::Marked;
use logtier::cold::segment::Index;
use logtier::cold::{Key, KeyKind};
use logtier::read::ReadError;
use serde_json::{Value, json};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, home, key, messages, number, numbered, row, sql, tiers};
use crate::harness::on_each_pair;
use crate::harness::process::Process;
use crate::harness::scenes::{archive_with, due, on_each, on_each_engine};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Rewritten as soon as anything of an object was deleted.
const SOON: (&str, &str) = ("LOGTIER_ARCHIVE__REWRITE_AT", "1%");

/// An attempt spans several frames.
const SMALL_FRAMES: (&str, &str) = ("LOGTIER_COLD__FRAME_SIZE", "64KiB");

async fn delete(daemon: &Daemon, instance: &str) {
    let key = key(instance);
    let deleted = daemon.app.archiver.delete(&key.app, &key.instance, None).await;
    assert_eq!(deleted.expect("marked"), Marked::Done);
}

async fn expect_all(daemon: &Daemon, instance: &str, all: &[String]) {
    assert!(messages(&daemon.app, instance).await.expect("readable") == all, "{instance}: other lines came back");
}

/// Archives; the report, in which nothing failed.
async fn archive(daemon: &Daemon) -> Value {
    let report = daemon.archive().await;
    assert_eq!(report["failures"], json!([]), "{report}");
    report
}

async fn objects(daemon: &Daemon) -> Vec<(Key, u64)> {
    let listed: Vec<_> = daemon.app.store.list("v1/").try_collect().await.expect("a listing");
    let segments = listed.into_iter().filter(|object| matches!(object.key.kind(), KeyKind::Segment(_)));
    segments.map(|object| (object.key, object.byte_length)).collect()
}

/// Whether any object of the bucket holds these words.
async fn bucket_holds(daemon: &Daemon, words: &str) -> bool {
    for (key, length) in objects(daemon).await {
        let pieces = daemon.app.store.stream_range(&key, 0..length).await.expect("a stream");
        let pieces: Vec<_> = pieces.try_collect().await.expect("bytes");
        let text = zstd::stream::decode_all(pieces.concat().as_slice()).expect("zstd");
        if String::from_utf8(text).expect("NDJSON").contains(words) {
            return true;
        }
    }
    false
}

fn ulid(key: &Key) -> ulid::Ulid {
    match key.kind() {
        KeyKind::Segment(name) => name.ulid,
        other => panic!("{other:?}"),
    }
}

/// Every object is one that a part needs, and the other way round.
async fn nothing_is_left_behind(daemon: &Daemon, instances: &[&str]) {
    let mut needed = BTreeSet::new();
    for instance in instances {
        let (home, id) = (home(&daemon.app, instance), row(&daemon.app, instance).await.id);
        let segments = daemon.app.catalog.segments_of(&home, id, 1_000).await.expect("segments");
        needed.extend(segments.into_iter().map(|segment| segment.ulid));
    }
    let found: BTreeSet<_> = objects(daemon).await.iter().map(|(key, _)| ulid(key)).collect();
    assert_eq!(found, needed);
}

#[test]
fn deleted_bytes_leave_the_bucket_within_the_set_time() {
    on_each(&[SMALL_FRAMES], async |daemon| {
        let large = due(daemon, "large", 3_000).await;
        let small = due(daemon, "small", 10).await;
        due(daemon, "secret", 100).await;
        assert_eq!(archive(daemon).await["objects"], 1);
        let old = objects(daemon).await.remove(0).0;
        delete(daemon, "secret").await;
        assert!(matches!(messages(&daemon.app, "secret").await, Err(ReadError::Gone { .. })));
        // A few lines of many: that waits for company, half of the time that there is.
        assert_eq!(archive(daemon).await["rewritten"], 0);
        assert!(bucket_holds(daemon, "secret").await);
        daemon.clock.advance(14 * DAY);
        assert_eq!(archive(daemon).await["rewritten"], 0);
        daemon.clock.advance(DAY);
        let planned = daemon.app.archiver.dry_run().await.expect("a rehearsal");
        assert_eq!((planned.rewritten, planned.rewrites[0].deleted_lines), (1, 100), "{planned:?}");
        assert_eq!(objects(daemon).await.len(), 1, "a rehearsal changes nothing");
        let report = archive(daemon).await;
        assert_eq!(report["rewritten"], 1, "{report}");
        assert_eq!(report["rewrites"][0]["object"], old.to_string(), "{report}");
        expect_all(daemon, "large", &large).await;
        expect_all(daemon, "small", &small).await;
        assert_eq!(archive(daemon).await["objects_deleted"], 1, "the old one goes with the next run");
        assert!(!bucket_holds(daemon, "secret").await);
        expect_all(daemon, "large", &large).await;
        expect_all(daemon, "small", &small).await;
        assert_eq!(tiers(&daemon.app, "large").await, "cold");
        let (new, length) = objects(daemon).await.remove(0);
        let index = Index::open(&daemon.app.store, &new, length).await.expect("an index");
        assert_eq!(index.header().replaces, [ulid(&old)]);
        nothing_is_left_behind(daemon, &["large", "small"]).await;
    });
}

#[test]
fn an_object_with_many_dead_lines_is_rewritten_at_once() {
    on_each(&[], async |daemon| {
        let kept = due(daemon, "kept", 100).await;
        due(daemon, "large", 300).await;
        archive(daemon).await;
        delete(daemon, "large").await;
        let report = archive(daemon).await;
        assert_eq!((&report["rewritten"], &report["rewrites"][0]["dead_lines"]), (&json!(1), &json!(300)), "{report}");
        archive(daemon).await;
        assert!(!bucket_holds(daemon, "large").await);
        expect_all(daemon, "kept", &kept).await;
        assert_eq!(archive(daemon).await["rewritten"], 0, "once is enough");
    });
}

#[test]
fn what_expired_is_counted_apart_from_what_was_deleted() {
    on_each(&[], async |daemon| {
        let held = due(daemon, "held", 10).await;
        due(daemon, "expires", 300).await;
        archive(daemon).await;
        let name = key("held");
        daemon.app.archiver.hold(&name.app, &name.instance, None, true).await.expect("held");
        daemon.clock.advance(181 * DAY);
        // Nearly all of it is gone, but the rest could go the next moment, too.
        let report = archive(daemon).await;
        assert_eq!((&report["expired"], &report["rewritten"]), (&json!(1), &json!(0)), "{report}");
        daemon.clock.advance(3 * DAY);
        assert_eq!(archive(daemon).await["rewritten"], 1);
        archive(daemon).await;
        assert!(!bucket_holds(daemon, "expires").await);
        expect_all(daemon, "held", &held).await;
        assert!(row(&daemon.app, "held").await.held);
        let deleted = daemon.app.archiver.delete(&name.app, &name.instance, None).await;
        assert_eq!(deleted.expect("asked"), Marked::Held, "also in its new place");
    });
}

#[test]
fn small_objects_of_a_day_become_one_and_an_attempt_of_many_parts_stays_whole() {
    on_each(&[SOON, SMALL_FRAMES], async |daemon| {
        let mut all = due(daemon, "parts", 1_500).await;
        due(daemon, "gone 1", 20).await;
        archive(daemon).await;
        // Late lines go into an object of their own, of the same day.
        let late = numbered("late", 0..700);
        append(&daemon.app, "parts", &late).await;
        all.extend(late);
        due(daemon, "gone 2", 20).await;
        archive(daemon).await;
        let id = row(&daemon.app, "parts").await.id;
        assert_eq!(objects(daemon).await.len(), 2);
        delete(daemon, "gone 1").await;
        delete(daemon, "gone 2").await;
        let report = archive(daemon).await;
        assert_eq!(report["rewritten"], 2, "{report}");
        expect_all(daemon, "parts", &all).await;
        archive(daemon).await;
        assert_eq!(objects(daemon).await.len(), 1, "two became one");
        expect_all(daemon, "parts", &all).await;
        assert_eq!(tiers(&daemon.app, "parts").await, "cold");
        let home = home(&daemon.app, "parts");
        let parts = format!("SELECT COUNT(*) FROM part_{} WHERE attempt_id = {}", home.shard, id.get());
        assert_eq!(number(&home, &parts).await, 2, "parts keep their lines");
        nothing_is_left_behind(daemon, &["parts"]).await;
    });
}

#[test]
fn a_reader_in_the_middle_goes_on_in_the_new_object() {
    on_each(&[SOON], async |daemon| {
        let all = due(daemon, "read", 2_000).await;
        due(daemon, "gone", 40).await;
        archive(daemon).await;
        let name = key("read");
        let view = daemon.app.reader.open(&name.app, &name.instance, None).await.expect("open");
        let mut lines = daemon.app.reader.lines(&view, logtier::model::LineRange::new(500, u64::MAX));
        delete(daemon, "gone").await;
        assert_eq!(archive(daemon).await["rewritten"], 1);
        assert_eq!(archive(daemon).await["objects_deleted"], 1, "what the reader's snapshot names is gone");
        let (mut next, mut text) = (500, Vec::new());
        while let Some(block) = lines.next().await.expect("no gap") {
            assert_eq!(block.lines.start(), next);
            next = block.lines.end();
            text.extend_from_slice(&block.records);
        }
        assert_eq!(next, 2_000);
        assert!(text == crate::harness::logs::lines(&all[500..]).json(), "other bytes came back");
    });
}

#[test]
fn a_delete_in_the_middle_of_a_rewrite_is_done_and_its_bytes_go() {
    on_each_engine(&[SOON], async |daemon, s3| {
        let kept = due(daemon, "kept", 100).await;
        due(daemon, "gone 1", 20).await;
        due(daemon, "gone 2", 20).await;
        archive(daemon).await;
        delete(daemon, "gone 1").await;
        // Its copy is built, but its part never points there.
        let report = archive_with(daemon, s3, Method::PUT, async { delete(daemon, "gone 2").await }).await;
        assert_eq!((&report["rewritten"], &report["failures"]), (&json!(1), &json!([])), "{report}");
        assert!(matches!(messages(&daemon.app, "gone 2").await, Err(ReadError::Gone { .. })));
        expect_all(daemon, "kept", &kept).await;
        assert!(bucket_holds(daemon, "gone 2").await);
        // The sweeper makes sure a day later that nothing else stands in the new object.
        daemon.clock.advance(2 * DAY);
        assert_eq!(archive(daemon).await["rewritten"], 1);
        archive(daemon).await;
        assert!(!bucket_holds(daemon, "gone 2").await);
        expect_all(daemon, "kept", &kept).await;
        nothing_is_left_behind(daemon, &["kept"]).await;
    });
}

#[test]
fn a_rewrite_whose_lease_is_taken_over_publishes_nothing() {
    on_each_engine(&[SOON], async |daemon, s3| {
        let kept = due(daemon, "kept", 100).await;
        due(daemon, "gone", 20).await;
        archive(daemon).await;
        delete(daemon, "gone").await;
        let before = objects(daemon).await;
        let home = home(&daemon.app, "kept");
        let steal = async {
            sql(&home, "UPDATE lease SET expires_at = 0").await;
            let ttl = Duration::from_secs(600);
            let other = logtier::catalog::Lease::take(&home.db, "mover", "another", ttl).await;
            std::mem::forget(other.expect("asked").expect("free"));
        };
        let report = archive_with(daemon, s3, Method::PUT, steal).await;
        assert!(report["failures"].to_string().contains("lease was lost"), "{report}");
        assert_eq!(report["rewritten"], 0, "{report}");
        let parts = format!("SELECT COUNT(*) FROM part_{} p JOIN segment s ON s.id = p.segment_id", home.shard);
        let moved = format!("{parts} WHERE s.created_at > {}", daemon.clock.now().get() - 1);
        assert_eq!(number(&home, &moved).await, 0);
        expect_all(daemon, "kept", &kept).await;
        sql(&home, "UPDATE lease SET expires_at = 0").await;
        assert_eq!(archive(daemon).await["rewritten"], 1);
        archive(daemon).await;
        let after = objects(daemon).await;
        assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
        expect_all(daemon, "kept", &kept).await;
    });
}

#[test]
fn an_object_that_is_damaged_is_left_alone_and_the_others_are_rewritten() {
    on_each_engine(&[SOON], async |daemon, s3| {
        due(daemon, "kept 1", 100).await;
        due(daemon, "gone 1", 20).await;
        archive(daemon).await;
        daemon.clock.advance(DAY);
        let kept = due(daemon, "kept 2", 100).await;
        due(daemon, "gone 2", 20).await;
        archive(daemon).await;
        let found = objects(daemon).await;
        let path = s3.bucket_folder().join("logs").join(found[0].0.as_str());
        let mut bytes = std::fs::read(&path).expect("the object");
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        delete(daemon, "gone 1").await;
        delete(daemon, "gone 2").await;
        let report = daemon.archive().await;
        assert_eq!(
            (&report["rewritten"], report["failures"].as_array().map(Vec::len)),
            (&json!(1), Some(1)),
            "{report}"
        );
        assert!(report["failures"][0]["what"].to_string().contains(found[0].0.as_str()), "{report}");
        expect_all(daemon, "kept 2", &kept).await;
        assert_eq!(archive(daemon).await["rewritten"], 0, "it is left alone for a while");
        assert_eq!(objects(daemon).await.len(), 2, "nothing that is damaged is thrown away");
    });
}

const INSTANCES: [(&str, usize); 3] = [("one", 1), ("some", 400), ("many", 4_000)];

fn log_of(instance: &str, lines: usize) -> String {
    (0..lines).map(|n| format!("{instance} {n} {:x}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

async fn push(daemon: &Process, instance: &str, lines: usize) {
    let path = format!("/apps/a/instances/{instance}");
    let (status, answer) = daemon.post(&format!("{path}/records"), "text/plain", log_of(instance, lines)).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = daemon.post(&format!("{path}/finish"), "application/json", "{}").await;
    assert_eq!(status, 200, "{answer}");
}

async fn check_all(daemon: &Process) {
    for (instance, lines) in INSTANCES {
        let (status, text) = daemon.get(&format!("/apps/a/instances/{instance}/download?format=raw")).await;
        assert_eq!(status, 200, "{text}");
        assert!(text == log_of(instance, lines), "{instance} differs: {} bytes", text.len());
    }
    assert_eq!(daemon.get("/apps/a/instances/secret/records").await.0, 410);
}

fn killed_after(verb: &str) {
    let quick = [
        SOON,
        ("LOGTIER_ARCHIVE__LEASE_TTL", "1s"),
        ("LOGTIER_ARCHIVE__ABANDONED_AFTER", "0s"),
        ("LOGTIER_ARCHIVE__DOOMED_FOR", "0s"),
    ];
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Process::start(tiers, &[&quick[..], &[("LOGTIER_PAUSE_AFTER", verb)]].concat()).await;
            for (instance, lines) in INSTANCES {
                push(&daemon, instance, lines).await;
            }
            push(&daemon, "secret", 100).await;
            daemon.archive().await;
            assert_eq!(daemon.delete("/apps/a/instances/secret").await.0, 204);
            assert_eq!(daemon.post("/archive", "application/json", "").await.0, 202);
            daemon.wait_for_words(&format!("paused after {verb}")).await;
            check_all(&daemon).await;
            daemon.kill();

            let daemon = Process::start(tiers, &quick).await;
            check_all(&daemon).await;
            for _ in 0..3 {
                let report = daemon.archive().await;
                assert_eq!(report["failures"], json!([]), "{report}");
                check_all(&daemon).await;
            }
            daemon.terminate();
            let daemon = Daemon::start(tiers, &quick).await;
            assert!(!bucket_holds(&daemon, "secret").await);
            nothing_is_left_behind(&daemon, &INSTANCES.map(|(instance, _)| instance)).await;
            daemon.stop().await;
        });
    });
}

#[test]
fn killed_after_planning_a_rewrite() {
    killed_after("rewrite-plan");
}

#[test]
fn killed_after_building_a_rewrite() {
    killed_after("rewrite-build");
}

#[test]
fn killed_after_verifying_a_rewrite() {
    killed_after("rewrite-verify");
}

#[test]
fn killed_after_publishing_a_rewrite() {
    killed_after("rewrite-publish");
}
