//! Readers under the move: pages, tails, filters, downloads, followers and searches over two daemons,
//! all the time, while the same attempts are written, archived, rewritten and purged.
//!
//! Every answer must be right by itself: no gap, no repeat, nothing that was acknowledged missing, and
//! no 5xx. What a reader compares with is computed: line N of an instance says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use logtier::clock::Clock;
use rand::Rng;
use serde_json::Value;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::{ColdStore, Engine, Tiers};

const INSTANCES: [&str; 3] = ["r0", "r1", "r2"];
const BATCHES: u64 = 12;
const BATCH_LINES: u64 = 40;

/// What line `line` of an instance says; every tenth is an error, every 37th holds a rare word.
fn message(instance: &str, line: u64) -> String {
    let word = if line.is_multiple_of(37) { "needle " } else { "" };
    format!("{instance} line {line} {word}{}", "x".repeat((line % 60) as usize))
}

fn is_error(line: u64) -> bool {
    line.is_multiple_of(10)
}

struct Test {
    daemons: [Daemon; 2],
    /// Of each instance, how many lines were acknowledged.
    acknowledged: [AtomicU64; INSTANCES.len()],
    over: AtomicBool,
}

impl Test {
    fn any(&self) -> &Daemon {
        &self.daemons[rand::rng().random_range(0..2)]
    }

    fn known(&self, at: usize) -> u64 {
        self.acknowledged[at].load(Ordering::SeqCst)
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Records of a page, checked for what each says.
    async fn page(&self, instance: &str, query: &str) -> (Vec<u64>, Value) {
        let answer = self.any().get(&format!("/apps/default/instances/{instance}/records?{query}")).await.expect(200);
        let page = answer.json();
        let lines = page["records"].as_array().expect("records").iter().map(|record| {
            let line = record["line"].as_u64().expect("a line number");
            assert_eq!(record["message"], message(instance, line), "{instance}: line {line}");
            line
        });
        (lines.collect(), page)
    }
}

/// Appends to one instance over both daemons, and finishes it.
async fn write(test: &Test, at: usize) {
    let instance = INSTANCES[at];
    for batch in 0..BATCHES {
        let lines = batch * BATCH_LINES..(batch + 1) * BATCH_LINES;
        let records: Vec<String> = lines
            .map(|line| {
                let level = if is_error(line) { "ERROR" } else { "INFO" };
                serde_json::json!({"level": level, "source": "w", "message": message(instance, line)}).to_string()
            })
            .collect();
        test.any().append(instance, &records.join("\n")).await.expect(200);
        test.acknowledged[at].store((batch + 1) * BATCH_LINES, Ordering::SeqCst);
        // A neighbour in the same objects, which is deleted so that they are rewritten.
        let neighbour = format!("gone-{at}-{batch}");
        test.any().append(&neighbour, &records.join("\n")).await.expect(200);
        test.any().finish(&neighbour).await.expect(200);
        tokio::time::sleep(Duration::from_millis(30)).await;
        if batch % 3 == 2 {
            for old in batch - 2..=batch {
                let daemon = test.any();
                let path = format!("/api/v1/apps/default/instances/gone-{at}-{old}");
                daemon.send(daemon.client.delete(daemon.url(&path))).await.expect(204);
            }
        }
    }
    test.any().finish(instance).await.expect(200);
}

/// Pages from the first line to the end, again and again: each page goes on just where the last ended.
async fn page_through(test: &Test, at: usize) -> u64 {
    let (mut pages, instance) = (0, INSTANCES[at]);
    while test.goes_on() {
        let known = test.known(at);
        let (mut next, mut cursor) = (0, String::new());
        loop {
            let limit = rand::rng().random_range(1..200);
            let (lines, page) = test.page(instance, &format!("limit={limit}{cursor}")).await;
            assert_eq!(lines, (next..next + lines.len() as u64).collect::<Vec<_>>(), "{instance}: a gap or a repeat");
            next += lines.len() as u64;
            pages += 1;
            if page["at_end"] == true {
                break;
            }
            cursor = format!("&cursor={}", page["next_cursor"].as_str().expect("a cursor"));
        }
        assert!(next >= known, "{instance}: {next} of {known} acknowledged lines were read");
    }
    pages
}

/// The last lines, those of a level, a closed range backwards, and the rest of a download.
async fn look_around(test: &Test, at: usize) -> u64 {
    let (mut reads, instance) = (0, INSTANCES[at]);
    while test.goes_on() {
        let known = test.known(at);
        let (tail, page) = test.page(instance, "last=30").await;
        let end = tail.last().map_or(0, |last| last + 1);
        assert!(page["at_end"] == true && end >= known, "{instance}: the tail ends at {end}, before {known}");
        assert_eq!(tail, (end.saturating_sub(30)..end).collect::<Vec<_>>(), "{instance}");
        let (errors, _) = test.page(instance, &format!("level=error&to_line={end}&limit=10000")).await;
        assert_eq!(errors, (0..end).filter(|line| is_error(*line)).collect::<Vec<_>>(), "{instance}");
        let from = rand::rng().random_range(0..end);
        let (range, _) = test.page(instance, &format!("from_line={from}&to_line={end}&reverse=true&limit=10000")).await;
        assert_eq!(range, (from..end).rev().collect::<Vec<_>>(), "{instance}");
        let query = format!("download?format=raw&from_line={from}&to_line={end}");
        let file = test.any().get(&format!("/apps/default/instances/{instance}/{query}")).await.expect(200).text();
        let expected: String = (from..end).map(|line| message(instance, line) + "\n").collect();
        assert!(file == expected, "{instance}: a download of {from}..{end} is not what was written");
        reads += 4;
    }
    reads
}

/// Searches for the rare word: each line that was acknowledged before, once.
async fn search(test: &Test) -> u64 {
    let mut searches = 0;
    while test.goes_on() {
        let known: Vec<u64> = (0..INSTANCES.len()).map(|at| test.known(at)).collect();
        let answer = test.any().get("/search?contains=needle&limit=100000").await.expect(200).text();
        let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut summary = None;
        for line in answer.lines().filter(|line| !line.is_empty()) {
            let item: Value = serde_json::from_str(line).expect("JSON");
            if item["summary"].is_object() {
                summary = Some(item["summary"].clone());
                continue;
            }
            let (instance, line) =
                (item["record"]["instance"].as_str().expect("whose"), item["record"]["line"].as_u64());
            let line = line.expect("a line number");
            if instance.starts_with('r') {
                assert_eq!(item["record"]["message"], message(instance, line));
                assert!(found.entry(instance.to_owned()).or_default().insert(line), "{instance}: line {line} twice");
            }
        }
        assert_eq!(summary.expect("the search was cut")["complete"], true);
        for (instance, known) in INSTANCES.iter().zip(known) {
            let found = found.remove(*instance).unwrap_or_default();
            let missed: Vec<u64> = (0..known).filter(|line| line.is_multiple_of(37) && !found.contains(line)).collect();
            assert_eq!(missed, Vec::<u64>::new(), "{instance}: acknowledged, and not found");
        }
        searches += 1;
    }
    searches
}

/// Follows from the first line to the end, now and then over a new connection to either daemon.
async fn follow(test: &Test, at: usize) -> u64 {
    let (instance, mut next, mut connections) = (INSTANCES[at], 0, 0);
    loop {
        let daemon = test.any();
        let mut request = daemon.client.get(daemon.url(&format!("/api/v1/apps/default/instances/{instance}/follow")));
        if next > 0 {
            request = request.header("last-event-id", format!("1:{}", next - 1));
        }
        let answer = request.send().await.expect("the daemon answers");
        if answer.status() == 204 {
            // It had all lines when it came back, and the attempt was finished meanwhile.
            assert_eq!(next, BATCHES * BATCH_LINES, "{instance}: nothing more, too early");
            return connections;
        }
        assert_eq!(answer.status(), 200, "{instance}");
        connections += 1;
        let (mut events, mut text, leave_at) = (answer.bytes_stream(), String::new(), next + 150);
        while next < leave_at
            && let Some(piece) = events.next().await
        {
            text.push_str(std::str::from_utf8(&piece.expect("a whole stream")).expect("whole characters"));
            while let Some((event, rest)) = text.split_once("\n\n") {
                if event.starts_with("event: end") {
                    assert_eq!(next, BATCHES * BATCH_LINES, "{instance}: the end came too early");
                    return connections;
                }
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    let record: Value = serde_json::from_str(data).expect("JSON");
                    assert_eq!(record["line"], next, "{instance}: a gap or a repeat");
                    assert_eq!(record["message"], message(instance, next));
                    next += 1;
                }
                text = rest.to_owned();
            }
        }
    }
}

