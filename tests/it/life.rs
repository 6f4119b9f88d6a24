//! The life of an attempt through both tiers, against the parts themselves.

use futures::TryStreamExt;
use logtier::read::ReadError;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{batch, messages, numbered};
use crate::harness::on_each_pair;

#[test]
fn lines_are_the_same_before_during_and_after_the_move() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[("LOGTIER_ARCHIVE__OBJECT_SIZE", "64KiB")]).await;
            assert!(matches!(messages(&daemon.app, "small").await, Err(ReadError::NeverLogged)));
            let instances = [("small", 3), ("medium", 700), ("large", 20_000)];
            let sends = instances.map(|(instance, lines)| {
                let (ingest, all) = (daemon.app.ingest.clone(), numbered(instance, 0..lines));
                async move {
                    for some in all.chunks(500) {
                        ingest.append(batch(instance, some)).await.expect("stored");
                    }
                }
            });
            futures::future::join_all(sends).await;
            let check = async || {
                for (instance, lines) in instances {
                    assert_eq!(messages(&daemon.app, instance).await.expect("readable"), numbered(instance, 0..lines));
                }
            };
            check().await;
            daemon.clock.advance(std::time::Duration::from_secs(25 * 3600));
            let report = daemon.archive().await;
            assert_eq!(report["failures"], serde_json::json!([]), "{report}");
            assert_eq!(report["lines"], 20_703, "{report}");
            assert!(report["purged"].as_u64() >= Some(3), "{report}");
            check().await;
            // Late lines live beside the archived ones, and follow them.
            daemon.app.ingest.append(batch("medium", numbered("medium", 700..710))).await.expect("stored");
            assert_eq!(messages(&daemon.app, "medium").await.expect("readable"), numbered("medium", 0..710));
            daemon.clock.advance(std::time::Duration::from_secs(25 * 3600));
            assert_eq!(daemon.archive().await["lines"], 10);
            assert_eq!(messages(&daemon.app, "medium").await.expect("readable"), numbered("medium", 0..710));
            // And in the end nothing is left but the word that there was something.
            daemon.clock.advance(std::time::Duration::from_secs(200 * 24 * 3600));
            assert!(matches!(messages(&daemon.app, "large").await, Err(ReadError::Gone { .. })));
            let report = daemon.archive().await;
            assert_eq!(report["expired"], 3, "{report}");
            assert!(report["objects_deleted"].as_u64() >= Some(2), "{report}");
            let left: Vec<_> = daemon.app.store.list("v1/").try_collect().await.expect("a listing");
            assert_eq!(left.len(), 1, "only the cluster's own object stays: {left:?}");
            daemon.stop().await;
        });
    });
}
