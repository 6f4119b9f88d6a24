//! Every statement that an import asks PowerJob's database. They read, in sessions that cannot do anything else.

use super::mysql::Table;

/// What a file is, but not its bytes, which lie on pages of their own. By the primary key.
pub(super) fn page(files: &Table) -> String {
    format!("/* import::page */ SELECT id, bucket, name, length FROM {files} WHERE id > ? ORDER BY id LIMIT ?")
}

/// The beginnings of files that are small enough to be placeholders. By the primary key.
pub(super) fn beginnings(files: &Table, ids: usize) -> String {
    format!("/* import::beginnings */ SELECT id, LEFT(data, ?) AS data FROM {files} WHERE id IN ({})", places(ids))
}

/// A part of a file. By the primary key.
pub(super) fn piece(files: &Table) -> String {
    format!("/* import::piece */ SELECT SUBSTRING(data, ?, ?) AS data FROM {files} WHERE id = ?")
}

/// What PowerJob knows of instances. By its index `idx03_instance_info (instance_id, status)`.
pub(super) fn instances(instances: &Table, ids: usize) -> String {
    format!(
        "/* import::instances */ SELECT instance_id, app_id, job_id, wf_instance_id, status, running_times, \
         finished_time FROM {instances} WHERE instance_id IN ({})",
        places(ids)
    )
}

/// Whether there is such a table in this database.
pub(super) const HAS_TABLE: &str = "/* import::has_table */ SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.tables \
     WHERE table_schema = DATABASE() AND table_name = ?";

pub(super) const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";

fn places(ids: usize) -> String {
    vec!["?"; ids].join(",")
}
