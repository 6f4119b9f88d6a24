//! The statements of retention rules: which were agreed on, and their ages reaching every attempt.

use super::sql::{ATTEMPT_COLUMNS, UNCHANGED};
use crate::db::{Engine, Shard};

pub(super) fn rule_sets() -> &'static str {
    "/* catalog::rule_sets */ SELECT digest, rules, published_at, replaced_at FROM rule_set \
     ORDER BY published_at DESC LIMIT ?"
}

pub(super) fn replace_rule_set() -> &'static str {
    "/* catalog::publish_rules */ UPDATE rule_set SET replaced_at = ? WHERE replaced_at IS NULL"
}

pub(super) fn upsert_rule_set(engine: Engine) -> String {
    format!(
        "/* catalog::publish_rules */ INSERT INTO rule_set (digest, rules, published_at, replaced_at) \
         VALUES (?, ?, ?, ?) {} published_at = {}, replaced_at = {}",
        engine.on_duplicate("digest"),
        engine.offered("published_at"),
        engine.offered("replaced_at")
    )
}

pub(super) fn forget_rule_sets() -> &'static str {
    "/* catalog::publish_rules */ DELETE FROM rule_set WHERE published_at < ?"
}

pub(super) fn attempts_after(shard: Shard) -> String {
    format!(
        "/* catalog::attempts_after */ SELECT {ATTEMPT_COLUMNS} FROM attempt_{shard} a \
         WHERE a.id > ? ORDER BY a.id LIMIT ?"
    )
}

pub(super) fn set_age(shard: Shard) -> String {
    format!(
        "/* catalog::set_ages */ UPDATE attempt_{shard} SET expires_at = ?, due_at = ? \
         WHERE {UNCHANGED} AND state NOT IN (3, 4)"
    )
}

/// What the chunks of a server take: MySQL's estimates, SQLite's whole file less its free pages.
pub(super) fn hot_bytes(engine: Engine) -> &'static str {
    match engine {
        Engine::MySql => {
            "/* catalog::hot_bytes */ SELECT CAST(COALESCE(SUM(data_length), 0) AS SIGNED) FROM \
             information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'chunk\\_%'"
        }
        Engine::Sqlite => {
            "/* catalog::hot_bytes */ SELECT (page_count - freelist_count) * page_size \
             FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
        }
    }
}

/// No row where the server does not know it.
pub(super) fn lock_waits(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::MySql => Some("/* catalog::lock_waits */ SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"),
        Engine::Sqlite => None,
    }
}
