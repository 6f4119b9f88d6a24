//! The statements of what was set aside.

use crate::db::{Engine, Shard};

pub(super) fn set_attempt_aside(shard: Shard) -> String {
    format!("/* catalog::set_aside */ UPDATE attempt_{shard} SET failures = ?, due_at = ? WHERE id = ?")
}

pub(super) fn upsert(engine: Engine) -> String {
    let new = |column| engine.offered(column);
    format!(
        "/* catalog::set_aside */ INSERT INTO set_aside (kind, id, shard, what, reason, failures, first_at, last_at, \
         next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) {} reason = {}, failures = {}, last_at = {}, next_at = {}",
        engine.on_duplicate("kind, id"),
        new("reason"),
        new("failures"),
        new("last_at"),
        new("next_at"),
    )
}

pub(super) fn delete() -> &'static str {
    "/* catalog::no_longer_aside */ DELETE FROM set_aside WHERE kind = ? AND id = ?"
}

pub(super) fn list() -> &'static str {
    "/* catalog::list_aside */ SELECT kind, id, shard, what, reason, failures, first_at, last_at, next_at \
     FROM set_aside WHERE kind > ? OR (kind = ? AND id > ?) ORDER BY kind, id LIMIT ?"
}

pub(super) fn count() -> &'static str {
    "/* catalog::count_aside */ SELECT COUNT(*) FROM (SELECT kind FROM set_aside LIMIT ?) counted"
}

pub(super) fn retry_attempt(shard: Shard) -> String {
    format!("/* catalog::retry_aside */ UPDATE attempt_{shard} SET due_at = ? WHERE id = ? AND due_at > ?")
}

pub(super) fn retry_segment() -> &'static str {
    "/* catalog::retry_aside */ UPDATE segment SET due_at = ? WHERE id = ? AND due_at > ?"
}
