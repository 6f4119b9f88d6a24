//! `verify` finds what is wrong, tells nothing that is not, and changes nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures::TryStreamExt;
use logtier::app::App;
use logtier::audit::{Audit, Finding, FindingKind, Progress, Scope, VerifySettings, VerifySummary, verify};
use logtier::cold::{Key, KeyKind, Listed};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, batch, finish, home, numbered, row, sql};
use crate::harness::on_each_pair;

/// Runs it and answers what it told.
async fn run(daemon: &Daemon, settings: VerifySettings) -> (VerifySummary, Vec<Finding>) {
    let App { catalog, store, .. } = &daemon.app;
    let audit = Audit { catalog: catalog.clone(), store: store.clone(), clock: daemon.clock.clone() };
    let found = Mutex::new(Vec::new());
    let tell = |finding: &Finding| found.lock().unwrap().push(finding.clone());
    let summary = verify(&audit, &settings, &Progress::default(), tell).await.expect("both tiers answer");
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|finding| (finding.kind, finding.name.clone()));
    (summary, found)
}

fn quick() -> VerifySettings {
    VerifySettings::default()
}

fn full() -> VerifySettings {
    VerifySettings { read_share: 1.0, ..VerifySettings::default() }
}

async fn objects(daemon: &Daemon) -> Vec<Listed> {
    let listed: Vec<_> = daemon.app.store.list("v1/app=a/").try_collect().await.expect("a listing");
    let mut listed: Vec<_> = listed.into_iter().filter(|o| matches!(o.key.kind(), KeyKind::Segment(_))).collect();
    listed.sort_by(|one, other| one.key.cmp(&other.key));
    listed
}

/// Three instances of three days, each in an object of its own, and one in the hot tier.
async fn filled(tiers: &crate::harness::Tiers) -> Daemon {
    let daemon = Daemon::start(tiers, &[]).await;
    for instance in ["one", "two", "three"] {
        append(&daemon.app, instance, &numbered(instance, 0..250)).await;
        finish(&daemon.app, &daemon.clock, instance).await;
        assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
        daemon.clock.advance(std::time::Duration::from_secs(24 * 3600));
    }
    append(&daemon.app, "hot", &numbered("hot", 0..250)).await;
    daemon
}

fn kinds(found: &[Finding]) -> Vec<FindingKind> {
    found.iter().map(|finding| finding.kind).collect()
}

#[test]
fn nothing_is_told_of_tiers_in_order() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = filled(tiers).await;
            for settings in [quick(), full()] {
                let (summary, found) = run(&daemon, settings).await;
                assert_eq!((found, summary.objects, summary.attempts), (vec![], 3, 4), "{summary:?}");
            }
            assert_eq!(run(&daemon, full()).await.0.objects_read, 3);
            let since = Some(logtier::model::Millis::new(daemon.clock.now().get() - 30 * 3600 * 1000));
            let recent = VerifySettings { scope: Scope { since, ..Scope::default() }, ..full() };
            let (summary, _) = run(&daemon, recent).await;
            assert!(summary.objects < 3 && summary.attempts < 4, "{summary:?}");
            let other = Scope { app: Some("other".parse().unwrap()), ..Scope::default() };
            let (summary, _) = run(&daemon, VerifySettings { scope: other, ..full() }).await;
            assert_eq!((summary.objects, summary.attempts), (0, 0));
            daemon.stop().await;
        });
    });
}

