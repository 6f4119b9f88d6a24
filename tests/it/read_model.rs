//! Whatever is asked of a log, and wherever its lines are by now, the answer is that of filtering the plain list.
//!
//! The logs are random: runs of levels, records without one, several sources, times that do not always
//! rise, other scripts. Their lines lie in several parts of small frames and, as late lines, in the hot tier.

use logtier::model::{Level, LineRange, Record, Timestamp};
use logtier::read::{Filter, Order, PageRequest};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use regex::Regex;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{finish, key};
use crate::harness::{Tiers, on_each_pair};

/// A record without level takes that of the last one of its source so many lines before it at most.
const REACH: usize = 1_000;

const WORDS: [&str; 8] =
    ["timeout", "connected", "余额不足", "a\"b\\c", "shard-7", "Größe", "\u{1b}[31mred\u{1b}[0m", "done"];

#[derive(Debug, Clone)]
struct Truth {
    ts: i64,
    level: Option<Level>,
    source: &'static str,
    message: String,
}

fn random_log(rng: &mut StdRng, lines: usize) -> Vec<Truth> {
    let mut log = Vec::new();
    let mut ts = 1_800_000_000_000_000_000i64;
    while log.len() < lines {
        // A run of lines that have much in common, so that there is something to skip.
        let level = *Level::ALL.choose(rng).unwrap();
        let source = *["w1", "w2", ""].choose(rng).unwrap();
        let has_level = rng.random_range(0..3);
        for _ in 0..rng.random_range(1..400) {
            ts += rng.random_range(-2_000_000..6_000_000);
            let level = (has_level > 0 && rng.random_range(0..4) > 0).then_some(level);
            let word = if rng.random_range(0..40) == 0 { WORDS.choose(rng).unwrap() } else { "nothing" };
            let message = format!("line {} {word} {}", log.len(), "x".repeat(rng.random_range(0..500)));
            log.push(Truth { ts, level, source, message });
        }
    }
    log.truncate(lines);
    log
}

/// Sends some lines over HTTP, in batches of different lengths.
async fn send(daemon: &Daemon, rng: &mut StdRng, mut lines: &[Truth]) {
    while !lines.is_empty() {
        let (some, rest) = lines.split_at(rng.random_range(1..400).min(lines.len()));
        let body: String = some
            .iter()
            .map(|line| {
                let mut record =
                    serde_json::json!({"ts": Timestamp::from_nanos(line.ts).to_string(), "message": line.message});
                if let Some(level) = line.level {
                    record["level"] = level.as_str().into();
                }
                if !line.source.is_empty() {
                    record["source"] = line.source.into();
                }
                format!("{record}\n")
            })
            .collect();
        let request = daemon.client.post(daemon.url("/api/v1/apps/a/instances/i/records"));
        daemon.send(request.header("content-type", "application/x-ndjson").body(body)).await.expect(200);
        lines = rest;
    }
}

/// What the filter says of each line, the slow way.
fn matching(log: &[Truth], filter: &Filter, range: LineRange) -> Vec<u64> {
    let effective = |at: usize| {
        let line = &log[at];
        let mut before = log[at.saturating_sub(REACH)..at].iter().rev();
        line.level.or_else(|| before.find(|other| other.source == line.source && other.level.is_some())?.level)
    };
    let matches = |at: &u64| {
        let line = &log[*at as usize];
        range.contains(*at)
            && filter.level.is_none_or(|least| effective(*at as usize).is_some_and(|level| level >= least))
            && filter.since.is_none_or(|since| line.ts >= since.nanos())
            && filter.until.is_none_or(|until| line.ts < until.nanos())
            && filter.source.as_ref().is_none_or(|source| source == line.source)
            && filter.contains.iter().all(|text| line.message.contains(text))
            && filter.regex.as_ref().is_none_or(|regex| regex.is_match(&line.message))
    };
    (0..log.len() as u64).filter(matches).collect()
}

