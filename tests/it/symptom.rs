//! The trouble that all this is for, as a test: a log that depends on which server is asked, and when.
//!
//! Three daemons stand behind a round robin, as PowerJob's servers do. Whoever asks gets whichever comes next. At each
//! stage of an instance's life every node gives the same answer, and from the first acknowledged line on none is empty.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use logtier::clock::Clock;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::powerjob::{front, instance_id, report, status, until};
use crate::harness::{ColdStore, Engine, Tiers};

const WORKERS: [&str; 2] = ["10.0.0.1:27777", "10.0.0.2:27777"];
const INSTANCES: i64 = 6;
/// Lines of each in the end: two pages.
const LINES: i64 = 130;

struct Cluster {
    nodes: Vec<Daemon>,
    next: AtomicUsize,
    clock: Clock,
}

impl Cluster {
    async fn start(tiers: &Tiers) -> Self {
        let clock = Clock::default();
        let front = front(None);
        let mut settings: Vec<(&str, &str)> = front.iter().map(|(name, value)| (*name, value.as_str())).collect();
        settings.extend([("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "30d"), ("LOGTIER_ARCHIVE__OBJECT_SIZE", "16KiB")]);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Daemon::start_at(tiers, &settings, clock.clone()).await);
        }
        Self { nodes, next: AtomicUsize::new(0), clock }
    }

    /// What a load balancer would choose.
    fn any(&self) -> &Daemon {
        &self.nodes[self.next.fetch_add(1, Ordering::SeqCst) % self.nodes.len()]
    }

    async fn report(&self, id: i64, lines: std::ops::Range<i64>) {
        let at = self.clock.now().get();
        for n in lines {
            let text = format!("{id} says {n}");
            let worker = WORKERS[(n % 2) as usize];
            self.any().worker("reportLog", report(worker, &[(id, at + n, 2, &text)])).await.expect(200);
        }
    }

    /// The file of a log, the same from every node; with the first `acknowledged` lines in it, each once.
    async fn file(&self, id: i64, acknowledged: i64) -> String {
        let mut files = Vec::new();
        for node in &self.nodes {
            files.push(node.console(&format!("downloadLog?instanceId={id}")).await.expect(200).text());
        }
        assert!(files.windows(2).all(|two| two[0] == two[1]), "{id}: the nodes tell different stories");
        check_lines(id, &files[0], acknowledged);
        files.swap_remove(0)
    }

    /// What the console shows, the same from every node.
    async fn page(&self, id: i64, index: u64) -> (String, u64) {
        let mut pages = Vec::new();
        for node in &self.nodes {
            pages.push(node.page(id, index).await);
        }
        assert!(pages.windows(2).all(|two| two[0] == two[1]), "{id}: {pages:?}");
        assert!(!pages[0].0.is_empty(), "{id}: an empty page");
        pages.swap_remove(0)
    }
}

fn check_lines(id: i64, file: &str, acknowledged: i64) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in file.lines() {
        *counts.entry(line.split_once("INFO ").map_or(line, |(_, text)| text)).or_default() += 1;
    }
    for n in 0..acknowledged {
        let text = format!("{id} says {n}");
        assert_eq!(counts.get(text.as_str()), Some(&1), "{text}, of {acknowledged} acknowledged lines");
    }
}

#[test]
fn every_node_gives_every_log_at_every_stage_of_its_life() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let cluster = Cluster::start(&tiers).await;
        let ids: Vec<i64> = (0..INSTANCES).map(instance_id).collect();
        before_the_first_line(&cluster, &ids).await;
        while_they_run(&cluster, &ids).await;
        let files = just_finished(&cluster, &ids).await;
        while_they_move(&cluster, &ids, &files).await;
        archived(&cluster, &ids, &files).await;
        expired(&cluster, &ids).await;
        for node in cluster.nodes {
            node.stop().await;
        }
    });
}

/// All say so, and none remembers it.
async fn before_the_first_line(cluster: &Cluster, ids: &[i64]) {
    for id in ids {
        let (page, pages) = cluster.page(*id, 0).await;
        assert!(page.contains("no line of this instance is stored so far") && pages == 1, "{page}");
    }
}

/// From the first acknowledged line on it is there, on the nodes that did not take it too; whoever is asked has all
/// that was acknowledged before.
async fn while_they_run(cluster: &Cluster, ids: &[i64]) {
    for id in ids {
        cluster.report(*id, 0..1).await;
        assert!(cluster.page(*id, 0).await.0.contains("running, 1 line so far"));
        cluster.file(*id, 1).await;
    }
    for lines in [1..20, 20..60, 60..130] {
        let end = lines.end;
        futures::future::join_all(ids.iter().map(|id| cluster.report(*id, lines.clone()))).await;
        for id in ids {
            cluster.file(*id, end).await;
            let (page, pages) = cluster.page(*id, 0).await;
            assert_eq!((pages, page.contains("running")), (if end > 100 { 2 } else { 1 }, end <= 100), "{page}");
        }
    }
}

async fn just_finished(cluster: &Cluster, ids: &[i64]) -> Vec<String> {
    let at = cluster.clock.now().get();
    for id in ids {
        cluster.any().worker("reportInstanceStatus", status(*id, 5, at)).await.expect(200);
    }
    let mut files = Vec::new();
    for id in ids {
        until("the end is known", async || {
            cluster.any().get(&format!("/apps/powerjob/instances/{id}")).await.json()["state"] == "finished"
        })
        .await;
        files.push(cluster.file(*id, LINES).await);
        assert!(cluster.page(*id, 1).await.0.contains(", succeeded"), "the end is shown");
    }
    files
}

/// To the object store, while rows go.
async fn while_they_move(cluster: &Cluster, ids: &[i64], files: &[String]) {
    let over = AtomicBool::new(false);
    let archiving = async {
        for node in &cluster.nodes {
            node.archive().await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let reading = async {
        let mut reads = 0;
        while !over.load(Ordering::SeqCst) || reads == 0 {
            for (id, file) in ids.iter().zip(files) {
                let now = cluster.any().console(&format!("downloadLog?instanceId={id}")).await.expect(200);
                assert!(now.text() == *file, "{id}: it changed while it moved");
                reads += 1;
            }
        }
        reads
    };
    let ((), reads) = futures::join!(archiving, reading);
    eprintln!("{reads} reads while {INSTANCES} logs moved");
}

/// The same bytes, and nothing is left in the database.
async fn archived(cluster: &Cluster, ids: &[i64], files: &[String]) {
    for (id, file) in ids.iter().zip(files) {
        assert!(cluster.file(*id, LINES).await == *file);
        assert!(cluster.page(*id, 1).await.0.contains(", archived"), "archived is shown");
        let shown = cluster.any().get(&format!("/apps/powerjob/instances/{id}")).await.json();
        assert_eq!((&shown["state"], &shown["tiers"]["hot"]["lines"]), (&"archived".into(), &0.into()), "{shown}");
    }
}

/// After its retention every node says so in words, before and after the archiver came by.
async fn expired(cluster: &Cluster, ids: &[i64]) {
    cluster.clock.advance(Duration::from_secs(31 * 86_400));
    for _ in 0..2 {
        for id in ids {
            assert!(cluster.page(*id, 0).await.0.contains("the log of this instance is expired since 20"));
        }
        cluster.any().archive().await;
    }
}
