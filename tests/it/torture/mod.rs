//! Real processes under real faults: daemons are killed, the database is killed and cut off, the bucket is cut
//! off, both are slow, a disk is full; meanwhile clients write numbered lines and read them. At the end every
//! acknowledged line is read exactly once, in order, from every node and from the objects themselves.
//!
//! `make test` does it for seconds; `LOGTIER_TORTURE_MINUTES=n`, set by `make torture`, for as long as told,
//! and then the database is killed as well.

mod cluster;
mod disk;
mod load;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;

/// How long to go on, and whether this is the long run, which may kill the database.
fn told() -> (Duration, bool) {
    match std::env::var("LOGTIER_TORTURE_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok()) {
        Some(minutes) => (Duration::from_secs(60 * minutes), true),
        None => (Duration::from_secs(4), false),
    }
}

/// What was done and what was seen, for the table at the end.
#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    database_kills: AtomicU64,
    database_cuts: AtomicU64,
    store_cuts: AtomicU64,
    slow: AtomicU64,
    batches: AtomicU64,
    lines: AtomicU64,
    retries: AtomicU64,
    reads: AtomicU64,
    unavailable: AtomicU64,
}

impl Counts {
    fn rows(&self) -> Vec<(&'static str, u64)> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("daemons killed (SIGKILL)", of(&self.kills)),
            ("database killed and started again", of(&self.database_kills)),
            ("database cut off", of(&self.database_cuts)),
            ("bucket cut off", of(&self.store_cuts)),
            ("database or bucket slowed down", of(&self.slow)),
            ("batches acknowledged", of(&self.batches)),
            ("lines acknowledged", of(&self.lines)),
            ("requests sent again", of(&self.retries)),
            ("reads checked while it went on", of(&self.reads)),
            ("reads refused, the tier being away", of(&self.unavailable)),
        ]
    }

    fn print(&self, title: &str) {
        eprintln!("| {title} | |\n| --- | --- |");
        for (what, count) in self.rows() {
            eprintln!("| {what} | {count} |");
        }
    }
}

fn dice(range: std::ops::Range<u64>) -> u64 {
    rand::rng().random_range(range)
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