fn random_filter(rng: &mut StdRng, log: &[Truth]) -> Filter {
    let mut sometimes = |of: u32| rng.random_range(0..of) == 0;
    let (level, since, until, contains, regex, source) =
        (sometimes(2), sometimes(3), sometimes(3), sometimes(3), sometimes(6), sometimes(4));
    let mut moment = || Timestamp::from_nanos(log.choose(rng).unwrap().ts);
    let (one, other) = (moment(), moment());
    Filter {
        level: level.then(|| *Level::ALL.choose(rng).unwrap()),
        since: since.then_some(one.min(other)),
        until: until.then_some(one.max(other)),
        contains: contains.then(|| (*WORDS.choose(rng).unwrap()).to_owned()).into_iter().collect(),
        regex: regex.then(|| Regex::new("[0-9]7 (timeout|nothing)").unwrap()),
        source: source.then(|| (*["w1", "w2", ""].choose(rng).unwrap()).to_owned()),
    }
}

/// All pages of one question, one after the other, against the list.
async fn check(daemon: &Daemon, log: &[Truth], request: &PageRequest) {
    let key = key("i");
    let view = daemon.app.reader.open(&key.app, &key.instance, None).await.expect("a view");
    let mut range = request.range.unwrap().intersect(view.attempt.lines());
    let mut expected = matching(log, &request.filter, range);
    if request.reverse {
        expected.reverse();
    }
    let mut left: &[u64] = &expected;
    loop {
        let request = PageRequest { range: Some(range), ..request.clone() };
        let page = daemon.app.reader.page(&view, &request).await.expect("a page");
        let found: Vec<u64> = page.lines.iter().map(|line| line.line).collect();
        let mut wanted = left[..request.limit.min(left.len())].to_vec();
        if request.order == Order::Time {
            wanted.sort_by_key(|line| (log[*line as usize].ts, *line));
            if request.reverse {
                wanted.reverse();
            }
        }
        assert_eq!(found, wanted, "{request:?}");
        for line in &page.lines {
            let (found, sent) = (Record::parse_json(&line.json).expect("a record"), &log[line.line as usize]);
            assert_eq!((&*found.message, found.ts.nanos()), (sent.message.as_str(), sent.ts), "line {}", line.line);
        }
        left = &left[found.len()..];
        if page.at_end {
            assert!(left.is_empty(), "ended with {} to come: {request:?}", left.len());
            return;
        }
        range = match request.reverse {
            true => LineRange::new(range.start(), page.next.line),
            false => LineRange::new(page.next.line, range.end()),
        };
    }
}

async fn ask_everything(tiers: &Tiers, seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let log = random_log(rng, 3_000);
    let daemon = Daemon::start(tiers, &[("LOGTIER_COLD__FRAME_SIZE", "64KiB")]).await;
    // Two parts, then late lines in the hot tier, then all of it cold.
    for (lines, archived) in [(0..1_400, true), (1_400..1_900, true), (1_900..3_000, false), (3_000..3_000, true)] {
        send(&daemon, rng, &log[lines.clone()]).await;
        if archived {
            finish(&daemon.app, &daemon.clock, "i").await;
            assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
        }
        let so_far = &log[..lines.end];
        for n in 0..16 {
            let (a, b) = (rng.random_range(0..so_far.len() as u64), rng.random_range(0..so_far.len() as u64));
            let range = if n % 3 == 0 { LineRange::new(0, u64::MAX) } else { LineRange::new(a.min(b), a.max(b)) };
            let request = PageRequest {
                range: Some(range),
                limit: *[60, 500, 10_000].choose(rng).unwrap(),
                filter: if n % 5 == 0 { Filter::default() } else { random_filter(rng, so_far) },
                order: if rng.random_range(0..4) == 0 { Order::Time } else { Order::Line },
                reverse: n % 2 == 0,
            };
            check(&daemon, so_far, &request).await;
        }
    }
    daemon.stop().await;
}

#[test]
fn every_page_is_what_filtering_the_plain_list_gives() {
    on_each_pair(|tiers| {
        let seed =
            std::env::var("LOGTIER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        eprintln!("LOGTIER_TEST_SEED={seed}");
        runtime().block_on(ask_everything(tiers, seed));
    });
}
