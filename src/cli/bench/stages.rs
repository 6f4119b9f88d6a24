//! The stages of a round: what is done, and what it is compared with.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::baseline::{self, Frame, Object};
use super::corpus::{Log, RARE_TOKEN};
use super::figures::Unit;
use super::private::Private;
use super::process::Process;
use super::{Bench, follow, load, sql};
use crate::cli::client::Call;
use crate::cold::{Key, ObjectName};
use crate::model::{App, Instance, LineRange};

/// Instances whose pages are read, spread over all of them.
const PAGES: usize = 200;

/// Reads of the same log; the median counts.
const REPEATS: usize = 5;

/// A little more than the daemon's.
const PURGE_GRACE: Duration = Duration::from_millis(1_200);

/// A text that no made-up log holds and that has no words in it: every frame must be looked into.
const NOT_A_WORD: &str = "~^`~";

impl Bench<'_> {
    pub(super) async fn ingest(&mut self, app: &str) -> anyhow::Result<()> {
        let bodies = self.corpus.bodies(self.shape);
        let alone = match self.private {
            Some(private) => Some(self.ingest_alone(private, app).await?),
            None => None,
        };
        let catalog_bytes = self.catalog_bytes().await;
        let usage = Usage::begin(self.private);
        let started = self.clock.instant();
        let latencies = load::send(self.client, app, bodies).await?;
        let seconds = started.elapsed().as_secs_f64();
        let (lines, bytes) = (self.corpus.lines as f64, self.corpus.bytes as f64);
        self.add("ingest", "records", Unit::PerSecond, lines / seconds);
        self.add("ingest", "NDJSON", Unit::BytesPerSecond, bytes / seconds);
        self.figures.add_latencies("ingest", "request", latencies);
        let cpu = self.add_usage("ingest", usage);
        if let (Some(before), Some(after)) = (catalog_bytes, self.catalog_bytes().await) {
            let per_instance = (after - before) as f64 / self.corpus.instances().count() as f64;
            self.add("ingest", "bytes of the catalog, per instance", Unit::Count, per_instance);
        }
        if let Some(alone) = alone {
            self.add("ingest", "rate : bare loop of the same chunks", Unit::Ratio, alone.chunks / seconds);
            self.add("ingest", "rate : a row a line", Unit::Ratio, lines / seconds / alone.rows_per_second);
            self.add("ingest", "CPU with the database : zstd -9, one thread", Unit::Ratio, cpu / alone.zstd);
        }
        Ok(())
    }

    async fn catalog_bytes(&self) -> Option<i64> {
        sql::catalog_bytes(self.private?.db()).await
    }

    async fn ingest_alone(&self, private: &Private, app: &str) -> anyhow::Result<IngestAlone> {
        let bodies = self.corpus.bodies(self.shape);
        let name: App = app.parse().context("the name of the app")?;
        let chunks = baseline::chunk_loop(private.db(), &bodies, &name, self.clock).await?;
        let rows_per_second = baseline::row_loop(private.db(), &bodies, self.clock).await?;
        let raw = bodies.concat().concat();
        let cpu = Process::new(std::process::id()).cpu();
        zstd::bulk::compress(&raw, 9)?;
        let zstd = (Process::new(std::process::id()).cpu() - cpu).as_secs_f64();
        Ok(IngestAlone { chunks, rows_per_second, zstd })
    }

    pub(super) async fn archive(&mut self, app: &str) -> anyhow::Result<()> {
        let Some(private) = self.private else { return Ok(()) };
        let instances: Vec<String> = self.corpus.instances().map(str::to_owned).collect();
        load::finish(self.client, app, &instances, self.shape.clients).await?;
        let usage = Usage::begin(self.private);
        let started = self.clock.instant();
        load::archive(self.client).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.add("archive", "NDJSON", Unit::BytesPerSecond, self.corpus.bytes as f64 / seconds);
        self.add("archive", "instances", Unit::PerSecond, instances.len() as f64 / seconds);
        self.add_usage("archive", usage);
        let daemon_cpu = usage.map_or(0.0, |usage| private.cpu().0 - usage.daemon);
        let objects = baseline::objects_of(&private.store, &app.parse()?).await?;
        ensure!(!objects.is_empty(), "the archiver made no object");
        let alone = archive_alone(&objects, private.zstd_level, self)?;
        let stored: u64 = objects.iter().map(|object| object.byte_length).sum();
        self.add("archive", "bytes in the bucket", Unit::Bytes, stored as f64);
        self.add("archive", "objects", Unit::Count, objects.len() as f64);
        if let Some(bytes) = self.catalog_bytes().await {
            self.add("archive", "bytes of the catalog so far", Unit::Bytes, bytes as f64);
        }
        self.add("archive", "rate : zstd alone, all cores", Unit::Ratio, alone.seconds / seconds);
        self.add("archive", "CPU of the daemon : zstd alone", Unit::Ratio, daemon_cpu / alone.cpu);
        self.add("archive", "bytes : zstd -9, a stream an object", Unit::Ratio, stored as f64 / alone.bytes as f64);
        // Purged, as nearly all that a user's search looks at is.
        self.clock.sleep(PURGE_GRACE).await;
        let started = self.clock.instant();
        load::archive(self.client).await?;
        self.add("archive", "purge", Unit::Seconds, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Pages of many instances, one after the other.
    pub(super) async fn read_pages(&mut self, app: &str, what: &str) -> anyhow::Result<Vec<String>> {
        let all: Vec<&str> = self.corpus.instances().collect();
        let some = all.iter().step_by(all.len().div_ceil(PAGES));
        let (mut seconds, mut read) = (Vec::new(), Vec::new());
        for instance in some {
            seconds.push(load::get(self.client, &load::page(app, instance)).await?.1);
            read.push((*instance).to_owned());
        }
        self.figures.add_latencies("read", what, seconds);
        Ok(read)
    }

    pub(super) async fn follow(&mut self, app: &str) -> anyhow::Result<()> {
        let late = follow::fan_out(self.client, app, self.followers).await?;
        self.figures.add_latencies("read", &format!("a line at {} followers", self.followers), late);
        Ok(())
    }

    pub(super) async fn read_cold(&mut self, app: &str) -> anyhow::Result<()> {
        let Some(private) = self.private else { return Ok(()) };
        let usage = Usage::begin(self.private);
        let read = self.read_pages(app, "cold page").await?;
        let mut bare = Vec::new();
        for instance in &read {
            bare.push(self.bare_get(private, app, instance).await?);
        }
        self.figures.add_latencies("read", "cold page, bare GET", bare);
        for (what, log) in [("14 records", self.corpus.nearest_to(14)), ("the longest", self.corpus.longest())] {
            let Some(log) = log else { continue };
            let what = format!("cold log of {}", if what == "14 records" { log_size(log) } else { what.to_owned() });
            let (bytes, seconds) = self.median_get(&load::download(app, &log.instance)).await?;
            self.add("read", format!("{what}, NDJSON"), Unit::Bytes, bytes as f64);
            self.add("read", format!("{what}, to the last byte"), Unit::Seconds, seconds);
        }
        if let Some(log) = self.corpus.longest() {
            let (_, seconds) = self.median_get(&load::download(app, &log.instance)).await?;
            let alone = self.decompress_alone(private, app, &log.instance).await?;
            self.add("read", "rate of the download : zstd alone", Unit::Ratio, alone / seconds);
        }
        self.add_usage("read", usage);
        Ok(())
    }

    /// The frames that an instance's log stands in, with one request and nothing done to them.
    async fn bare_get(&self, private: &Private, app: &str, instance: &str) -> anyhow::Result<f64> {
        let parts = parts_of(private, app, instance).await?;
        let started = self.clock.instant();
        for part in &parts {
            private.store.get_range(&part.0, part.1.clone()).await?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    async fn decompress_alone(&self, private: &Private, app: &str, instance: &str) -> anyhow::Result<f64> {
        let mut seconds = 0.0;
        for (key, range) in parts_of(private, app, instance).await? {
            let bytes = private.store.get_range(&key, range).await?;
            let started = self.clock.instant();
            std::io::copy(&mut zstd::stream::read::Decoder::new(&*bytes)?, &mut std::io::sink())?;
            seconds += started.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }

    async fn median_get(&self, call: &Call) -> anyhow::Result<(u64, f64)> {
        let mut runs = Vec::new();
        for _ in 0..REPEATS {
            runs.push(load::get(self.client, call).await?);
        }
        runs.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(runs[REPEATS / 2])
    }

    pub(super) async fn search(&mut self, app: &str) -> anyhow::Result<()> {
        let usage = Usage::begin(self.private);
        let rare = self.median_get(&load::search(app, RARE_TOKEN)).await?.1;
        let scan = self.median_get(&load::search(app, NOT_A_WORD)).await?.1;
        self.add("search", "a rare word", Unit::Seconds, rare);
        self.add("search", "a rare word, per GB of NDJSON", Unit::Seconds, rare * 1e9 / self.corpus.bytes as f64);
        self.add("search", "a text without words", Unit::Seconds, scan);
        self.add("search", "a text without words : a rare word", Unit::Ratio, scan / rare);
        self.add_usage("search", usage);
        if let Some(private) = self.private {
            let objects = baseline::objects_of(&private.store, &app.parse()?).await?;
            let frames: Vec<Frame> = objects.into_iter().flat_map(|object| object.frames).collect();
            let finder = memchr::memmem::Finder::new(NOT_A_WORD);
            let alone = baseline::on_all_cores(&frames, self.clock, |frame| {
                std::hint::black_box(baseline::decompress(frame).map(|raw| finder.find(&raw)).ok());
            });
            self.add("search", "rate : decompress + memmem, all cores", Unit::Ratio, alone / scan);
        }
        Ok(())
    }

    fn add(&mut self, stage: &'static str, name: impl Into<String>, unit: Unit, value: f64) {
        self.figures.add(stage, name, unit, value);
    }

    /// Adds what the processes used since; answers their CPU seconds together.
    fn add_usage(&mut self, stage: &'static str, before: Option<Usage>) -> f64 {
        let (Some(private), Some(before)) = (self.private, before) else { return 0.0 };
        let (daemon, database) = private.cpu();
        let (daemon, database) = (daemon - before.daemon, database - before.database);
        self.add(stage, "CPU of the daemon", Unit::Seconds, daemon);
        if private.database.is_some() {
            self.add(stage, "CPU of the database", Unit::Seconds, database);
        }
        self.add(stage, "peak memory of the daemon", Unit::Bytes, private.daemon.peak_memory() as f64);
        daemon + database
    }
}

/// What the database and zstd do without the daemon: seconds, lines a second, CPU seconds.
struct IngestAlone {
    chunks: f64,
    rows_per_second: f64,
    zstd: f64,
}

/// CPU seconds at the beginning of a stage.
#[derive(Clone, Copy)]
struct Usage {
    daemon: f64,
    database: f64,
}

impl Usage {
    fn begin(private: Option<&Private>) -> Option<Self> {
        let private = private?;
        private.daemon.forget_peak();
        let (daemon, database) = private.cpu();
        Some(Self { daemon, database })
    }
}

struct ArchiveAlone {
    seconds: f64,
    cpu: f64,
    bytes: u64,
}

/// zstd with the frames of the objects on all cores; and, for the size, with each object as one stream at level 9.
fn archive_alone(objects: &[Object], level: i32, bench: &Bench<'_>) -> anyhow::Result<ArchiveAlone> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    for object in objects {
        let raw = object.frames.iter().map(baseline::decompress).collect::<std::io::Result<Vec<_>>>()?;
        bytes += zstd::bulk::compress(&raw.concat(), 9)?.len() as u64;
        frames.extend(raw);
    }
    let this = Process::new(std::process::id());
    let cpu = this.cpu();
    let seconds = baseline::on_all_cores(&frames, bench.clock, |raw| {
        std::hint::black_box(zstd::bulk::compress(raw, level).ok());
    });
    Ok(ArchiveAlone { seconds, cpu: (this.cpu() - cpu).as_secs_f64(), bytes })
}

/// Consecutive bytes of an object.
type FrameRange = (Key, Range<u64>);

async fn parts_of(private: &Private, app: &str, instance: &str) -> anyhow::Result<Vec<FrameRange>> {
    let (app, instance): (App, Instance) = (app.parse()?, instance.parse()?);
    let all = LineRange::new(0, i64::MAX as u64);
    let snapshot = private.catalog.snapshot(&app, &instance, None, all).await?.context("the catalog forgot it")?;
    let mut parts = Vec::new();
    for part in &snapshot.parts {
        let rule = private.catalog.rule_name(&snapshot.home, part.segment.rule_id).await?.parse()?;
        let (finish_day, ulid) = (part.segment.finish_day, part.segment.ulid);
        let key = ObjectName { app: app.clone(), rule, finish_day, ulid }.key();
        parts.push((key, part.byte_offset..part.byte_offset + part.byte_length));
    }
    Ok(parts)
}

fn log_size(log: &Log) -> String {
    format!("{} records", log.lines.len())
}
