//! What a read has touched, and what it could leave alone.

use crate::cold::segment::PartCost;
use crate::telemetry::Metrics;

/// What reading has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Chunks whose payload was fetched, and chunks that were left out by what their row says.
    pub chunks: u64,
    pub chunks_skipped: u64,
    /// Frames that were decompressed, and frames that were not even fetched.
    pub frames: u64,
    pub frames_skipped: u64,
    /// Bytes asked of the store.
    pub bytes: u64,
}

impl Cost {
    pub fn add(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.chunks_skipped += other.chunks_skipped;
        self.frames += other.frames;
        self.frames_skipped += other.frames_skipped;
        self.bytes += other.bytes;
    }

    /// Tells the metrics.
    pub(super) fn count(&self, metrics: &Metrics) {
        metrics.read_blocks("chunk", self.chunks);
        metrics.read_blocks("chunk_skipped", self.chunks_skipped);
        metrics.read_blocks("frame", self.frames);
        metrics.read_blocks("frame_skipped", self.frames_skipped);
        metrics.read_bytes.inc_by(self.bytes);
    }

    pub(super) fn add_part(&mut self, part: PartCost) {
        self.frames += part.frames;
        self.frames_skipped += part.frames_skipped;
        self.bytes += part.bytes;
    }
}
