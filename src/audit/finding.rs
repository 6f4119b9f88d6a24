//! What an audit found, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An object that attempts need is not in the bucket: lines are lost.
    Missing,
    /// An object or a chunk does not hold what the catalog says: lines are lost.
    Damaged,
    /// The lines of an attempt have a gap or an overlap in the catalog.
    Lines,
    /// An object that the catalog does not know. Nothing is lost; it takes room.
    Orphan,
}

impl FindingKind {
    pub const ALL: [Self; 4] = [Self::Missing, Self::Damaged, Self::Lines, Self::Orphan];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Lines => "lines",
            Self::Orphan => "orphan",
        }
    }
}

/// One thing that is wrong, after a second look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// The object's key below the prefix, or the attempt's name.
    pub name: String,
    pub what: String,
    /// Attempts that are hit, the first few: `app/instance#attempt`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<String>,
    /// How many attempts are hit.
    #[serde(skip_serializing_if = "is_zero")]
    pub hit: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Finding {
    pub(super) fn new(kind: FindingKind, name: impl ToString, what: impl Into<String>) -> Self {
        Self { kind, name: name.to_string(), what: what.into(), attempts: Vec::new(), hit: 0 }
    }
}

/// How far long work is, for whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<Phase>,
    done: AtomicU64,
    items: AtomicU64,
}

/// What is being done now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phase {
    pub name: &'static str,
    /// What is counted: `objects`, `attempts` …
    pub unit: &'static str,
    /// How much there is to be done; 0 where nobody knows.
    pub total: u64,
}

impl Progress {
    /// Begins the next phase; counts begin at 0.
    pub fn begin(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.done.store(0, Ordering::Relaxed);
        self.items.store(0, Ordering::Relaxed);
    }

    /// `done` counts towards the phase's total, `items` in its unit.
    pub fn add(&self, done: u64, items: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.items.fetch_add(items, Ordering::Relaxed);
    }

    pub fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of the total is done, and how many items.
    pub fn so_far(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.items.load(Ordering::Relaxed))
    }
}
