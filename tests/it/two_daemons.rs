//! Two daemons on one database and one bucket give one answer.
//!
//! Both are written to and archive all the time, while readers ask both and compare. At the end everything
//! must be there once, in the order that the acknowledgements gave.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use logtier::clock::Clock;
use logtier::ingest::{AppendError, Batch};
use logtier::model::LineRange;
use rand::Rng;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{batch, finish, home, messages, number, numbered, read_range, row, tiers};
use crate::harness::{ColdStore, Engine, Tiers};

/// Instances that both daemons are written to, and some that only one is.
const SHARED: [&str; 4] = ["s0", "s1", "s2", "s3"];
const OWN: [[&str; 2]; 2] = [["a0", "a1"], ["b0", "b1"]];

/// Waves of writing, all writers together, and the batches of each writer in each. Between them a run of the
/// archiver finds an end, so that the lease changes hands.
const WAVES: usize = 8;
const BATCHES: usize = 12;

/// What was acknowledged: of each instance the messages by line number.
#[derive(Default)]
struct Model(Mutex<BTreeMap<String, BTreeMap<u64, String>>>);

impl Model {
    fn note(&self, instance: &str, first_line: u64, messages: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(instance.to_owned()).or_default();
        for (line, message) in (first_line..).zip(messages) {
            assert!(known.insert(line, message.clone()).is_none(), "{instance}: line {line} was given out twice");
        }
    }

    fn lines(&self, instance: &str) -> BTreeMap<u64, String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(instance).cloned().unwrap_or_default()
    }

    fn instances(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// All that was acknowledged before the call is in `read`, line by line.
    fn check(&self, acknowledged: &BTreeMap<u64, String>, read: &[String], instance: &str) {
        for (line, message) in acknowledged {
            let found = read.get(*line as usize);
            assert_eq!(found, Some(message), "{instance}: line {line} of {} that were read", read.len());
        }
    }
}

/// Two daemons that share everything, their clock too.
async fn two(tiers: &Tiers) -> [Daemon; 2] {
    let clock = Clock::default();
    let settings = [("LOGTIER_ARCHIVE__OBJECT_SIZE", "64KiB")];
    [Daemon::start_at(tiers, &settings, clock.clone()).await, Daemon::start_at(tiers, &settings, clock).await]
}