/// Runs of the archiver, on one daemon or the other.
async fn archive(test: &Test) -> BTreeMap<&'static str, u64> {
    let mut done = BTreeMap::new();
    while test.goes_on() {
        let report = test.any().archive().await;
        for what in ["lines", "objects", "purged_chunks"] {
            *done.entry(what).or_default() += report[what].as_u64().expect("a number");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done
}

#[test]
fn readers_see_nothing_of_the_move() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let clock = Clock::default();
        let settings = [("LOGTIER_RETENTION__DEFAULT__MAX_OPEN_FOR", "1ms"), ("LOGTIER_ARCHIVE__REWRITE_AT", "10%")];
        let daemons = [
            Daemon::start_at(&tiers, &settings, clock.clone()).await,
            Daemon::start_at(&tiers, &settings, clock.clone()).await,
        ];
        let test = Test { daemons, acknowledged: Default::default(), over: AtomicBool::new(false) };
        let work = async {
            // Every instance has lines before anyone looks for them.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let writers = futures::future::join_all((0..INSTANCES.len()).map(|at| write(&test, at)));
            let followers = futures::future::join_all((0..INSTANCES.len()).map(|at| follow(&test, at)));
            let (_, connections) = futures::join!(writers, followers);
            test.over.store(true, Ordering::SeqCst);
            connections.iter().sum::<u64>()
        };
        let begun = async {
            while (0..INSTANCES.len()).any(|at| test.known(at) == 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let readers = async {
            begun.await;
            let pages = futures::future::join_all((0..INSTANCES.len()).map(|at| page_through(&test, at)));
            let looks = futures::future::join_all((0..INSTANCES.len()).map(|at| look_around(&test, at)));
            futures::join!(pages, looks, search(&test))
        };
        let (connections, (pages, looks, searches), moved) = futures::join!(work, readers, archive(&test));
        eprintln!(
            "{connections} connections followed, {pages:?} pages, {looks:?} looks, {searches} searches; {moved:?}"
        );
        assert!(pages.iter().chain(&looks).all(|reads| *reads > 0) && searches > 0);
        assert!(moved["lines"] > BATCH_LINES && moved["objects"] > 1 && moved["purged_chunks"] > 0, "nothing moved");
        // And at rest: all of it from the cold tier.
        for at in 0..3 {
            test.daemons[at % 2].archive().await;
        }
        for instance in INSTANCES {
            let (lines, _) = test.page(instance, "limit=10000").await;
            assert_eq!(lines, (0..BATCHES * BATCH_LINES).collect::<Vec<_>>());
        }
        for daemon in test.daemons {
            daemon.stop().await;
        }
    });
}
