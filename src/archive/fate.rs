//! What becomes of an object that lost entries: a pure function of its row, the settings and the time.
//!
//! Entries that expired and entries that someone deleted are counted apart. All entries of an object
//! finished on one day, so those that expire do so within about a day, and the object goes as a whole;
//! to rewrite it in between would be wasted. What was deleted must leave the bucket in time.

use std::time::Duration;

use crate::catalog::SweptSegment;
use crate::model::{Age, Millis};

/// When objects are rewritten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewriteSettings {
    /// An object is rewritten once this share of its lines is dead.
    pub dead_share: f64,
    /// Deleted bytes leave the bucket within this time.
    pub erase_within: Age,
}

impl Default for RewriteSettings {
    fn default() -> Self {
        Self { dead_share: 0.5, erase_within: Age::For(Duration::from_secs(30 * 24 * 3600)) }
    }
}

/// What is to be done with a live object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing before then.
    Keep(Millis),
    Rewrite(&'static str),
}

/// An object that lost nothing for so long after it lost something is not in the middle of
/// expiring: what is left (held, or a job's newest runs) stays.
const SETTLED: Duration = Duration::from_secs(48 * 3600);

pub(super) fn fate(of: &SweptSegment, settings: &RewriteSettings, now: Millis) -> Fate {
    // Entries that never were published: their attempt was deleted meanwhile, or another object has
    // them. Nobody will give them up, so they count as deleted.
    let stray_lines = of.written_lines.saturating_sub(of.lines);
    let deleted_at = of.deleted_at.or((of.written_entries > of.entries).then_some(of.created_at));
    let share = |lines: u64| lines as f64 / of.written_lines.max(of.lines).max(1) as f64;
    let mut look_at = Millis::NEVER;
    if let Some(deleted_at) = deleted_at {
        if share(of.deleted_lines + stray_lines) >= settings.dead_share {
            return Fate::Rewrite("many of its lines were deleted");
        }
        // Half of the time is for others to be deleted from it too, half for trying again.
        if let Age::For(erase_within) = settings.erase_within {
            match deleted_at.after(erase_within / 2) {
                at if at <= now => return Fate::Rewrite("deleted lines must leave the bucket"),
                at => look_at = look_at.min(at),
            }
        }
    }
    if let Some(died_at) = of.died_at
        && share(of.dead_lines + stray_lines) >= settings.dead_share
    {
        match died_at.after(SETTLED) {
            at if at <= now => return Fate::Rewrite("most of its lines have expired, and the rest stays"),
            at => look_at = look_at.min(at),
        }
    }
    Fate::Keep(look_at)
}
