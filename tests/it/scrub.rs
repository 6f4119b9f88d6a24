//! The scrub reads every object, remembers how far it is, and tells what it found until it is well again.

use logtier::audit::{Audit, Scrub, ScrubSettings};
use logtier::cold::KeyKind;
use logtier::model::Age;

use futures::TryStreamExt;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, finish, numbered};
use crate::harness::on_each_pair;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

fn scrub(daemon: &Daemon, bytes_per_second: u64) -> Scrub {
    let app = &daemon.app;
    Scrub {
        audit: Audit { catalog: app.catalog.clone(), store: app.store.clone(), clock: daemon.clock.clone() },
        metrics: app.metrics.clone(),
        settings: ScrubSettings { every: Age::For(7 * DAY), bytes_per_second, daemon: "scrubber".to_owned() },
        stop: tokio_util::sync::CancellationToken::new(),
    }
}

async fn told(daemon: &Daemon) -> serde_json::Value {
    daemon.get("/status").await.expect(200).json()["scrub"].clone()
}

#[test]
fn what_went_bad_is_found_and_told_until_it_is_well() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            for instance in ["one", "two"] {
                append(&daemon.app, instance, &numbered(instance, 0..100)).await;
                finish(&daemon.app, &daemon.clock, instance).await;
                daemon.archive().await;
            }
            let store = &daemon.app.store;
            let objects: Vec<_> = store.list("v1/app=a/").try_collect().await.expect("a listing");
            let object = objects.iter().find(|o| matches!(o.key.kind(), KeyKind::Segment(_))).expect("an object");
            let good = store.get(&object.key).await.expect("read");
            let mut bad = good.to_vec();
            bad[10] ^= 1;
            store.put(&object.key, bad.into()).await.expect("written");
            let fast = scrub(&daemon, u64::MAX);
            fast.tick().await;
            let scrub = told(&daemon).await;
            assert_eq!(
                (&scrub["pass_objects"], scrub["findings"].as_array().map(Vec::len)),
                (&2.into(), Some(1)),
                "{scrub}"
            );
            assert_eq!(scrub["findings"][0]["object"], object.key.as_str(), "{scrub}");
            assert!(scrub["pass_ended_at"].is_string(), "{scrub}");
            assert_eq!(daemon.app.metrics.scrubbed_objects.get(), 2);
            // Not due again before its time; then the object is well.
            store.put(&object.key, good).await.expect("written");
            daemon.clock.advance(6 * DAY);
            fast.tick().await;
            assert_eq!(daemon.app.metrics.scrubbed_objects.get(), 2);
            daemon.clock.advance(2 * DAY);
            fast.tick().await;
            assert_eq!(daemon.app.metrics.scrubbed_objects.get(), 4);
            assert_eq!(told(&daemon).await["findings"], serde_json::json!([]));
            daemon.stop().await;
        });
    });
}

#[test]
fn a_scrub_goes_on_where_it_was() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            for instance in ["one", "two", "three"] {
                append(&daemon.app, instance, &numbered(instance, 0..100)).await;
                finish(&daemon.app, &daemon.clock, instance).await;
                daemon.archive().await;
            }
            // So slow that it rests for hours after the first object, until it is told to stop.
            let slow = scrub(&daemon, 1);
            let (stop, metrics) = (slow.stop.clone(), daemon.app.metrics.clone());
            let stopped = async {
                while metrics.scrubbed_objects.get() == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                // One daemon at a time.
                scrub(&daemon, u64::MAX).tick().await;
                stop.cancel();
            };
            futures::future::join(slow.tick(), stopped).await;
            assert_eq!(daemon.app.metrics.scrubbed_objects.get(), 1);
            assert!(told(&daemon).await["pass_ended_at"].is_null());
            scrub(&daemon, u64::MAX).tick().await;
            assert_eq!(daemon.app.metrics.scrubbed_objects.get(), 3);
            let told = told(&daemon).await;
            assert!(told["pass_objects"] == 3 && told["pass_ended_at"].is_string(), "{told}");
            daemon.stop().await;
        });
    });
}
