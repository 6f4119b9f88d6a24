//! Real logs over HTTP, by several writers at once, through both tiers and out again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use futures::TryStreamExt;
use logtier::cold::{KeyKind, Listed};
use serde_json::Value;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::{Tiers, note_skip, on_each_pair};

/// Those of the repository, or of the NDJSON file that `LOGTIER_TEST_RECORDS` names.
fn records() -> String {
    match std::env::var_os("LOGTIER_TEST_RECORDS") {
        Some(path) => std::fs::read_to_string(path).expect("LOGTIER_TEST_RECORDS is a file of records"),
        None => include_str!("../data/records.ndjson").to_owned(),
    }
}

/// What identifies an instance, and its records in the order they were sent.
type Truth = BTreeMap<(String, String), Vec<Value>>;

fn truth() -> Truth {
    let mut truth = Truth::new();
    for line in records().lines() {
        let record: Value = serde_json::from_str(line).expect("a record");
        truth.entry(place_of(&record)).or_default().push(record);
    }
    truth
}

fn place_of(record: &Value) -> (String, String) {
    let app = record["app"].as_str().unwrap_or("default");
    (app.to_owned(), record["instance"].as_str().expect("an instance").to_owned())
}

/// What must come back of a record: its message to the byte, and the rest in canonical form.
fn essence(record: &Value) -> (Value, Value, Option<i64>) {
    // Sent in milliseconds, given back in RFC 3339.
    let ts = record["ts"].as_i64().or_else(|| {
        let ts = chrono::DateTime::parse_from_rfc3339(record["ts"].as_str()?).ok()?;
        Some(ts.timestamp_millis())
    });
    (record["message"].clone(), record.get("source").cloned().unwrap_or(Value::Null), ts)
}

/// Four writers, each with its own instances, in bulk requests of 200 records.
async fn push_all(daemon: &Daemon, truth: &Truth) {
    let mut bodies: [Vec<String>; 4] = Default::default();
    for (n, records) in truth.values().enumerate() {
        for some in records.chunks(200) {
            bodies[n % 4].push(some.iter().map(|record| format!("{record}\n")).collect());
        }
    }
    let writers = bodies.into_iter().map(async |bodies| {
        for body in bodies {
            let answer = daemon.post("/records", body).await.expect(200).json();
            assert_eq!(answer["rejected"], serde_json::json!([]), "{answer}");
        }
    });
    futures::future::join_all(writers).await;
    for (app, instance) in truth.keys() {
        daemon.post(&format!("/apps/{app}/instances/{instance}/finish"), "{}").await.expect(200);
    }
}

async fn check_api(daemon: &Daemon, truth: &Truth) {
    for ((app, instance), records) in truth {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/apps/{app}/instances/{instance}/records?limit=700&cursor={cursor}");
            let page = daemon.get(path.trim_end_matches("&cursor=")).await.expect(200).json();
            found.extend(page["records"].as_array().expect("records").clone());
            if page["at_end"] == true {
                break;
            }
            cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
        }
        assert_eq!(found.len(), records.len(), "{app}/{instance}");
        for (line, (found, sent)) in found.iter().zip(records).enumerate() {
            assert_eq!(found["line"], line as u64);
            assert_eq!(essence(found), essence(sent), "{app}/{instance} line {line}");
        }
    }
}

/// Reads every object of the bucket with a tool that is not ours.
async fn check_objects(daemon: &Daemon, truth: &Truth) {
    let listed: Vec<_> = daemon.app.store.list("v1/").try_collect().await.expect("a listing");
    let segment = |object: Listed| match object.key.kind() {
        KeyKind::Segment(name) => Some((name.ulid, object)),
        _ => None,
    };
    let mut objects: Vec<_> = listed.into_iter().filter_map(segment).collect();
    // An attempt larger than an object goes on in a later one.
    objects.sort_by_key(|(ulid, _)| *ulid);
    let mut found = Truth::new();
    for (_, object) in objects {
        let bytes = daemon.app.store.get_range(&object.key, 0..object.byte_length).await.expect("the object");
        for line in zstdcat(&bytes).lines() {
            let record: Value = serde_json::from_str(line).expect("a JSON line");
            found.entry(place_of(&record)).or_default().push(record);
        }
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (place, records) in truth {
        let all = |records: &[Value]| records.iter().map(essence).collect::<Vec<_>>();
        assert!(all(&found[place]) == all(records), "{place:?} differs in the bucket");
    }
}

fn zstdcat(bytes: &[u8]) -> String {
    let command = Command::new("zstd").args(["-dc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut command) = command else {
        note_skip("the zstd command, which is not here; the zstd library read the objects instead");
        return String::from_utf8(zstd::decode_all(bytes).expect("zstd frames")).expect("UTF-8");
    };
    let mut stdin = command.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("zstd reads"));
        let output = command.wait_with_output().expect("zstd ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("UTF-8")
    })
}

async fn the_whole_way(tiers: &Tiers) {
    let truth = truth();
    let daemon = Daemon::start(tiers, &[("LOGTIER_ARCHIVE__OBJECT_SIZE", "64KiB")]).await;
    push_all(&daemon, &truth).await;
    check_api(&daemon, &truth).await;
    let report = daemon.archive().await;
    assert_eq!(report["failures"], serde_json::json!([]), "{report}");
    assert_eq!(report["lines"], records().lines().count(), "{report}");
    check_api(&daemon, &truth).await;
    check_objects(&daemon, &truth).await;
    let (app, instance) = truth.keys().next().expect("an instance");
    let shown = daemon.get(&format!("/apps/{app}/instances/{instance}")).await.expect(200).json();
    assert_eq!((&shown["state"], &shown["tiers"]["hot"]["lines"]), (&"archived".into(), &0.into()), "{shown}");
    daemon.stop().await;
}

#[test]
fn real_logs_come_back_from_both_tiers_and_from_zstdcat() {
    on_each_pair(|tiers| runtime().block_on(the_whole_way(tiers)));
}

#[test]
fn one_cold_read_is_one_ranged_get() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            let lines: String = (0..30_000).map(|n| format!("{{\"message\":\"line {n}\"}}\n")).collect();
            daemon.append("i", &lines).await.expect(200);
            daemon.finish("i").await.expect(200);
            daemon.archive().await;
            let gets = || daemon.app.store.counters().gets.load(std::sync::atomic::Ordering::Relaxed);
            for query in ["limit=10", "from_line=15000&limit=10", "last=5", "from_line=0&to_line=30000&limit=10000"] {
                let before = gets();
                let answer = daemon.get(&format!("/apps/default/instances/i/records?{query}")).await.expect(200);
                assert_eq!(answer.header("x-logtier-tier"), "cold", "{query}");
                assert_eq!(gets() - before, 1, "{query}");
            }
            daemon.stop().await;
        });
    });
}
