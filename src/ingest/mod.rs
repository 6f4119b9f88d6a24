//! The way in: validate, group, commit, answer.
//!
//! # Overview
//!
//! A request is decoded into one [`Batch`] per attempt. Batches wait in the queue of a *lane*; a lane
//! is one task that takes whatever has come together, writes it in one transaction, and answers.
//! While a commit is under way the next group gathers, so groups grow with the load and a lone
//! request never waits for company. All batches of an attempt pass through the same lane of a
//! daemon, in the order they came.
//!
//! # Invariants
//!
//! - A batch is answered only after the commit that holds it (I1).
//! - The queue is bounded in bytes as they stand in memory, and its room is taken while records are
//!   decoded; what does not fit is refused at once (I7).
//!
//! # Crash consistency
//!
//! The transaction is all there is: line numbers, chunks and batch keys commit together. A client
//! whose connection broke before the answer sends the batch again with its key.
//!
//! # Cancellation
//!
//! A client that goes away does not stop its batch: the lane owns it.

mod commit;
mod declare;
mod decode;
#[cfg(test)]
mod fuzz;
mod ids;
mod input;
mod lane;
mod pieces;
mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

pub use declare::{Declared, EndError, Facts};
pub use decode::{Decoded, Defaults, Rejected, decode_bulk, decode_lines, decode_text};
pub use input::MessageBytes;
pub use room::{Budget, NoRoom, Room};

use crate::catalog::{BatchKey, Catalog};
use crate::clock::Clock;
use crate::db;
use crate::hot::Lines;
use crate::model::{AttemptKey, AttemptNo, AttemptState, Job, Labels, Millis};
use crate::telemetry::Metrics;

/// Some records of one attempt, in order.
#[derive(Debug, Clone)]
pub struct Batch {
    pub key: AttemptKey,
    pub job: Option<Job>,
    pub labels: Labels,
    pub lines: Lines,
    pub batch_key: Option<BatchKey>,
    /// Append only if this is the next line.
    pub at_line: Option<u64>,
}

impl Batch {
    /// What a batch takes besides its records: names, labels, its places in maps.
    const OVERHEAD_BYTES: u64 = 1024;

    /// Bytes that it takes in memory.
    pub fn memory(&self) -> u64 {
        Self::OVERHEAD_BYTES + self.lines.memory()
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub attempt: AttemptNo,
    pub first_line: u64,
    pub lines: u64,
    /// The batch was stored before; this is what became of it then.
    pub repeated: bool,
    /// The attempt belongs to another job than the batch says.
    pub other_job: bool,
    /// The attempt has other labels than the batch says.
    pub other_labels: bool,
}

impl Appended {
    pub fn next_line(&self) -> u64 {
        self.first_line + self.lines
    }
}

/// Why a batch was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("the queue is full")]
    Full,
    #[error("the attempt is {}", if *.state == AttemptState::Deleted { "deleted" } else { "expired" })]
    Gone { state: AttemptState, at: Option<Millis> },
    #[error("the next line is {next_line}")]
    NotNextLine { next_line: u64 },
    #[error("the batch key was used before for other content")]
    KeyReused,
    #[error("store records")]
    Db(#[source] Arc<db::Error>),
    #[error("the daemon is stopping")]
    Stopping,
}

/// Bounds of the way in.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// Bytes of records, as they stand in memory, that may be decoded or wait.
    pub queue_bytes: u64,
    /// When an attempt that nobody writes to counts as finished.
    pub idle_after: Duration,
}

/// The way in.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
    /// Of each server, its lanes.
    senders: Arc<[Vec<mpsc::Sender<Pending>>]>,
}

struct Shared {
    catalog: Catalog,
    clock: Clock,
    metrics: Arc<Metrics>,
    idle_after: Duration,
    budget: Budget,
    ids: ids::Ids,
    /// When a database last had no room; zero before the first time.
    no_room_at: AtomicI64,
}

/// A batch in the queue.
struct Pending {
    batch: Batch,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// Its room in the queue, given back with the answer.
    _room: Room,
}

/// Batches that one lane can hold; its real bound is the bytes.
const LANE_BATCHES: usize = 8192;

/// One lane's work: its queue, shared so that a lane that died can be started again.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
    queue: Arc<Mutex<mpsc::Receiver<Pending>>>,
}

impl Ingest {
    /// The way in and the lanes behind it, which someone must [`Lane::run`].
    pub fn new(catalog: Catalog, clock: Clock, metrics: Arc<Metrics>, settings: &IngestSettings) -> (Self, Vec<Lane>) {
        let shared = Arc::new(Shared {
            clock,
            metrics,
            idle_after: settings.idle_after,
            budget: Budget::new(settings.queue_bytes),
            ids: ids::Ids::default(),
            no_room_at: AtomicI64::new(0),
            catalog,
        });
        let mut lanes = Vec::new();
        let mut add_lane = || {
            let (sender, queue) = mpsc::channel(LANE_BATCHES);
            lanes.push(Lane { shared: Arc::clone(&shared), queue: Arc::new(Mutex::new(queue)) });
            sender
        };
        let servers = shared.catalog.cluster.servers();
        let senders = servers.iter().map(|db| (0..db.write_lanes()).map(|_| add_lane()).collect()).collect();
        (Self { senders, shared: Arc::clone(&shared) }, lanes)
    }

    /// Stores a batch; answers after the commit.
    pub async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        self.append_within(batch, Room::default()).await
    }

    /// The same for a batch that was decoded within [`Ingest::budget`], whose room goes with it.
    pub async fn append_within(&self, batch: Batch, mut room: Room) -> Result<Appended, AppendError> {
        let waiting = self.enqueue(batch, &mut room)?;
        drop(room);
        waiting.await.unwrap_or(Err(AppendError::Stopping))
    }

    /// Stores batches of several attempts; each stands for itself.
    pub async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        self.append_all_within(batches, Room::default()).await
    }

    /// The same for batches that were decoded within [`Ingest::budget`], whose room goes with them.
    pub async fn append_all_within(&self, batches: Vec<Batch>, mut room: Room) -> Vec<Result<Appended, AppendError>> {
        let waiting: Vec<_> = batches.into_iter().map(|batch| self.enqueue(batch, &mut room)).collect();
        drop(room);
        let answers = waiting.into_iter().map(|waiting: Result<oneshot::Receiver<_>, _>| async move {
            waiting?.await.unwrap_or(Err(AppendError::Stopping))
        });
        futures::future::join_all(answers).await
    }

    fn enqueue(
        &self,
        batch: Batch,
        room: &mut Room,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let room = self.shared.budget.take(room, batch.memory()).map_err(|_| AppendError::Full)?;
        let home = self.shared.catalog.cluster.home(&batch.key.app, &batch.key.instance);
        let lanes = &self.senders[home.db.number()];
        let lane = &lanes[usize::from(home.shard.number()) % lanes.len()];
        let (answer, waiting) = oneshot::channel();
        lane.try_send(Pending { batch, answer, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Full,
            mpsc::error::TrySendError::Closed(_) => AppendError::Stopping,
        })?;
        Ok(waiting)
    }

    /// The room that decoding takes from, and a batch keeps until it is answered.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// When a database last refused records because it had no room for them.
    pub fn no_room_at(&self) -> Option<Millis> {
        let at = self.shared.no_room_at.load(Ordering::Relaxed);
        (at > 0).then(|| Millis::new(at))
    }

    /// The share of the queue that is taken, in bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.shared.budget.taken_bytes()
    }
}
