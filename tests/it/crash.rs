//! `kill -9` after each verb of the archiver: nothing lost, nothing twice, nothing left behind.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use logtier::clock::Clock;
use logtier::cold::KeyKind;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::process::Process;
use crate::harness::{Tiers, on_each_pair};

/// A short lease, so that the next daemon need not wait for the dead one's; nothing waits a day.
const SETTINGS: [(&str, &str); 4] = [
    ("LOGTIER_ARCHIVE__LEASE_TTL", "1s"),
    ("LOGTIER_ARCHIVE__ABANDONED_AFTER", "0s"),
    ("LOGTIER_ARCHIVE__DOOMED_FOR", "0s"),
    ("LOGTIER_ARCHIVE__OBJECT_SIZE", "16KiB"),
];

const INSTANCES: [(&str, usize); 3] = [("one", 1), ("some", 400), ("many", 6_000)];

fn log_of(instance: &str, lines: usize) -> String {
    (0..lines).map(|n| format!("{instance} {n} {:x}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

async fn push_all(daemon: &Process) {
    for (instance, lines) in INSTANCES {
        let path = format!("/apps/a/instances/{instance}/records");
        let (status, answer) = daemon.post(&path, "text/plain", log_of(instance, lines)).await;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) =
            daemon.post(&format!("/apps/a/instances/{instance}/finish"), "application/json", "{}").await;
        assert_eq!(status, 200, "{answer}");
    }
}

async fn check_all(daemon: &Process) {
    for (instance, lines) in INSTANCES {
        let (status, text) = daemon.get(&format!("/apps/a/instances/{instance}/download?format=raw")).await;
        assert_eq!(status, 200, "{text}");
        assert!(text == log_of(instance, lines), "{instance} differs: {} bytes", text.len());
    }
}

/// Every object of the bucket is one that some attempt needs, and the other way round.
async fn nothing_is_left_behind(tiers: &Tiers) {
    let daemon = Daemon::start_at(tiers, &SETTINGS, Clock::default()).await;
    let mut needed = BTreeSet::new();
    for (instance, _) in INSTANCES {
        let view = daemon.app.reader.open(&"a".parse().unwrap(), &instance.parse().unwrap(), None).await.unwrap();
        assert_eq!(view.attempt.hot_lines().len(), 0, "{instance} is not archived");
        assert_eq!(view.attempt.purged_line, view.attempt.next_line, "{instance} is not purged");
        let home = daemon.app.catalog.cluster.home(&"a".parse().unwrap(), &instance.parse().unwrap());
        let segments = daemon.app.catalog.segments_of(&home, view.attempt.id, 1000).await.unwrap();
        needed.extend(segments.into_iter().map(|segment| segment.ulid));
    }
    let listed: Vec<_> = daemon.app.store.list("v1/").try_collect().await.unwrap();
    let found = listed.into_iter().filter_map(|object| match object.key.kind() {
        KeyKind::Segment(name) => Some(name.ulid),
        _ => None,
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), needed);
    daemon.stop().await;
}

fn killed_after(verb: &str) {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let paused = [&SETTINGS[..], &[("LOGTIER_PAUSE_AFTER", verb)]].concat();
            let daemon = Process::start(tiers, &paused).await;
            push_all(&daemon).await;
            let (status, answer) = daemon.post("/archive", "application/json", "").await;
            assert_eq!(status, 202, "{answer}");
            daemon.wait_for_words(&format!("paused after {verb}")).await;
            check_all(&daemon).await;
            daemon.kill();

            let daemon = Process::start(tiers, &SETTINGS).await;
            check_all(&daemon).await;
            let report = daemon.archive().await;
            assert_eq!(report["failures"], serde_json::json!([]), "{report}");
            check_all(&daemon).await;
            daemon.archive().await;
            check_all(&daemon).await;
            daemon.terminate();
            nothing_is_left_behind(tiers).await;
        });
    });
}

#[test]
fn killed_after_claim() {
    killed_after("claim");
}

#[test]
fn killed_after_plan() {
    killed_after("plan");
}

#[test]
fn killed_after_build() {
    killed_after("build");
}

#[test]
fn killed_after_verify() {
    killed_after("verify");
}

#[test]
fn killed_after_publish() {
    killed_after("publish");
}

#[test]
fn killed_after_purge() {
    killed_after("purge");
}

/// An SQLite file is for one daemon; a killed one keeps nobody out.
#[test]
fn a_second_daemon_on_one_file_is_refused() {
    let tiers = Tiers::new(crate::harness::Engine::Sqlite, crate::harness::ColdStore::Folder).expect("always there");
    runtime().block_on(async {
        let first = Process::start(&tiers, &SETTINGS).await;
        let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_logtier"));
        second.arg("serve").env("LOGTIER_SERVER__LISTEN", "127.0.0.1:0").envs(tiers.env());
        let ended = second.output().expect("run logtier");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains("another daemon (process "), "{said}");
        first.kill();
        Process::start(&tiers, &SETTINGS).await.terminate();
    });
}
