//! The life of an attempt through both tiers, against the parts themselves.

use futures::TryStreamExt;
use logtier::archive::Marked;
use logtier::cold::Key;
use logtier::ingest::{AppendError, Batch};
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

#[test]
fn a_hold_keeps_and_a_delete_takes() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            let (app, held, deleted) = ("a".parse().unwrap(), "held".parse().unwrap(), "deleted".parse().unwrap());
            for instance in ["held", "deleted", "other"] {
                daemon.app.ingest.append(batch(instance, numbered(instance, 0..10))).await.expect("stored");
            }
            let archiver = &daemon.app.archiver;
            assert_eq!(archiver.hold(&app, &held, None, true).await.unwrap(), Marked::Done);
            assert_eq!(archiver.delete(&app, &held, None).await.unwrap(), Marked::Held);
            assert_eq!(archiver.delete(&app, &"nobody".parse().unwrap(), None).await.unwrap(), Marked::Unknown);
            daemon.clock.advance(std::time::Duration::from_secs(25 * 3600));
            daemon.archive().await;
            assert_eq!(archiver.delete(&app, &deleted, None).await.unwrap(), Marked::Done);
            assert!(matches!(messages(&daemon.app, "deleted").await, Err(ReadError::Gone { .. })));
            let refused = daemon.app.ingest.append(batch("deleted", numbered("deleted", 0..1))).await;
            assert!(matches!(refused, Err(AppendError::Gone { .. })), "{refused:?}");
            // Far beyond everyone's retention only the held one is left.
            daemon.clock.advance(std::time::Duration::from_secs(300 * 24 * 3600));
            daemon.archive().await;
            assert!(matches!(messages(&daemon.app, "other").await, Err(ReadError::Gone { .. })));
            assert_eq!(messages(&daemon.app, "held").await.expect("readable"), numbered("held", 0..10));
            assert_eq!(archiver.hold(&app, &held, None, false).await.unwrap(), Marked::Done);
            daemon.archive().await;
            assert!(matches!(messages(&daemon.app, "held").await, Err(ReadError::Gone { .. })));
            let marks: Vec<_> = daemon.app.store.list(Key::marks_folder()).try_collect().await.unwrap();
            assert_eq!(marks.len(), 3, "a hold, a delete, a release");
            daemon.stop().await;
        });
    });
}

#[test]
fn the_newest_runs_of_a_job_stay() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[("LOGTIER_RETENTION__DEFAULT__KEEP_AT_LEAST", "2")]).await;
            for instance in ["first", "second", "third"] {
                let batch =
                    Batch { job: Some("nightly".parse().unwrap()), ..batch(instance, numbered(instance, 0..5)) };
                daemon.app.ingest.append(batch).await.expect("stored");
                daemon.clock.advance(std::time::Duration::from_secs(25 * 3600));
            }
            daemon.archive().await;
            daemon.clock.advance(std::time::Duration::from_secs(300 * 24 * 3600));
            assert_eq!(daemon.archive().await["expired"], 1);
            assert!(matches!(messages(&daemon.app, "first").await, Err(ReadError::Gone { .. })));
            assert_eq!(messages(&daemon.app, "second").await.expect("readable"), numbered("second", 0..5));
            assert_eq!(messages(&daemon.app, "third").await.expect("readable"), numbered("third", 0..5));
            daemon.stop().await;
        });
    });
}
