//! What a run did, or would do: for people, and kept as JSON for a while.

use serde::{Deserialize, Serialize};

/// Lists in a report end here; the counts go on.
pub(super) const MAX_LISTED: usize = 200;

/// A run of the archiver, or the rehearsal of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    pub run_id: String,
    pub daemon: String,
    /// `schedule` or `request`.
    pub cause: String,
    pub dry_run: bool,
    /// `running`, `done`, `failed` (something is listed in `failures`), or `abandoned`.
    pub state: String,
    pub started_at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<String>,
    /// Attempts, lines and bytes (before compression) that moved to the cold tier, or would.
    pub attempts: u64,
    pub lines: u64,
    pub bytes: u64,
    pub objects: u64,
    pub object_bytes: u64,
    /// Attempts that counted as finished because nobody wrote to them.
    pub inferred: u64,
    /// Attempts whose published chunks were deleted from the hot tier.
    pub purged: u64,
    pub purged_chunks: u64,
    pub expired: u64,
    pub forgotten: u64,
    pub objects_deleted: u64,
    /// Objects of which only the living part was kept, and the bytes of what replaced them.
    #[serde(default)]
    pub rewritten: u64,
    #[serde(default)]
    pub rewritten_bytes: u64,
    /// Why purging and expiring stopped before all was done; the next run goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purge_stopped: Option<String>,
    /// Why the run was refused, if only a person can change that: the schedule waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// Rows whose end changed with the retention rules.
    #[serde(default)]
    pub reaged: u64,
    /// Why attempts moved before their time, if some did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pressure: Option<String>,
    /// In a rehearsal: attempts that would expire, and objects that would be deleted, at most 200 of each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ends: Vec<End>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deletions: Vec<String>,
    /// What moved, or would, at most 200; and how many attempts more that were.
    pub moves: Vec<Move>,
    #[serde(default)]
    pub moves_not_listed: u64,
    /// Objects that were rewritten, or would be, at most 200.
    #[serde(default)]
    pub rewrites: Vec<Rewrite>,
    /// Groups that a run by schedule left: due, but not yet large or old enough for an object of their own.
    pub waiting: Vec<Waiting>,
    pub failures: Vec<Failure>,
    /// When something more will be due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_due_at: Option<String>,
}

/// One attempt on its way to the cold tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    pub app: String,
    pub instance: String,
    pub attempt: u32,
    pub rule: String,
    pub lines: u64,
    pub bytes: u64,
    pub why: String,
}

/// One attempt that would expire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub app: String,
    pub instance: String,
    pub attempt: u32,
    pub rule: String,
    pub lines: u64,
    pub finished_at: Option<String>,
    pub why: String,
}

/// One object that gave way to a smaller one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    pub object: String,
    pub bytes: u64,
    /// Lines that were published in it, those of them that are gone, and those that were deleted by name.
    pub lines: u64,
    pub dead_lines: u64,
    pub deleted_lines: u64,
    pub why: String,
}

/// Due attempts of one app, rule and day that wait for company.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub app: String,
    pub rule: String,
    pub finish_day: String,
    pub attempts: u64,
    pub bytes: u64,
    pub until: String,
    pub why: String,
}

/// Something that went wrong; the rest of the run went on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub error: String,
}
