//! The way out: one reader over both tiers.
//!
//! # Overview
//!
//! [`Reader::open`] takes one snapshot of the catalog: state, end, watermark, parts. [`Reader::lines`]
//! then gives the lines of a range in order: below the watermark from parts in the cold tier, at or
//! above it from chunks in the hot tier, up to the end that the snapshot named. Every surface goes
//! through it: HTTP, command line, protocols.
//!
//! # Invariants
//!
//! - Line N is the same record whichever tier it comes from (I2); no gap and no repeat.
//! - A tier that cannot be asked is an error, never a short or empty log (I8).
//! - Nothing is remembered between reads but what objects say of themselves, which never changes;
//!   least of all that something was not there (I3).
//!
//! # Races with the archiver
//!
//! A chunk may be purged, or an object rewritten, after the snapshot named it. The reader then takes
//! a new snapshot and goes on from the last line it gave. Short a second time at the same line is
//! an error.
//!
//! # Cancellation
//!
//! Dropping a reader at any point leaves nothing behind: it only ever reads.

mod cost;
mod cursor;
mod filter;
mod lines;
mod list;
mod maps;
mod matching;
mod needle;
mod page;
mod search;
mod sieve;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use cost::Cost;
pub use cursor::{Cursor, InvalidCursor};
pub use filter::Filter;
pub use lines::{Block, Lines, Tier, Tiers};
pub use matching::Matching;
use needle::Needle;
pub use page::{Line, Order, Page, PageRequest};
pub use search::{Progress, Search, SearchRequest, owner_json};

pub use crate::catalog::{Attempt, ListFilter, ListPage, Listed};
use crate::catalog::{Catalog, Snapshot};
use crate::clock::Clock;
use crate::cold::Store;
use crate::cold::segment::Ndjson;
pub use crate::cold::segment::Shape;
use crate::db;
use crate::hot;
use crate::model::{App, AttemptKey, AttemptNo, AttemptState, Identity, Instance, Job, LineRange, Millis};
use crate::telemetry::Metrics;