#[test]
fn missing_damaged_and_orphan_objects_are_told() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = filled(tiers).await;
            let store = &daemon.app.store;
            let objects = objects(&daemon).await;
            let [one, two, three] = &objects[..] else { panic!("three objects: {objects:?}") };
            let kept: BTreeMap<_, Bytes> = futures::future::join_all(
                objects.iter().map(async |o| (o.key.clone(), store.get(&o.key).await.unwrap())),
            )
            .await
            .into_iter()
            .collect();
            // Missing.
            store.delete(&one.key).await.unwrap();
            // One byte is another: only reading it tells.
            let mut bytes = kept[&two.key].to_vec();
            bytes[100] ^= 1;
            store.put(&two.key, bytes.into()).await.unwrap();
            // Orphans: a copy in another folder, under another ULID, and what is none of ours.
            let moved = three.key.as_str().replace("app=a/", "app=b/");
            let renamed =
                three.key.as_str().replace(&three.key.as_str()[three.key.as_str().len() - 20..], "00000000.ndjson.zst");
            let strange = ["v1/app=a/readme.txt".to_owned(), "v1/x/y".to_owned(), "v1/marks/z".to_owned()];
            let orphans: Vec<_> = [moved, renamed].into_iter().chain(strange).collect();
            for key in &orphans {
                store.put(&Key::stored(key), kept[&three.key].clone()).await.unwrap();
            }
            let (_, found) = run(&daemon, quick()).await;
            assert_eq!(kinds(&found)[0], FindingKind::Missing, "{found:?}");
            assert_eq!((found[0].name.as_str(), found[0].hit), (one.key.as_str(), 1), "{found:?}");
            assert_eq!(found[0].attempts, ["a/one#1"]);
            let mut told: Vec<_> = found[1..].iter().map(|finding| finding.name.clone()).collect();
            let mut expected = orphans.clone();
            told.sort();
            expected.sort();
            assert_eq!(told, expected);
            let (_, found) = run(&daemon, full()).await;
            assert_eq!(kinds(&found)[..2], [FindingKind::Missing, FindingKind::Damaged], "{found:?}");
            assert_eq!(
                (found[1].name.as_str(), &found[1].attempts[..]),
                (two.key.as_str(), &["a/two#1".to_owned()][..])
            );
            // A shorter object is told without reading it.
            store.put(&two.key, kept[&two.key].slice(..50)).await.unwrap();
            let (_, found) = run(&daemon, quick()).await;
            assert_eq!(kinds(&found)[..2], [FindingKind::Missing, FindingKind::Damaged], "{found:?}");
            for (key, bytes) in kept {
                store.put(&key, bytes).await.unwrap();
            }
            for key in orphans {
                store.delete(&Key::stored(key)).await.unwrap();
            }
            assert_eq!(run(&daemon, full()).await.1, []);
            daemon.stop().await;
        });
    });
}

#[test]
fn gaps_overlaps_and_damaged_chunks_are_told() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = filled(tiers).await;
            let (hot, one) = (home(&daemon.app, "hot"), home(&daemon.app, "one"));
            let (hot_id, one_id) = (row(&daemon.app, "hot").await.id.get(), row(&daemon.app, "one").await.id.get());
            let cases = [
                (&hot, format!("UPDATE chunk_{} SET first_line = 110, line_count = 90 WHERE attempt_id = {hot_id} AND first_line = 100", hot.shard), "100..110 are nowhere"),
                (&hot, format!("UPDATE chunk_{} SET first_line = 100, line_count = 105 WHERE attempt_id = {hot_id} AND first_line = 110", hot.shard), "200..205 are there twice"),
                (&hot, format!("UPDATE chunk_{} SET line_count = 100 WHERE attempt_id = {hot_id} AND first_line = 100", hot.shard), ""),
                (&one, format!("UPDATE part_{} SET line_count = 240 WHERE attempt_id = {one_id}", one.shard), "240..250"),
            ];
            for (home, statement, says) in cases {
                assert_eq!(sql(home, &statement).await, 1, "{statement}");
                let (_, found) = run(&daemon, quick()).await;
                let told: Vec<_> = found.iter().map(|finding| finding.what.as_str()).collect();
                assert!(if says.is_empty() { told.is_empty() } else { told.len() == 1 && told[0].contains(says) }, "{found:?}");
            }
            // What the part says is not what the object says: both are told.
            let (_, found) = run(&daemon, full()).await;
            assert_eq!(kinds(&found), [FindingKind::Damaged, FindingKind::Lines], "{found:?}");
            sql(&one, &format!("UPDATE part_{} SET line_count = 250 WHERE attempt_id = {one_id}", one.shard)).await;
            sql(&hot, &format!("UPDATE chunk_{} SET hash = hash + 1 WHERE attempt_id = {hot_id} AND first_line = 0", hot.shard)).await;
            assert_eq!(run(&daemon, quick()).await.1, []);
            let (_, found) = run(&daemon, full()).await;
            assert_eq!(kinds(&found), [FindingKind::Damaged], "{found:?}");
            daemon.stop().await;
        });
    });
}

/// Writers, the archiver, purges and expiry at work: nothing of it is taken for damage.
#[test]
fn a_busy_daemon_gives_no_false_alarm() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "3d")]).await;
            let work = async {
                for round in 0..12 {
                    for n in 0..4 {
                        let instance = format!("r{round} n{n}");
                        daemon.app.ingest.append(batch(&instance, numbered(&instance, 0..120))).await.expect("stored");
                        if n > 0 {
                            finish(&daemon.app, &daemon.clock, &instance).await;
                        }
                    }
                    assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
                    daemon.clock.advance(std::time::Duration::from_secs(20 * 3600));
                }
            };
            let looks = async {
                let mut looks = 0;
                loop {
                    for settings in [quick(), full()] {
                        assert_eq!(run(&daemon, settings).await.1, []);
                        looks += 1;
                    }
                    if looks > 200 {
                        break;
                    }
                }
            };
            futures::future::select(Box::pin(work), Box::pin(looks)).await;
            daemon.stop().await;
        });
    });
}
