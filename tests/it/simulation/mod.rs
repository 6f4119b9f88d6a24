//! A seeded simulation of the whole life of logs, against a model in plain memory.
//!
//! One to three daemons on one database and one bucket; clients that write, send again, finish,
//! delete, hold and read; crashes at any point, zombies, stores and databases that fail, time that
//! passes and jumps. Every answer is checked against the model (`model.rs`): acknowledged lines are
//! there, once, under their numbers, until their retention ends or someone deletes them.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LOGTIER_SEED=N` | replays one seed and shows its trace |
//! | `LOGTIER_FIRST_SEED=N` | begins there instead of at 1 |
//! | `LOGTIER_TORTURE_MINUTES=N` | goes on for so long instead of a fixed number of seeds |

mod daemon;
mod driver;
mod interleavings;
mod model;
mod ops;
mod settle;
mod store;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use logtier::archive::ArchiveSettings;
use logtier::cold::Store;
use logtier::cold::segment::SegmentSettings;
use logtier::config::{Config, Env};
use logtier::model::{Age, Millis};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::harness::mysql::TestDatabase;
use crate::harness::{block_on_elsewhere, s3};
use daemon::Place;
use driver::Driver;
use model::{Ages, Violation};
use ops::Plan;
use store::FaultStore;
use world::Fate;

/// Seeds of `make test`: a few seconds.
const SEEDS: u64 = 30;
const SEEDS_ON_MARIADB: u64 = 1;

/// Noon of some day: a simulated day's end comes within its first half.
const BEGINNING: i64 = 1_800_014_400_000;

/// The retention of every simulated attempt, in hours.
const COLD_FOR: u64 = 72;
const FORGET_AFTER: u64 = 48;

fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

fn ages() -> Ages {
    let millis = |span: Duration| span.as_millis() as i64;
    Ages {
        cold_for: millis(hours(COLD_FOR)),
        forget_after: millis(hours(FORGET_AFTER)),
        dedup_window: millis(hours(24)),
    }
}

