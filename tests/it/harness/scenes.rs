//! What many tests begin with: a daemon on each pair of tiers, a log that is due, a run that is held up.

use std::future::Future;

use hyper::Method;
use serde_json::Value;

use super::daemon::{Daemon, runtime};
use super::logs::{append, finish, numbered};
use super::s3::{Fault, Gate, S3Server};
use super::{ColdStore, Engine, Tiers, note_skip, on_each_pair};

/// A daemon on each pair of tiers.
pub fn on_each(settings: &[(&str, &str)], test: impl AsyncFn(&Daemon)) {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, settings).await;
            test(&daemon).await;
            daemon.stop().await;
        });
    });
}

/// A daemon on an S3 whose requests the test can hold and break, on both engines.
pub fn on_each_engine(settings: &[(&str, &str)], test: impl AsyncFn(&Daemon, &S3Server)) {
    for engine in [Engine::Sqlite, Engine::MySql] {
        let Some(tiers) = Tiers::new(engine, ColdStore::S3) else { continue };
        let Some(s3) = tiers.s3_server() else { return note_skip("faults of S3, which is not in this process") };
        eprintln!("on {engine:?}");
        runtime().block_on(async {
            let daemon = Daemon::start(&tiers, settings).await;
            test(&daemon, s3).await;
            daemon.stop().await;
        });
    }
}

/// An instance of so many lines, finished: due at once.
pub async fn due(daemon: &Daemon, instance: &str, lines: usize) -> Vec<String> {
    let all = numbered(instance, 0..lines);
    append(&daemon.app, instance, &all).await;
    finish(&daemon.app, &daemon.clock, instance).await;
    all
}

/// Runs the archiver; its first request of `method` waits while `meanwhile` goes on.
pub async fn archive_with(
    daemon: &Daemon,
    s3: &S3Server,
    method: Method,
    meanwhile: impl Future<Output = ()>,
) -> Value {
    let gate = Gate::default();
    s3.fail_next(1, Some(method), Fault::Hold(gate.clone()));
    let disturb = async {
        gate.arrived().await;
        meanwhile.await;
        gate.open();
    };
    tokio::join!(daemon.archive(), disturb).0
}
