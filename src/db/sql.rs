//! The statements of this folder.

use super::Db;

pub(super) fn database_clock(db: &Db) -> String {
    format!("/* db::ping */ SELECT {}", db.now_sql())
}

pub(super) fn take_migration_lock() -> &'static str {
    "/* db::migrate */ SELECT CAST(COALESCE(GET_LOCK('logtier_migrate', 60), 0) AS SIGNED)"
}

pub(super) fn release_migration_lock() -> &'static str {
    "/* db::migrate */ SELECT CAST(COALESCE(RELEASE_LOCK('logtier_migrate'), 0) AS SIGNED)"
}

/// Reads one fact that the database keeps of itself.
pub(super) fn meta() -> &'static str {
    "/* db::meta */ SELECT v FROM meta WHERE k = ?"
}

pub(super) fn insert_meta() -> &'static str {
    "/* db::set_meta_once */ INSERT INTO meta (k, v) VALUES (?, ?)"
}

pub(super) fn upsert_meta(db: &Db) -> String {
    format!(
        "/* db::set_meta */ INSERT INTO meta (k, v) VALUES (?, ?) {} v = {}",
        db.engine().on_duplicate("k"),
        db.engine().offered("v")
    )
}
