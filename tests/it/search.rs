//! A search finds what looking at every record finds, wherever the records are and whatever helps it.

use std::time::Duration;

use futures::TryStreamExt as _;
use logtier::cold::KeyKind;
use logtier::model::{Level, Timestamp};
use logtier::read::{Filter, ListFilter, Progress, SearchRequest};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use regex::Regex;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{row, sql};
use crate::harness::{Tiers, on_each_pair};

const START: i64 = 1_800_000_000_000_000_000;

const TEXTS: [&str; 7] = [
    "connection reset by peer",
    "用户余额不足,订单失败",
    "trace 4bf92f3577b34da6 ends",
    "a\"quoted\"\tpath\\x",
    "ok",
    "took 12345678 ms",
    "done",
];

#[derive(Debug, Clone)]
struct Sent {
    app: &'static str,
    instance: String,
    line: u64,
    ts: i64,
    level: Level,
    message: String,
}

/// Some attempts, most of them small, with what they say at random.
fn random_logs(rng: &mut StdRng, round: usize) -> Vec<Sent> {
    let mut all = Vec::new();
    for n in 0..25 {
        let (app, instance) = (*["a", "b"].choose(rng).unwrap(), format!("r{round}-{n}"));
        let lines = if n == 7 { 900 } else { rng.random_range(1..20) };
        for line in 0..lines {
            let text = if rng.random_range(0..20) == 0 { TEXTS.choose(rng).unwrap() } else { "nothing" };
            all.push(Sent {
                app,
                instance: instance.clone(),
                line,
                ts: START + rng.random_range(0..1_000) * 1_000_000_000,
                level: *Level::ALL.choose(rng).unwrap(),
                message: format!("{text} {:016x} {}", rng.random::<u64>(), "x".repeat(rng.random_range(0..200))),
            });
        }
    }
    all
}

async fn send(daemon: &Daemon, sent: &[Sent]) {
    let record = |sent: &Sent| {
        let Sent { app, instance, level, message, .. } = sent;
        let ts = Timestamp::from_nanos(sent.ts).to_string();
        let record = serde_json::json!({"app": app, "instance": instance, "ts": ts, "level": level.as_str(), "message": message});
        format!("{record}\n")
    };
    for some in sent.chunks(500) {
        daemon.post("/records", some.iter().map(record).collect::<String>()).await.expect(200);
    }
}

async fn finish_all(daemon: &Daemon, sent: &[Sent]) {
    let mut places: Vec<_> = sent.iter().map(|sent| (sent.app, sent.instance.as_str())).collect();
    places.dedup();
    for (app, instance) in places {
        daemon.post(&format!("/apps/{app}/instances/{instance}/finish"), "{}").await.expect(200);
    }
}

async fn search(daemon: &Daemon, app: Option<&str>, filter: Filter, limit: u64) -> (Vec<(String, u64)>, Progress) {
    let among = ListFilter { app: app.map(|app| app.parse().unwrap()), ..ListFilter::default() };
    let request = SearchRequest { among, instance: None, filter, limit, patience: Duration::from_secs(60) };
    let mut search = daemon.app.reader.search(request);
    let mut found = Vec::new();
    while search
        .next(|view, line, _| found.push((view.attempt.instance.to_string(), line)))
        .await
        .expect("a step of the search")
    {}
    (found, search.progress())
}

fn filters(rng: &mut StdRng) -> Vec<(Option<&'static str>, Filter)> {
    let contains = |text: &str| Filter { contains: vec![text.to_owned()], ..Filter::default() };
    let regex = |pattern: &str| Filter { regex: Regex::new(pattern).ok(), ..Filter::default() };
    let (since, until) = (START + rng.random_range(0..500) * 1_000_000_000, START + 600_000_000_000);
    let between = Filter {
        since: Some(Timestamp::from_nanos(since)),
        until: Some(Timestamp::from_nanos(until)),
        level: Some(Level::Warn),
        ..contains("nothing")
    };
    let mut all = vec![
        (None, contains("4bf92f3577b34da6")),
        (Some("a"), contains("reset by peer")),
        (None, contains("余额不足")),
        (None, contains("余额")),
        (None, contains("\"quoted\"\tpath")),
        (None, contains("ok")),
        (None, contains("2345678")),
        (None, regex("trace .* ends")),
        (Some("b"), regex("(connection|订单)")),
        (None, Filter { level: Some(Level::Fatal), ..Filter::default() }),
        (None, between),
        (None, contains("is nowhere at all")),
    ];
    // A piece of a text from anywhere in it.
    let chars: Vec<char> = TEXTS.choose(rng).unwrap().chars().collect();
    let start = rng.random_range(0..chars.len());
    let part: String = chars[start..].iter().take(rng.random_range(1..20)).collect();
    all.push((None, contains(&part)));
    all
}

async fn check(daemon: &Daemon, rng: &mut StdRng, sent: &[Sent]) {
    for (app, filter) in filters(rng) {
        let matches = |sent: &&Sent| {
            app.is_none_or(|app| app == sent.app)
                && filter.level.is_none_or(|least| sent.level >= least)
                && filter.since.is_none_or(|since| sent.ts >= since.nanos())
                && filter.until.is_none_or(|until| sent.ts < until.nanos())
                && filter.contains.iter().all(|text| sent.message.contains(text))
                && filter.regex.as_ref().is_none_or(|regex| regex.is_match(&sent.message))
        };
        let mut expected: Vec<_> = sent.iter().filter(matches).map(|sent| (sent.instance.clone(), sent.line)).collect();
        let (mut found, progress) = search(daemon, app, filter.clone(), 100_000).await;
        assert_eq!((progress.found, progress.cut), (found.len() as u64, None), "{filter:?}");
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{app:?} {filter:?}");
    }
}