/// What daemons of a simulation are told: everything happens within days.
fn settings() -> ArchiveSettings {
    let env: Env = [
        ("LOGTIER_DATA_DIR", "/nowhere".to_owned()),
        ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "1h".to_owned()),
        ("LOGTIER_RETENTION__DEFAULT__COLD_FOR", format!("{COLD_FOR}h")),
        ("LOGTIER_RETENTION__DEFAULT__MAX_OPEN_FOR", "6h".to_owned()),
        ("LOGTIER_RETENTION__FORGET_AFTER", format!("{FORGET_AFTER}h")),
        ("LOGTIER_ARCHIVE__LEASE_TTL", format!("{}s", daemon::LEASE_TTL.as_secs())),
        ("LOGTIER_ARCHIVE__MAX_DELAY", "20m".to_owned()),
        ("LOGTIER_ARCHIVE__DOOMED_FOR", "48h".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let config = Config::load(None, &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.retention.forget_after, Age::For(hours(FORGET_AFTER)));
    logtier::app::archive_settings(&config, CLUSTER, "d")
}

const CLUSTER: &str = "01SIMULATED";

/// A bucket that is the simulated cluster's, as a daemon's first start makes it.
async fn bucket(objects: Arc<dyn ObjectStore>, fate: &Arc<Fate>) -> Arc<FaultStore> {
    Store::from_object_store(Arc::clone(&objects), "sim").put_cluster_id(CLUSTER).await.expect("marked");
    FaultStore::new(objects, Arc::clone(fate))
}

/// Tables as `migrate` makes them, copied for each seed.
struct Template {
    folder: tempfile::TempDir,
}

impl Template {
    fn new() -> Self {
        // Memory, where there is such a folder: what a disk does is not what is simulated.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let template = Self { folder: folder.expect("a folder") };
        block_on_elsewhere(daemon::migrate(&template.url("template")));
        template
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite://{}", self.file(name).display())
    }

    /// The database of a seed; its file goes with it.
    fn copy(&self, name: &str) -> String {
        std::fs::copy(self.file("template"), self.file(name)).expect("copy the template");
        self.url(name)
    }

    fn remove(&self, name: &str) {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = self.file(name).into_os_string();
            file.push(suffix);
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What became of some seeds.
#[derive(Default)]
struct Tally {
    seeds: u64,
    steps: u64,
    crashes: u64,
    reads: u64,
    lines: u64,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, Violation)>,
}

impl Tally {
    fn add(&mut self, driver: &Driver) {
        self.steps += driver.steps;
        self.crashes += driver.crashes;
        self.reads += driver.model.reads;
        self.lines += driver.model.lines_checked;
        for (what, count) in driver.fate.counts().iter() {
            *self.counts.entry(what).or_default() += count;
        }
    }

    fn show(&self, what: &str, took: Duration) {
        let row = |what: &str, count: u64| eprintln!("| {what} | {count} |");
        eprintln!("| {what}, {:.0} s | count |\n| --- | ---: |", took.as_secs_f64());
        row("seeds", self.seeds);
        row("steps", self.steps);
        row("crashes", self.crashes);
        for (what, count) in &self.counts {
            row(what, *count);
        }
        row("reads checked", self.reads);
        row("lines checked", self.lines);
        row("violations", self.violations.len() as u64);
    }
}

/// Plays one seed on a database and a bucket of its own.
async fn play(seed: u64, database_url: String, objects: Arc<dyn ObjectStore>) -> (Driver, Result<(), Violation>) {
    let fate = Fate::new(seed, Millis::new(BEGINNING));
    let mut plan = Plan::new(seed);
    let settings = ArchiveSettings {
        object_bytes: plan.object_bytes(),
        rewrite: plan.rewrite(),
        segment: SegmentSettings { level: 1, frame_size: plan.frame_size(), parallelism: 1, filters: true },
        ..settings()
    };
    let objects = bucket(objects, &fate).await;
    let place = Place { database_url, objects, settings };
    let daemons = plan.daemons();
    let mut driver = Driver::new(place, fate, daemons, ages()).await;
    plan.set_faults(&driver);
    let played = AssertUnwindSafe(async {
        plan.play(&mut driver).await?;
        settle::settle(&mut driver).await?;
        if seed.is_multiple_of(2) { settle::end_of_days(&mut driver, ages().cold_for).await } else { Ok(()) }
    });
    let result = played.catch_unwind().await.unwrap_or_else(|panic| Err(words(&panic)));
    (driver, result)
}

fn words(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Plays a seed; the trace is shown where it breaks a promise, or where somebody asked.
fn play_alone(template: &Template, seed: u64, tally: &Mutex<Tally>, show: bool) {
    let name = format!("seed{seed}");
    let (url, runtime) = (template.copy(&name), runtime());
    let (mut driver, result) = runtime.block_on(play(seed, url, Arc::new(InMemory::new())));
    if show || result.is_err() {
        for line in &driver.trace {
            eprintln!("{line}");
        }
    }
    {
        let mut tally = tally.lock().expect("no panic");
        tally.seeds += 1;
        tally.add(&driver);
        if let Err(violation) = result {
            eprintln!("VIOLATION with LOGTIER_SEED={seed}: {violation}");
            tally.violations.push((seed, violation));
        }
    }
    runtime.block_on(driver.close());
    template.remove(&name);
}

/// The same seed must give the same run, or its number is worth nothing.
#[test]
fn a_seed_gives_the_same_run_again() {
    let template = Template::new();
    let traces = ["one", "other"].map(|name| {
        let (url, runtime) = (template.copy(name), runtime());
        let (mut driver, result) = runtime.block_on(play(7, url, Arc::new(InMemory::new())));
        assert_eq!(result, Ok(()));
        let counts = driver.fate.counts().clone();
        runtime.block_on(driver.close());
        (driver.trace, counts)
    });
    assert!(!traces[0].0.is_empty() && traces[0] == traces[1], "two runs of one seed differ");
}

/// Some seeds on the pair of a cluster: each makes its tables, which takes a second.
#[test]
fn seeds_keep_every_promise_on_mariadb_and_s3() {
    logtier::cold::install_crypto_provider();
    let until = number("LOGTIER_TORTURE_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let (began, mut tally) = (Instant::now(), Tally::default());
    for seed in 1_000_000.. {
        if until.map_or(tally.seeds >= SEEDS_ON_MARIADB, |until| Instant::now() >= until) {
            break;
        }
        let Some(database) = TestDatabase::create() else { return };
        block_on_elsewhere(daemon::migrate(database.url()));
        let (place, _server) = s3::place_for_a_test();
        let runtime = runtime();
        let (mut driver, result) = runtime.block_on(play(seed, database.url().to_owned(), Arc::new(place.store())));
        tally.seeds += 1;
        tally.add(&driver);
        let trace = Vec::from(std::mem::take(&mut driver.trace)).join("\n");
        runtime.block_on(driver.close());
        if let Err(violation) = result {
            eprintln!("{trace}\nVIOLATION on MariaDB and S3 with seed {seed}: {violation}");
            tally.violations.push((seed, violation));
            break;
        }
    }
    tally.show("simulation on MariaDB and S3", began.elapsed());
    assert!(tally.violations.is_empty(), "promises were broken: {:?}", tally.violations);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// So many violations end a run: more would say the same.
const ENOUGH: usize = 5;

#[test]
fn every_seed_keeps_every_promise() {
    let (template, tally) = (Template::new(), Mutex::new(Tally::default()));
    let began = Instant::now();
    if let Some(seed) = number("LOGTIER_SEED") {
        play_alone(&template, seed, &tally, true);
    } else {
        let first = number("LOGTIER_FIRST_SEED").unwrap_or(1);
        let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
        let until = number("LOGTIER_TORTURE_MINUTES").map(|minutes| began + Duration::from_secs(60 * minutes));
        let is_over = |seed: u64| until.map_or(seed >= first + SEEDS, |until| Instant::now() >= until);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::SeqCst);
                        if is_over(seed) || enough.load(Ordering::SeqCst) {
                            return;
                        }
                        play_alone(&template, seed, &tally, false);
                        if tally.lock().expect("no panic").violations.len() >= ENOUGH {
                            enough.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
    let tally = tally.into_inner().expect("no panic");
    tally.show("simulation", began.elapsed());
    let seeds: Vec<String> =
        tally.violations.iter().map(|(seed, what)| format!("LOGTIER_SEED={seed}: {what}")).collect();
    assert!(seeds.is_empty(), "promises were broken:\n{}", seeds.join("\n"));
}
