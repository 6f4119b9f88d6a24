//! Counters and gauges for Prometheus. No global: each daemon of a test has its own.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByShard {
    pub shard: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTask {
    pub task: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    pub outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTier {
    pub tier: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByKind {
    pub kind: String,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// The background tasks whose success is told from the first second on; 0 before the first time.
const TASKS: [&str; 3] = ["archive", "sweep", "scrub"];

/// The kinds of errors that are counted from the first second on; others appear when they happen.
const ERRORS: [&str; 8] = ["archive", "busy", "corrupt", "internal", "missing", "stopping", "stream", "unavailable"];

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
    pub records: Counter,
    pub record_bytes: Counter,
    pub rejected_records: Counter,
    pub not_utf8_records: Counter,
    pub queue_bytes: Gauge,
    pub commit_seconds: Histogram,
    pub hot_chunks: Family<ByShard, Gauge>,
    pub hot_bytes: Family<ByShard, Gauge>,
    pub due_attempts: Gauge,
    pub oldest_due_seconds: FloatGauge,
    pub runs: Family<ByOutcome, Counter>,
    pub task_success: Family<ByTask, FloatGauge>,
    pub task_restarts: Family<ByTask, Counter>,
    pub objects_written: Counter,
    pub objects_verified: Counter,
    pub object_bytes: Counter,
    pub attempts_archived: Counter,
    pub lines_archived: Counter,
    pub purged_chunks: Counter,
    pub purge_backlog: Gauge,
    pub attempts_expired: Counter,
    pub objects_deleted: Counter,
    pub objects_rewritten: Counter,
    pub set_aside: Counter,
    pub scrubbed_objects: Counter,
    pub scrub_findings: Family<ByKind, Gauge>,
    pub set_aside_now: Gauge,
    pub reads: Family<ByTier, Counter>,
    pub read_blocks: Family<ByKind, Counter>,
    pub read_bytes: Counter,
    pub errors: Family<ByKind, Counter>,
    pub store_requests: Family<ByKind, Counter>,
    pub powerjob_lost_lines: Counter,
    pub powerjob_gaps: Counter,
    pub powerjob_lost_states: Counter,
    pub powerjob_placeholders: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("logtier");
        macro_rules! metric {
            ($name:literal, $help:literal) => {
                metric!($name, $help, Default::default())
            };
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, clone_of(&metric));
                metric
            }};
        }
        let metrics = Self {
            records: metric!("records", "Records stored in the hot tier"),
            record_bytes: metric!("record_bytes", "Bytes of stored records as JSON"),
            rejected_records: metric!("rejected_records", "Records refused because they were malformed"),
            not_utf8_records: metric!("not_utf8_records", "Records whose message was no UTF-8 and is kept in raw"),
            queue_bytes: metric!("queue_bytes", "Bytes of records waiting for their commit"),
            commit_seconds: metric!(
                "commit_seconds",
                "Time from taking a group of batches to answering it",
                Histogram::new(exponential_buckets(0.001, 2.0, 14))
            ),
            hot_chunks: metric!("hot_chunks", "Chunk rows in the hot tier, as the database estimates"),
            hot_bytes: metric!("hot_bytes", "Bytes of chunk rows in the hot tier, as the database estimates"),
            due_attempts: metric!(
                "due_attempts",
                "Attempts that the archiver should look at now, counted up to 10,000"
            ),
            oldest_due_seconds: metric!("oldest_due_seconds", "How long the oldest due attempt has been waiting"),
            runs: metric!("archive_runs", "Runs of the archiver by outcome"),
            task_success: metric!(
                "task_last_success_timestamp_seconds",
                "When each background task last succeeded on any daemon; 0 before the first time"
            ),
            task_restarts: metric!("task_restarts", "Background tasks that died and were started again"),
            objects_written: metric!("objects_written", "Objects uploaded to the cold tier"),
            objects_verified: metric!("objects_verified", "Objects read back and found equal to the hot tier"),
            object_bytes: metric!("object_bytes", "Bytes of objects uploaded to the cold tier"),
            attempts_archived: metric!("attempts_archived", "Attempts published in the cold tier"),
            lines_archived: metric!("lines_archived", "Lines published in the cold tier"),
            purged_chunks: metric!("purged_chunks", "Chunk rows deleted after their lines were published"),
            purge_backlog: metric!("purge_backlog_attempts", "Attempts whose published chunks are not purged yet"),
            attempts_expired: metric!("attempts_expired", "Attempts whose retention ended"),
            objects_deleted: metric!("objects_deleted", "Objects deleted from the cold tier"),
            objects_rewritten: metric!("objects_rewritten", "Objects whose living part moved to a new one"),
            scrubbed_objects: metric!("scrubbed_objects", "Objects read again by the scrub"),
            scrub_findings: metric!("scrub_findings", "Objects that the scrub found not to be what the catalog says"),
            set_aside: metric!("set_aside_attempts", "Times an attempt was put off because archiving it failed"),
            set_aside_now: metric!("set_aside", "Attempts and objects that are left alone after failures"),
            reads: metric!("reads", "Reads by the tiers they touched"),
            read_blocks: metric!("read_blocks", "Chunks and frames that reads decompressed or skipped unread"),
            read_bytes: metric!("read_bytes", "Bytes that reads asked of the object store"),
            errors: metric!("errors", "Errors by kind"),
            store_requests: metric!("store_requests", "Requests to the object store by kind"),
            powerjob_lost_lines: metric!(
                "powerjob_lost_lines",
                "Lines of PowerJob's workers that were not stored in time"
            ),
            powerjob_gaps: metric!("powerjob_gaps", "Records in PowerJob's logs that say that lines are missing there"),
            powerjob_lost_states: metric!("powerjob_lost_states", "States of PowerJob's workers that were not stored"),
            powerjob_placeholders: metric!(
                "powerjob_placeholders",
                "Files of PowerJob that only said \"no log\", dropped"
            ),
            registry: Registry::default(),
        };
        metrics.begin_at_zero();
        Self { registry, ..metrics }
    }
}