/// Sends batches to a daemon, now and then a finish, after which lines are late.
async fn write(daemon: &Daemon, model: &Model, who: usize, writer: usize, wave: usize) {
    let instances = [&SHARED[..], &OWN[who][..]].concat();
    for n in wave * BATCHES..(wave + 1) * BATCHES {
        let (instance, lines) = {
            let mut random = rand::rng();
            (instances[random.random_range(0..instances.len())], random.random_range(1..60))
        };
        let messages = numbered(&format!("{who}.{writer}.{n} {instance}"), 0..lines);
        let appended = daemon.app.ingest.append(batch(instance, &messages)).await.expect("stored");
        assert_eq!(appended.lines, lines as u64);
        model.note(instance, appended.first_line, &messages);
        if n % 10 == writer % 10 {
            finish(&daemon.app, &daemon.clock, instance).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the same from both: what was acknowledged is on both at once, and a closed range is the same bytes.
async fn compare(daemons: &[Daemon; 2], model: &Model, over: &AtomicBool) -> (usize, [usize; 3]) {
    let (mut reads, mut touched) = (0, [0; 3]);
    while !over.load(Ordering::SeqCst) {
        for instance in model.instances() {
            let acknowledged = model.lines(&instance);
            let (one, other) =
                futures::join!(messages(&daemons[0].app, &instance), messages(&daemons[1].app, &instance));
            let (one, other) = (one.expect("readable on the first"), other.expect("readable on the second"));
            model.check(&acknowledged, &one, &instance);
            model.check(&acknowledged, &other, &instance);
            let both = one.len().min(other.len());
            assert!(one[..both] == other[..both], "{instance}: the daemons tell different stories");
            let closed = LineRange::new(both as u64 / 3, both as u64);
            let (one, other) = futures::join!(
                read_range(&daemons[0].app, &instance, closed),
                read_range(&daemons[1].app, &instance, closed)
            );
            let ((one, from), (other, _)) = (one.expect("readable"), other.expect("readable"));
            assert!(one == other, "{instance}: the daemons give other bytes for lines {closed}");
            reads += 4;
            let at = ["hot", "hot+cold", "cold"].iter().position(|tiers| *tiers == from.as_str());
            if let Some(at) = at {
                touched[at] += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (reads, touched)
}

/// Archives again and again; the reports' lines.
async fn archive(daemon: &Daemon, runs: &AtomicUsize, over: &AtomicBool) -> u64 {
    let mut lines = 0;
    while !over.load(Ordering::SeqCst) {
        let report = daemon.archive().await;
        assert_eq!(report["failures"], serde_json::json!([]), "{report}");
        lines += report["lines"].as_u64().expect("a number");
        runs.fetch_add(1, Ordering::SeqCst);
        // Long enough for the other, which looks for a free lease five times a second.
        let pause = rand::rng().random_range(200..500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    lines
}

#[test]
fn two_daemons_give_one_answer_at_every_moment() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let daemons = two(&tiers).await;
        let (model, over) = (Model::default(), AtomicBool::new(false));
        let runs = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let both_archived = || runs.iter().all(|runs| runs.load(Ordering::SeqCst) > 1);
        let writers = async {
            for wave in 0.. {
                // A busy machine takes longer until each had its turn.
                if wave >= WAVES && both_archived() || wave >= 10 * WAVES {
                    break;
                }
                let writers = [(0, 0), (0, 1), (1, 2), (1, 3)];
                let writers = writers.map(|(who, writer)| write(&daemons[who], &model, who, writer, wave));
                futures::future::join_all(writers).await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            over.store(true, Ordering::SeqCst);
        };
        let (_, (reads, touched), first, second) = futures::join!(
            writers,
            compare(&daemons, &model, &over),
            archive(&daemons[0], &runs[0], &over),
            archive(&daemons[1], &runs[1], &over)
        );
        eprintln!("{reads} reads {touched:?} (hot, hot+cold, cold), {runs:?} runs, lines {first} {second}");
        assert!(touched.iter().sum::<usize>() > 10 && touched[1] + touched[2] > 0, "nothing moved while it was read");
        assert!(both_archived(), "both archive");
        all_is_there_and_cold(&daemons, &model).await;
        for daemon in daemons {
            daemon.stop().await;
        }
    });
}

/// Finishes everything, archives it, and compares every instance with the model.
async fn all_is_there_and_cold(daemons: &[Daemon; 2], model: &Model) {
    for instance in model.instances() {
        finish(&daemons[1].app, &daemons[1].clock, &instance).await;
    }
    let (one, other) = futures::join!(daemons[0].archive(), daemons[1].archive());
    assert_eq!((&one["state"], &other["state"]), (&"done".into(), &"done".into()), "{one} {other}");
    for instance in model.instances() {
        let expected: Vec<String> = model.lines(&instance).into_values().collect();
        for daemon in daemons {
            assert!(messages(&daemon.app, &instance).await.expect("readable") == expected, "{instance} differs");
            assert_eq!(tiers(&daemon.app, &instance).await, "cold", "{instance}");
        }
        let attempt = row(&daemons[0].app, &instance).await;
        assert_eq!(
            (attempt.next_line, attempt.purged_line, attempt.archived_line),
            (expected.len() as u64, attempt.next_line, attempt.next_line)
        );
    }
    // No object stands for nothing, and no upload is left over.
    let home = home(&daemons[0].app, "s0");
    assert_eq!(number(&home, "SELECT COUNT(*) FROM segment WHERE state <> 1 OR entries <= dead_entries").await, 0);
}

#[test]
fn what_one_daemon_acknowledged_the_other_shows() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let daemons = two(&tiers).await;
        for n in 0..60usize {
            let (writer, reader) = (&daemons[n % 2], &daemons[(n + 1) % 2]);
            let expected = Batch { at_line: Some(n as u64 * 3), ..batch("i", numbered("i", n * 3..n * 3 + 3)) };
            let stale = Batch { at_line: Some(n as u64 * 3), ..batch("i", ["too late"]) };
            writer.app.ingest.append(expected).await.expect("stored");
            // The other daemon knows it in the same moment, also which line comes next.
            assert_eq!(messages(&reader.app, "i").await.expect("readable"), numbered("i", 0..n * 3 + 3));
            let refused = reader.app.ingest.append(stale).await;
            assert!(matches!(refused, Err(AppendError::NotNextLine { next_line }) if next_line == n as u64 * 3 + 3));
            if n % 20 == 10 {
                finish(&reader.app, &reader.clock, "i").await;
                assert!(writer.archive().await["lines"].as_u64() > Some(0));
            }
        }
        for daemon in daemons {
            daemon.stop().await;
        }
    });
}