/// Flips a byte in every filter frame.
async fn damage_filters(daemon: &Daemon) {
    let store = &daemon.app.store;
    let objects: Vec<_> = store.list("v1/").try_collect().await.expect("a listing");
    for object in objects.into_iter().filter(|object| matches!(object.key.kind(), KeyKind::Segment(_))) {
        let index =
            logtier::cold::segment::Index::open(store, &object.key, object.byte_length).await.expect("an index");
        let mut bytes = store.get_range(&object.key, 0..object.byte_length).await.expect("the object").to_vec();
        let range = index.filter_range();
        assert!(range.end - range.start > 50);
        bytes[(range.start + range.end) as usize / 2] ^= 1;
        store.put(&object.key, bytes.into()).await.expect("damaged");
    }
}

async fn search_everywhere(tiers: &Tiers, seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let settings = [("LOGTIER_COLD__FRAME_SIZE", "64KiB")];
    let daemon = Daemon::start(tiers, &settings).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let some = random_logs(rng, round);
        send(&daemon, &some).await;
        if round < 2 {
            finish_all(&daemon, &some).await;
            daemon.archive().await;
        }
        sent.extend(some);
    }
    // Late lines of one that is archived: it stands in both tiers.
    let mut late: Vec<Sent> = sent.iter().filter(|sent| sent.instance == "r0-3").take(3).cloned().collect();
    let lines = sent.iter().filter(|sent| sent.instance == "r0-3").count() as u64;
    for (n, late) in late.iter_mut().enumerate() {
        (late.line, late.message) = (lines + n as u64, "late 4bf92f3577b34da6".to_owned());
    }
    send(&daemon, &late).await;
    sent.extend(late);
    check(&daemon, rng, &sent).await;
    finish_all(&daemon, &sent).await;
    daemon.archive().await;
    check(&daemon, rng, &sent).await;
    daemon.stop().await;
    // Damaged, and then unknown to the catalog: everything is looked at.
    let daemon = Daemon::start(tiers, &settings).await;
    damage_filters(&daemon).await;
    check(&daemon, rng, &sent).await;
    daemon.stop().await;
    let daemon = Daemon::start(tiers, &settings).await;
    let home = crate::harness::logs::home(&daemon.app, "x");
    sql(&home, "UPDATE segment SET filter_offset = NULL").await;
    check(&daemon, rng, &sent).await;
    daemon.stop().await;
}

#[test]
fn a_search_finds_what_a_plain_scan_finds() {
    on_each_pair(|tiers| {
        let seed = std::env::var("LOGTIER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(rand::random);
        eprintln!("LOGTIER_TEST_SEED={seed}");
        runtime().block_on(search_everywhere(tiers, seed));
    });
}

/// 40 attempts of which one says something rare, archived with filters or without.
async fn archived(tiers: &Tiers, filters: &str) -> Daemon {
    let settings = [("LOGTIER_COLD__FRAME_SIZE", "64KiB"), ("LOGTIER_COLD__SEARCH_FILTERS", filters)];
    let daemon = Daemon::start(tiers, &settings).await;
    let rng = &mut StdRng::seed_from_u64(7);
    let mut sent = Vec::new();
    for n in 0..40 {
        for line in 0..100 {
            let message = match (n, line) {
                (21, 50) => "order 7440123456789 failed".to_owned(),
                _ => format!("order {} done {}", rng.random::<u32>(), "y".repeat(200)),
            };
            let instance = format!("i{n}");
            sent.push(Sent { app: "a", instance, line, ts: START, level: Level::Info, message });
        }
    }
    send(&daemon, &sent).await;
    finish_all(&daemon, &sent).await;
    daemon.archive().await;
    daemon
}

#[test]
fn a_rare_text_costs_a_frame_and_one_that_is_nowhere_nothing() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = archived(tiers, "true").await;
            let contains = |text: &str| Filter { contains: vec![text.to_owned()], ..Filter::default() };
            let (found, progress) = search(&daemon, None, contains("7440123456789"), 10).await;
            assert_eq!(found, [("i21".to_owned(), 50)]);
            assert!(progress.frames <= 2 && progress.frames_skipped >= 10, "{progress:?}");
            assert_eq!(progress.scanned, 1);
            let (found, warm) = search(&daemon, None, contains("7440123456788"), 10).await;
            assert_eq!((found.len(), warm.objects_skipped, warm.bytes), (0, 1, 0), "{warm:?}");
            // Newest first, and lines in order.
            let (found, progress) = search(&daemon, None, contains("done"), 150).await;
            let mut places = Vec::new();
            for (instance, line) in &found {
                places.push((std::cmp::Reverse(row(&daemon.app, instance).await.id), *line));
            }
            assert!(places.is_sorted() && places.len() == 150, "{found:?}");
            assert_eq!(progress.cut, Some("the limit was reached"));
            daemon.stop().await;
        });
    });
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = archived(tiers, "false").await;
            let filter = Filter { contains: vec!["7440123456789".to_owned()], ..Filter::default() };
            let (found, progress) = search(&daemon, None, filter, 10).await;
            assert_eq!((found.len(), progress.frames_skipped), (1, 0), "{progress:?}");
            daemon.stop().await;
        });
    });
}
