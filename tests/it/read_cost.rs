//! What a read leaves alone: frames and chunks that cannot match are neither fetched nor decompressed.

use std::sync::atomic::Ordering;

use logtier::model::{Level, LineRange, Timestamp};
use logtier::read::{Cost, Filter, Page, PageRequest};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{finish, key};
use crate::harness::on_each_pair;

const LINES: u64 = 20_000;
const START: i64 = 1_800_000_000_000_000_000;

/// A millisecond apart, with an error at two places, and text that does not compress well.
async fn fill(daemon: &Daemon) {
    let mut noise = 1u64;
    for some in (0..LINES).collect::<Vec<_>>().chunks(2_000) {
        let record = |n: &u64| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let level = if matches!(n, 5_000 | 15_000) { "ERROR" } else { "INFO" };
            let ts = Timestamp::from_nanos(START + *n as i64 * 1_000_000);
            format!(
                "{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"message\":\"line {n} {noise:016x}{:016x}\"}}\n",
                noise.rotate_left(17)
            )
        };
        let body: String = some.iter().map(record).collect();
        let request = daemon.client.post(daemon.url("/api/v1/apps/a/instances/i/records"));
        daemon.send(request.header("content-type", "application/x-ndjson").body(body)).await.expect(200);
    }
}

async fn page(daemon: &Daemon, request: PageRequest) -> Page {
    let key = key("i");
    let view = daemon.app.reader.open(&key.app, &key.instance, None).await.expect("a view");
    daemon.app.reader.page(&view, &request).await.expect("a page")
}

fn lines(range: std::ops::Range<u64>, limit: usize) -> PageRequest {
    PageRequest { range: Some(LineRange::new(range.start, range.end)), limit, ..PageRequest::default() }
}

fn filtered(filter: Filter, reverse: bool) -> PageRequest {
    PageRequest { filter, reverse, ..lines(0..u64::MAX, 1_000) }
}

#[test]
fn a_cold_read_fetches_only_the_frames_that_may_match() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[("LOGTIER_COLD__FRAME_SIZE", "64KiB")]).await;
            fill(&daemon).await;
            finish(&daemon.app, &daemon.clock, "i").await;
            daemon.archive().await;
            let gets = || daemon.app.store.counters().gets.load(Ordering::Relaxed);
            let whole = page(&daemon, lines(0..u64::MAX, 100_000)).await;
            let (frames, bytes) = (whole.cost.frames, whole.cost.bytes);
            assert_eq!((whole.lines.len() as u64, whole.cost.chunks), (LINES, 0));
            assert!(frames > 30, "{frames} frames");

            let before = gets();
            let check = |page: &Page, found: usize, cost: &Cost, most_frames: u64| {
                assert_eq!((page.lines.len(), page.cost), (found, *cost));
                assert!(cost.frames <= most_frames && cost.bytes <= most_frames * bytes * 2 / frames, "{cost:?}");
            };
            for request in [lines(10_000..10_100, 100), lines(10_000..u64::MAX, 100), lines(19_900..u64::MAX, 100)] {
                let page = page(&daemon, request).await;
                check(&page, 100, &page.cost, 2);
            }
            let reverse = PageRequest { reverse: true, ..lines(0..10_100, 100) };
            let middle = page(&daemon, reverse).await;
            check(&middle, 100, &middle.cost, 2);
            assert_eq!(gets() - before, 4, "one ranged request each");

            let since = Some(Timestamp::from_nanos(START + 7_000_000_000));
            let until = Some(Timestamp::from_nanos(START + 7_050_000_000));
            for reverse in [false, true] {
                let errors = Filter { level: Some(Level::Error), ..Filter::default() };
                let errors = page(&daemon, filtered(errors, reverse)).await;
                check(&errors, 2, &errors.cost, 4);
                assert!(errors.cost.frames_skipped >= frames - 4);
                let moments = Filter { since, until, ..Filter::default() };
                let moments = page(&daemon, filtered(moments, reverse)).await;
                check(&moments, 50, &moments.cost, 2);
            }
            let nothing = Filter { level: Some(Level::Fatal), ..Filter::default() };
            let before = gets();
            let nothing = page(&daemon, filtered(nothing, false)).await;
            assert!(nothing.lines.is_empty() && nothing.at_end && gets() == before, "the part's row rules it out");
            let metrics = daemon.app.metrics.encode().expect("text");
            assert!(metrics.contains("logtier_read_blocks_total{kind=\"frame_skipped\"}"), "{metrics}");
            daemon.stop().await;
        });
    });
}

#[test]
fn a_hot_read_fetches_only_the_chunks_that_may_match() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[]).await;
            fill(&daemon).await;
            for reverse in [false, true] {
                let errors = Filter { level: Some(Level::Error), ..Filter::default() };
                let errors = page(&daemon, filtered(errors, reverse)).await;
                assert_eq!((errors.lines.len(), errors.cost.chunks), (2, 2));
                assert!(errors.cost.chunks_skipped > 40, "{:?}", errors.cost);
                let middle = page(&daemon, PageRequest { reverse, ..lines(9_000..9_100, 100) }).await;
                assert!(middle.lines.len() == 100 && middle.cost.chunks <= 2, "{:?}", middle.cost);
            }
            daemon.stop().await;
        });
    });
}