fn clone_of<T: Clone>(metric: &T) -> T {
    metric.clone()
}

impl Metrics {
    /// An alert on an increase misses the first event of a counter that begins with it.
    fn begin_at_zero(&self) {
        for kind in ["missing", "damaged"] {
            self.scrub_findings.get_or_create(&ByKind { kind: kind.to_owned() }).set(0);
        }
        for task in TASKS {
            self.task_success.get_or_create(&ByTask { task: task.to_owned() }).set(0.0);
        }
        for kind in ERRORS {
            drop(self.errors.get_or_create(&ByKind { kind: kind.to_owned() }));
        }
    }

    pub fn ingested(&self, records: u64, bytes: u64) {
        self.records.inc_by(records);
        self.record_bytes.inc_by(bytes);
    }

    pub fn error(&self, kind: &str) {
        self.errors.get_or_create(&ByKind { kind: kind.to_owned() }).inc();
    }

    pub fn read(&self, tier: &str) {
        self.reads.get_or_create(&ByTier { tier: tier.to_owned() }).inc();
    }

    /// Adds to what reads have decompressed or skipped; `kind` as `chunk` or `frame_skipped`.
    pub fn read_blocks(&self, kind: &str, blocks: u64) {
        if blocks > 0 {
            self.read_blocks.get_or_create(&ByKind { kind: kind.to_owned() }).inc_by(blocks);
        }
    }

    pub fn run_ended(&self, outcome: &str) {
        self.runs.get_or_create(&ByOutcome { outcome: outcome.to_owned() }).inc();
    }

    /// In OpenMetrics' text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_shown_from_the_first_second() {
        let metrics = Metrics::default();
        metrics.ingested(2, 10);
        metrics.error("store");
        let text = metrics.encode().expect("text");
        assert!(text.contains("logtier_records_total 2") && text.contains("logtier_errors_total{kind=\"store\"} 1"));
        assert!(text.contains("logtier_errors_total{kind=\"unavailable\"} 0"), "{text}");
        assert!(text.contains("logtier_task_last_success_timestamp_seconds{task=\"archive\"} 0.0"), "{text}");
    }
}
