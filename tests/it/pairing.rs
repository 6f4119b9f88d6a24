//! A daemon refuses tiers that are not its own, and says what to do.

use logtier::app;
use logtier::clock::Clock;
use logtier::cold::Key;
use logtier::db::SCHEMA_VERSION;

use crate::harness::daemon::{Daemon, config, runtime};
use crate::harness::logs::{append, finish, numbered};
use crate::harness::{Tiers, on_each_pair};

/// What a daemon says that does not start.
async fn refusal(tiers: &Tiers, settings: &[(&str, &str)]) -> String {
    match app::start(&config(tiers, settings), Clock::default()).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            append(&daemon.app, "one", &numbered("one", 0..10)).await;
            finish(&daemon.app, &daemon.clock, "one").await;
            daemon.archive().await;
            let store = daemon.app.store.clone();
            daemon.stop().await;
            let says = |refusal: String, words: &str| assert!(refusal.contains(words), "{words}: {refusal}");
            says(refusal(tiers, &[("LOGTIER_HOT__SHARDS", "8")]).await, "set it back to what the database has");
            let cluster = app::open_hot_tier(&config(tiers, &[]), &Clock::default()).await.expect("open");
            let db = cluster.servers()[0].clone();
            db.set_meta("schema", &(SCHEMA_VERSION + 1).to_string()).await.expect("noted");
            says(refusal(tiers, &[]).await, "start the newer logtier that made it");
            db.set_meta("schema", &SCHEMA_VERSION.to_string()).await.expect("noted");
            let ours = store.get(&Key::cluster()).await.expect("there");
            store.put(&Key::cluster(), "{}".into()).await.expect("written");
            says(refusal(tiers, &[]).await, "rebuild-catalog");
            store.delete(&Key::cluster()).await.expect("deleted");
            says(refusal(tiers, &[]).await, "check cold.url");
            store.put(&Key::cluster(), ours).await.expect("written");
            cluster.close().await;
            Daemon::start(tiers, &[]).await.stop().await;
        });
    });
}
