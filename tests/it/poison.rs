//! Poison stays local: what cannot be archived is set aside with its reason, and everything else goes on.

use std::time::Duration;

use futures::TryStreamExt;
use hyper::{Method, StatusCode};
use logtier::cold::segment::content_hash;
use serde_json::{Value, json};

use crate::harness::daemon::Daemon;
use crate::harness::logs::{home, key, messages, number, row, sql, tiers};
use crate::harness::s3::Fault;
use crate::harness::scenes::{archive_with, due, on_each, on_each_engine};

const HOUR: Duration = Duration::from_secs(3600);

async fn expect_cold(daemon: &Daemon, instance: &str, all: &[String]) {
    assert!(messages(&daemon.app, instance).await.expect("readable") == all, "{instance}: other lines came back");
    assert_eq!(tiers(&daemon.app, instance).await, "cold", "{instance}");
}

async fn set_aside(daemon: &Daemon) -> Value {
    daemon.get("/status").await.expect(200).json()["set_aside"].clone()
}

/// Changes the first chunk of an instance; the same again heals it.
async fn spoil(daemon: &Daemon, instance: &str) {
    let (home, id) = (home(&daemon.app, instance), row(&daemon.app, instance).await.id.get());
    let turn = format!("UPDATE chunk_{} SET hash = -1 - hash WHERE attempt_id = {id} AND first_line = 0", home.shard);
    assert_eq!(sql(&home, &turn).await, 1);
}

#[test]
fn what_cannot_be_decoded_is_set_aside_with_its_reason_and_tried_less_and_less() {
    on_each(&[], async |daemon| {
        let bad = due(daemon, "bad", 100).await;
        let good = due(daemon, "good", 100).await;
        spoil(daemon, "bad").await;
        let report = daemon.archive().await;
        assert_eq!(report["failures"].as_array().map(Vec::len), Some(1), "{report}");
        expect_cold(daemon, "good", &good).await;
        let aside = set_aside(daemon).await;
        assert_eq!((&aside["count"], &aside["first"][0]["what"]), (&json!(1), &json!("a/bad#1")), "{aside}");
        assert!(aside["first"][0]["reason"].to_string().contains("is damaged"), "{aside}");
        let metrics =
            daemon.client.get(daemon.url("/metrics")).send().await.expect("asked").text().await.expect("text");
        assert!(metrics.contains("logtier_set_aside_attempts_total 1"), "{metrics}");
        // One hour, then two, then four.
        for (failures, hours) in [(1, 1), (2, 2), (3, 4)] {
            assert_eq!(row(&daemon.app, "bad").await.failures, failures);
            daemon.clock.advance(HOUR * hours - Duration::from_secs(60));
            assert_eq!(daemon.archive().await["failures"], json!([]), "it is left alone");
            daemon.clock.advance(Duration::from_secs(120));
            assert_ne!(daemon.archive().await["failures"], json!([]), "it is tried again");
        }
        // Who mended it need not wait.
        spoil(daemon, "bad").await;
        assert_eq!(daemon.archive().await["lines"], 0);
        daemon.send(daemon.client.post(daemon.url("/api/v1/archive?retry=true&wait=60"))).await.expect(200);
        expect_cold(daemon, "bad", &bad).await;
        assert_eq!(set_aside(daemon).await, json!({"count": 0, "first": []}));
    });
}

#[test]
fn what_fails_too_often_is_given_up_but_still_expires() {
    on_each(&[], async |daemon| {
        due(daemon, "bad", 100).await;
        spoil(daemon, "bad").await;
        let mut tries = 0;
        for _ in 0..40 {
            tries += usize::from(daemon.archive().await["failures"] != json!([]));
            daemon.clock.advance(HOUR * 25);
        }
        assert_eq!(tries, 12);
        let aside = set_aside(daemon).await;
        assert_eq!((&aside["count"], &aside["first"][0]["next_try_at"]), (&json!(1), &Value::Null), "{aside}");
        daemon.clock.advance(HOUR * 24 * 180);
        assert_eq!(daemon.archive().await["expired"], 1);
        assert_eq!(set_aside(daemon).await["count"], 0);
    });
}

#[test]
fn lines_that_no_object_takes_are_their_attempts_fault() {
    on_each(&[], async |daemon| {
        due(daemon, "bad", 1).await;
        let good = due(daemon, "good", 100).await;
        let (place, id) = (home(&daemon.app, "bad"), row(&daemon.app, "bad").await.id.get());
        let payload = b"no JSON at all\n";
        let data = zstd::bulk::compress(payload, 1).expect("compressed");
        let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let (hash, length) = (content_hash(payload).cast_signed(), payload.len());
        let change =
            format!("UPDATE chunk_{} SET data = x'{data}', codec = 1, hash = {hash}, raw_len = {length}", place.shard);
        assert_eq!(sql(&place, &format!("{change} WHERE attempt_id = {id}")).await, 1);
        let report = daemon.archive().await;
        assert_eq!((&report["lines"], report["failures"].as_array().map(Vec::len)), (&json!(100), Some(1)), "{report}");
        expect_cold(daemon, "good", &good).await;
        let aside = set_aside(daemon).await;
        assert!(aside["first"][0]["reason"].to_string().contains("not a JSON object"), "{aside}");
    });
}