/// Why a read gives no answer, or stops giving one.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The catalog knows no such instance or attempt now. It may the next moment.
    #[error("nothing was ever logged under this id")]
    NeverLogged,
    #[error("the log is {}", if *.state == AttemptState::Deleted { "deleted" } else { "expired" })]
    Gone { state: AttemptState, at: Option<Millis> },
    /// The hot tier cannot be asked, or holds a row that cannot be read.
    #[error("read hot tier")]
    Hot(#[from] db::Error),
    /// The cold tier cannot be asked, or holds an object that cannot be read.
    #[error("read cold tier")]
    Cold(#[from] crate::cold::Error),
    /// Lines that the catalog names are in neither tier, twice in a row.
    #[error("line {line} is in neither tier, though the catalog names it")]
    Missing { line: u64 },
    #[error("a stored record cannot be read")]
    Record(#[from] crate::model::InvalidRecord),
}

impl ReadError {
    /// Whether a tier cannot be asked now: asking again later may help. A store that refuses
    /// counts, because nobody knows what is in it.
    pub fn is_unavailable(&self) -> bool {
        use crate::cold::Error as Cold;
        match self {
            Self::Hot(error) => !error.is_permanent(),
            Self::Cold(error) => {
                matches!(error, Cold::Unavailable { .. } | Cold::Refused { .. } | Cold::Settings { .. })
            }
            _ => false,
        }
    }

    /// The key of the object that holds the lines and is not there, though the cold tier is.
    pub fn missing_object(&self) -> Option<String> {
        match self {
            Self::Cold(crate::cold::Error::NotFound { key }) => Some(key.to_string()),
            _ => None,
        }
    }

    /// Whether what is stored is not what was written.
    pub fn is_damage(&self) -> bool {
        use crate::cold::Error as Cold;
        match self {
            Self::Hot(error) => matches!(error, db::Error::Row(_)),
            Self::Cold(error) => matches!(error, Cold::Corrupt { .. } | Cold::NotFound { .. }),
            Self::Missing { .. } | Self::Record(_) => true,
            Self::NeverLogged | Self::Gone { .. } => false,
        }
    }
}

/// The reader. Clones share everything.
#[derive(Clone)]
pub struct Reader {
    pub(crate) catalog: Catalog,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    maps: Arc<maps::Maps>,
}

/// One attempt as it was at one moment.
#[derive(Clone)]
pub struct View {
    pub app: App,
    pub job: Option<Job>,
    pub attempt: Attempt,
    /// When the snapshot was taken.
    pub at: Millis,
    pub(crate) snapshot: Snapshot,
}

impl View {
    pub fn key(&self) -> AttemptKey {
        AttemptKey { app: self.app.clone(), instance: self.attempt.instance.clone(), attempt: self.attempt.attempt }
    }

    /// What every line of the attempt says of itself, as of now.
    pub fn identity(&self) -> Identity {
        Identity { key: self.key(), job: self.job.clone(), labels: self.attempt.labels.clone() }
    }

    /// Server and shard that hold its row.
    pub fn place(&self) -> (usize, u16) {
        (self.snapshot.home.db.number(), self.snapshot.home.shard.number())
    }

    /// Whether no more lines are expected: the client said so, or long silence did.
    pub fn is_final(&self) -> bool {
        self.attempt.state_at(self.at).is_finished()
    }

    /// The last `lines` lines.
    pub fn tail(&self, lines: u64) -> LineRange {
        let all = self.attempt.lines();
        LineRange::new(all.end().saturating_sub(lines).max(all.start()), all.end())
    }
}

/// How often a waiting reader looks: lines are seen within a second of their commit.
/// Chunks that one look for the newest lines of several attempts gets at most: 2 MiB of usual records.
const NEWEST_CHUNKS: u32 = 64;

const WAIT_POLL: Duration = Duration::from_millis(250);

impl Reader {
    pub fn new(catalog: Catalog, store: Store, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { catalog, store, clock, metrics, maps: Arc::default() }
    }

    /// An attempt, the newest where none is named, whatever its state. No line is read.
    pub async fn show(&self, app: &App, instance: &Instance, attempt: Option<AttemptNo>) -> Result<View, ReadError> {
        self.view(app, instance, attempt, LineRange::new(0, 0)).await
    }

    /// An attempt whose lines can be read; an error where it is expired or deleted.
    pub async fn open(&self, app: &App, instance: &Instance, attempt: Option<AttemptNo>) -> Result<View, ReadError> {
        let view = self.view(app, instance, attempt, LineRange::new(0, u64::MAX)).await?;
        match view.attempt.state_at(view.at) {
            state if state.is_gone() => Err(ReadError::Gone { state, at: view.attempt.gone_since() }),
            _ => Ok(view),
        }
    }

    async fn view(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
        range: LineRange,
    ) -> Result<View, ReadError> {
        let at = self.clock.now();
        let snapshot = self.catalog.snapshot(app, instance, attempt, range).await?;
        let snapshot = snapshot.ok_or(ReadError::NeverLogged)?;
        let job = self.catalog.optional_name(&snapshot.home.db, snapshot.attempt.job_id).await?;
        Ok(View { app: app.clone(), job, attempt: snapshot.attempt.clone(), at, snapshot })
    }

    /// How attempts that were seen before stand now, by one query: all must be of one
    /// [`View::place`]. `None` for those that are forgotten.
    pub async fn look_at(&self, views: &[Arc<View>]) -> Result<Vec<Option<View>>, ReadError> {
        let Some(first) = views.first() else { return Ok(Vec::new()) };
        let at = self.clock.now();
        let ids: Vec<_> = views.iter().map(|view| view.attempt.id).collect();
        let rows = self.catalog.attempts(&first.snapshot.home, &ids).await?;
        let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        let mut looked = Vec::with_capacity(views.len());
        for view in views {
            let Some(attempt) = rows.remove(&view.attempt.id) else {
                looked.push(None);
                continue;
            };
            let job = self.catalog.optional_name(&view.snapshot.home.db, attempt.job_id).await?;
            // Parts that are new since are found by the reader, when it misses them.
            let snapshot = Snapshot { attempt: attempt.clone(), ..view.snapshot.clone() };
            looked.push(Some(View { app: view.app.clone(), job, attempt, at, snapshot }));
        }
        Ok(looked)
    }

    /// The lines of `range`, as far as the view has them, in order.
    pub fn lines(&self, view: &View, range: LineRange) -> Lines {
        let lines = range.intersect(view.attempt.lines());
        Lines::new(self.clone(), view, lines::Wanted::all(lines))
    }

    /// The same for NDJSON lines that begin with the view's identity: what the cold tier has, comes as it stands
    /// there, with `frames` some of it compressed ([`Block::shape`]); all else as records.
    pub fn ndjson(&self, view: &View, range: LineRange, frames: bool) -> Lines {
        let lines = range.intersect(view.attempt.lines());
        let ndjson = Ndjson { head: view.identity().head().into(), frames };
        Lines::new(self.clone(), view, lines::Wanted { ndjson: Some(ndjson), ..lines::Wanted::all(lines) })
    }

    /// The lines that attempts of one shard have had lately, each from a line on, where one look at the hot tier
    /// finds them all; `None` for those that have to be read by themselves.
    pub async fn newest(&self, asked: &[(&View, LineRange)]) -> Result<Vec<Option<Vec<Block>>>, ReadError> {
        let Some((first, _)) = asked.first() else { return Ok(Vec::new()) };
        let places =
            asked.iter().filter(|(view, lines)| !lines.is_empty() && lines.start() >= view.attempt.archived_line);
        let places: Vec<_> = places.map(|(view, lines)| (view.attempt.id, lines.start())).collect();
        let mut chunks = hot::scan_each_from(&first.snapshot.home, &places, NEWEST_CHUNKS).await?;
        let blocks = asked.iter().map(|(view, lines)| lines::cut_all(chunks.remove(&view.attempt.id)?, *lines));
        Ok(blocks.collect())
    }

    /// Waits until there is a line at or beyond `line`, the attempt is over, or `patience` ends.
    pub async fn wait_for(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
        line: u64,
        patience: Duration,
    ) -> Result<View, ReadError> {
        let deadline = self.clock.instant() + patience;
        loop {
            let view = self.open(app, instance, attempt).await;
            let settled = match &view {
                Ok(view) => view.attempt.next_line > line || view.is_final(),
                Err(ReadError::NeverLogged) => false,
                Err(_) => true,
            };
            let left = deadline.saturating_duration_since(self.clock.instant());
            if settled || left.is_zero() {
                return view;
            }
            self.clock.sleep(left.min(WAIT_POLL)).await;
        }
    }
}
