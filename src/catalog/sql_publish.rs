//! The statements of a publication.

use super::sql::repeat;
use crate::db::{Engine, Shard};

pub(super) fn make_live() -> &'static str {
    "/* catalog::make_live */ UPDATE segment SET state = 1, byte_length = ?, hash = ?, index_offset = ?, \
     frames_offset = ?, filter_offset = ?, written_entries = ?, written_lines = ?, due_at = ? WHERE id = ? AND state = 0"
}

/// What a publication goes by, of attempts that are not gone.
pub(super) fn lock_watermarks(shard: Shard, attempts: usize, engine: Engine) -> String {
    format!(
        "/* catalog::publish */ SELECT id, archived_line, next_line, meta_version FROM attempt_{shard} \
         WHERE id IN ({}) AND state NOT IN (3, 4) {}",
        repeat("?", ", ", attempts),
        engine.for_update()
    )
}

pub(super) fn raise_watermarks(shard: Shard, attempts: usize) -> String {
    let of_each = format!("CASE id {} END", repeat("WHEN ? THEN ?", " ", attempts));
    format!(
        "/* catalog::publish */ UPDATE attempt_{shard} SET published_at = ?, \
         archived_bytes = archived_bytes + {of_each}, archived_meta = {of_each}, expires_at = {of_each}, \
         rule_id = {of_each}, failures = 0, due_at = {of_each}, archived_line = {of_each} WHERE id IN ({})",
        repeat("?", ", ", attempts)
    )
}

pub(super) fn insert_parts(shard: Shard, rows: usize) -> String {
    format!(
        "/* catalog::publish */ INSERT INTO part_{shard} (attempt_id, first_line, line_count, segment_id, \
         byte_offset, byte_length, skip, first_ts, last_ts, levels, frames) VALUES {}",
        repeat("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ", ", rows)
    )
}

pub(super) fn empty_parts(shard: Shard, attempts: usize) -> String {
    format!(
        "/* catalog::publish */ SELECT segment_id FROM part_{shard} WHERE attempt_id IN ({}) AND line_count = 0",
        repeat("?", ", ", attempts)
    )
}

pub(super) fn delete_empty_parts(shard: Shard, attempts: usize) -> String {
    format!(
        "/* catalog::publish */ DELETE FROM part_{shard} WHERE attempt_id IN ({}) AND line_count = 0",
        repeat("?", ", ", attempts)
    )
}

pub(super) fn count_entries() -> &'static str {
    "/* catalog::publish */ UPDATE segment SET entries = entries + ?, line_count = line_count + ? \
     WHERE id = ? AND state = 1"
}
