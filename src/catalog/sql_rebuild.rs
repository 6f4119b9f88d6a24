//! The statements that bring back from the bucket what the catalog lost.

use super::sql::repeat;
use crate::db::Shard;

/// The parts of some attempts with the objects that they stand in.
pub(super) fn known_parts(shard: Shard, ids: usize) -> String {
    format!(
        "/* catalog::bring_back */ SELECT p.attempt_id, p.first_line, p.line_count, p.segment_id, s.ulid AS s_ulid \
         FROM part_{shard} p LEFT JOIN segment s ON s.id = p.segment_id WHERE p.attempt_id IN ({})",
        repeat("?", ", ", ids)
    )
}

pub(super) fn insert_attempts(shard: Shard, rows: usize) -> String {
    format!(
        "/* catalog::bring_back */ INSERT INTO attempt_{shard} (id, app_id, instance, attempt, job_id, labels, state, \
         outcome, held, meta_version, archived_meta, next_line, archived_line, purged_line, trimmed_line, raw_bytes, \
         archived_bytes, first_ts, last_ts, levels, created_at, written_at, finished_at, published_at, expires_at, \
         rule_id, failures, due_at) VALUES {}",
        repeat("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)", ", ", rows)
    )
}

pub(super) fn update_attempt(shard: Shard) -> String {
    format!(
        "/* catalog::bring_back */ UPDATE attempt_{shard} SET job_id = ?, labels = ?, state = ?, outcome = ?, \
         meta_version = ?, archived_meta = ?, next_line = ?, archived_line = ?, purged_line = ?, trimmed_line = ?, \
         raw_bytes = ?, archived_bytes = ?, first_ts = ?, last_ts = ?, levels = ?, written_at = ?, finished_at = ?, \
         published_at = ?, expires_at = ?, rule_id = ?, due_at = ? WHERE id = ?"
    )
}

pub(super) fn delete_part(shard: Shard) -> String {
    format!(
        "/* catalog::bring_back */ DELETE FROM part_{shard} WHERE attempt_id = ? AND first_line = ? AND segment_id = ?"
    )
}

pub(super) fn segment_state() -> &'static str {
    "/* catalog::bring_back */ SELECT state FROM segment WHERE id = ?"
}

pub(super) fn insert_segment() -> &'static str {
    "/* catalog::bring_back */ INSERT INTO segment (id, ulid, app_id, rule_id, finish_day, state, task, fence, \
     byte_length, index_offset, frames_offset, entries, dead_entries, line_count, dead_lines, created_at, \
     written_entries, written_lines, due_at) VALUES (?, ?, ?, ?, ?, 1, 'rebuild', 0, ?, ?, ?, 0, 0, 0, 0, ?, ?, ?, ?)"
}

pub(super) fn first_part_line(shard: Shard) -> String {
    format!(
        "/* catalog::trim_to_parts */ SELECT MIN(first_line) FROM part_{shard} WHERE attempt_id = ? AND line_count > 0"
    )
}

pub(super) fn trim_to_parts(shard: Shard) -> String {
    format!(
        "/* catalog::trim_to_parts */ UPDATE attempt_{shard} SET trimmed_line = ? WHERE id = ? AND trimmed_line < ?"
    )
}
