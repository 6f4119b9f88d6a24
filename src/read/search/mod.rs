//! Looking for records across instances, the newest first, in both tiers.
//!
//! Where the catalog narrows the search to few attempts (an instance, a job, labels), those are read
//! like any log. Else the hot tier is read attempt by attempt, and the cold tier object by object:
//! the object's search filters and the bounds of its frames say which frames may hold a match, those are
//! fetched and decompressed once for all attempts in them, on all processors, and only the owners of
//! lines that look like a match are asked of the catalog, which decides whether they still exist.
//!
//! # Order
//!
//! The newest instances first; in the cold tier those that finished on the latest day, and of one
//! day those of the newest object, from its end. Lines of an instance come in order, in pieces where
//! it is very large.
//!
//! # Completeness
//!
//! While a search goes on, lines move to the cold tier and objects are rewritten. The hot tier is
//! read before the list of objects is, and the list is read again at the end, for objects that
//! appeared meanwhile. So no line is missed; one that was met twice is shown once.

mod instances;
mod objects;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Filter, ListFilter, ReadError, Reader, View};
use crate::model::{AttemptId, AttemptKey, Instance};
use instances::{Instances, Listing};
use objects::Objects;

/// What to look for, and where.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// App, job and the like; `since` and `until` of it stay empty: they are of the records.
    pub among: ListFilter,
    pub instance: Option<Instance>,
    pub filter: Filter,
    /// Records to find at most. They are remembered, 16 bytes each, so that none is shown twice.
    pub limit: u64,
    /// A search that takes longer ends early and says so.
    pub patience: Duration,
}

impl SearchRequest {
    /// Whether the catalog finds the attempts in question by itself.
    fn is_narrow(&self) -> bool {
        let ListFilter { job, labels, outcome, state, .. } = &self.among;
        self.instance.is_some() || job.is_some() || !labels.is_empty() || outcome.is_some() || state.is_some()
    }
}

/// What a search has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub found: u64,
    /// Attempts that were read.
    pub scanned: u64,
    /// Attempts that the catalog said cannot match.
    pub skipped: u64,
    /// Objects of which frames were read, and those of which none had to be.
    pub objects: u64,
    pub objects_skipped: u64,
    /// Frames that were decompressed, and frames that were left out.
    pub frames: u64,
    pub frames_skipped: u64,
    /// Bytes asked of the store.
    pub bytes: u64,
    /// Why it ended before everything was searched.
    pub cut: Option<&'static str>,
}

/// A search under way. Dropping it ends it.
pub struct Search {
    reader: Reader,
    stages: VecDeque<Stage>,
    deadline: std::time::Instant,
    finds: Finds,
}

enum Stage {
    Instances(Box<Instances>),
    Objects(Box<Objects>),
}

impl Reader {
    pub fn search(&self, request: SearchRequest) -> Search {
        let deadline = self.clock.instant() + request.patience;
        let finds = Finds { limit: request.limit, shown: HashSet::new(), progress: Progress::default() };
        let request = Arc::new(request);
        let instances =
            |listing| Stage::Instances(Box::new(Instances::new(self.clone(), Arc::clone(&request), listing)));
        let stages = if request.is_narrow() {
            VecDeque::from([instances(Listing::Catalog)])
        } else {
            let objects = Objects::new(self.clone(), &request);
            VecDeque::from([instances(Listing::Hot), Stage::Objects(Box::new(objects))])
        };
        Search { reader: self.clone(), stages, deadline, finds }
    }
}

impl Search {
    pub fn progress(&self) -> Progress {
        self.finds.progress
    }

    /// Shows the finds of the next step, each with whose it is, its line and JSON; false at the end.
    pub async fn next(&mut self, mut show: impl FnMut(&View, u64, &[u8])) -> Result<bool, ReadError> {
        if self.finds.progress.cut.is_some() {
            return Ok(false);
        }
        if self.reader.clock.instant() >= self.deadline {
            self.finds.progress.cut = Some("it took too long; narrow it by job, instance, since or until");
            return Ok(false);
        }
        let more = match self.stages.front_mut() {
            None => return Ok(false),
            Some(Stage::Instances(instances)) => instances.next(&mut self.finds, &mut show).await?,
            Some(Stage::Objects(objects)) => objects.next(&mut self.finds, &mut show).await?,
        };
        if !more {
            self.stages.pop_front();
        }
        Ok(true)
    }
}

/// What was found so far.
struct Finds {
    limit: u64,
    shown: HashSet<(AttemptId, u64)>,
    progress: Progress,
}

impl Finds {
    /// Whether a find is shown: not for the second time, and not beyond the limit.
    fn take(&mut self, view: &View, line: u64) -> bool {
        if self.progress.cut.is_some() || !view.attempt.lines().contains(line) {
            return false;
        }
        if self.shown.contains(&(view.attempt.id, line)) {
            return false;
        }
        if self.progress.found >= self.limit {
            self.progress.cut = Some("the limit was reached");
            return false;
        }
        self.shown.insert((view.attempt.id, line));
        self.progress.found += 1;
        true
    }
}

/// The members that say whose a find is: `"app":…,"instance":…,"attempt":…,`.
pub fn owner_json(key: &AttemptKey) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    format!(
        "\"app\":{},\"instance\":{},\"attempt\":{},",
        text(key.app.as_str()),
        text(key.instance.as_str()),
        key.attempt
    )
}