#[test]
fn an_object_that_differs_from_the_hot_tier_costs_only_the_attempt_that_differs() {
    on_each_engine(&[], async |daemon, s3| {
        let mut good = Vec::new();
        for n in 0..7 {
            good.push(due(daemon, &format!("good {n}"), 50).await);
        }
        let bad = due(daemon, "bad", 50).await;
        let report = archive_with(daemon, s3, Method::GET, spoil(daemon, "bad")).await;
        assert_eq!(
            (&report["attempts"], report["failures"].as_array().map(Vec::len)),
            (&json!(7), Some(1)),
            "{report}"
        );
        for (n, all) in good.iter().enumerate() {
            expect_cold(daemon, &format!("good {n}"), all).await;
        }
        let aside = set_aside(daemon).await;
        assert_eq!((&aside["count"], &aside["first"][0]["what"]), (&json!(1), &json!("a/bad#1")), "{aside}");
        spoil(daemon, "bad").await;
        daemon.clock.advance(HOUR * 2);
        assert_eq!(daemon.archive().await["failures"], json!([]));
        expect_cold(daemon, "bad", &bad).await;
    });
}

#[test]
fn an_object_that_names_no_culprit_is_tried_in_smaller_ones() {
    on_each_engine(&[], async |daemon, s3| {
        let mut all = Vec::new();
        for n in 0..6 {
            all.push(due(daemon, &format!("i {n}"), 50).await);
        }
        let spoil = async {
            let folder = s3.bucket_folder().join("logs");
            let listed: Vec<_> = daemon.app.store.list("v1/app=a/").try_collect().await.expect("a listing");
            let path = folder.join(listed[0].key.as_str());
            let mut bytes = std::fs::read(&path).expect("the object");
            bytes[100] ^= 1;
            std::fs::write(path, bytes).expect("written");
        };
        // The first GET that may be held reads the object.
        let report = archive_with(daemon, s3, Method::GET, spoil).await;
        assert_eq!(
            (&report["attempts"], report["failures"].as_array().map(Vec::len)),
            (&json!(6), Some(1)),
            "{report}"
        );
        for (n, all) in all.iter().enumerate() {
            expect_cold(daemon, &format!("i {n}"), all).await;
        }
        assert_eq!(set_aside(daemon).await["count"], 0, "nobody is to blame");
    });
}

#[test]
fn a_store_that_refuses_is_asked_less_and_less_and_told_of_once() {
    let often = [("LOGTIER_ARCHIVE__SCHEDULE", "* * * * * *"), ("LOGTIER_ARCHIVE__MAX_DELAY", "0s")];
    on_each_engine(&often, async |daemon, s3| {
        s3.take_seen();
        s3.fail_next(10_000, None, Fault::Deny);
        let all = due(daemon, "i", 50).await;
        while !s3.take_seen().iter().any(|seen| seen.status == Some(StatusCode::FORBIDDEN)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let asked = s3.take_seen().len();
        assert!(asked <= 1, "{asked} requests in the time of two runs");
        let planned = number(&home(&daemon.app, "i"), "SELECT COUNT(*) FROM segment").await;
        assert_eq!(planned, 0, "nothing is planned that cannot be written");
        let status = daemon.get("/status").await.json();
        let task = status["tasks"].as_array().expect("tasks").iter().find(|task| task["name"] == "archive").cloned();
        assert!(task.expect("the archiver")["error"].to_string().contains("refuses"), "{status}");
        // Asking for a run tries at once, and says why not; then it goes well.
        let report = daemon.archive().await;
        assert!(report["refused"].is_string(), "{report}");
        s3.clear_faults();
        assert_eq!(daemon.archive().await["lines"], 50);
        expect_cold(daemon, "i", &all).await;
    });
}

#[test]
fn an_object_that_cannot_be_deleted_does_not_keep_the_others() {
    on_each_engine(&[], async |daemon, s3| {
        for instance in ["one", "two"] {
            due(daemon, instance, 20).await;
            daemon.archive().await;
        }
        for key in ["one", "two"].map(key) {
            daemon.app.archiver.delete(&key.app, &key.instance, None).await.expect("deleted");
        }
        s3.fail_next(1, Some(Method::DELETE), Fault::Deny);
        let report = daemon.archive().await;
        assert_eq!(
            (&report["objects_deleted"], report["failures"].as_array().map(Vec::len)),
            (&json!(1), Some(1)),
            "{report}"
        );
        let aside = set_aside(daemon).await;
        assert!(aside["first"][0]["what"].to_string().contains("delete v1/app=a"), "{aside}");
        daemon.clock.advance(HOUR * 2);
        assert_eq!(daemon.archive().await["objects_deleted"], 1);
        assert_eq!(set_aside(daemon).await["count"], 0);
        let left: Vec<_> = daemon.app.store.list("v1/app=a/").try_collect().await.expect("a listing");
        assert_eq!(left, []);
    });
}
