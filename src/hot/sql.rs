//! Every statement of the hot tier.

use crate::db::Shard;

pub(super) const INSERT_COLUMNS: usize = 10;

pub(super) fn insert_chunks(shard: Shard, rows: usize) -> String {
    format!(
        "/* hot::insert */ INSERT INTO chunk_{shard} (attempt_id, first_line, line_count, first_ts, last_ts, \
         levels, codec, raw_len, hash, data) VALUES {}",
        vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows].join(", ")
    )
}

/// From the chunk that holds the first line asked for.
pub(super) fn scan(shard: Shard) -> String {
    format!(
        "/* hot::scan */ SELECT first_line, line_count, first_ts, last_ts, levels, codec, raw_len, hash, data \
         FROM chunk_{shard} WHERE attempt_id = ? AND first_line >= \
             (SELECT COALESCE(MAX(first_line), 0) FROM chunk_{shard} WHERE attempt_id = ? AND first_line <= ?) \
         AND first_line < ? ORDER BY first_line LIMIT ?"
    )
}

/// All chunks of several attempts.
pub(super) fn scan_several(shard: Shard, attempts: usize) -> String {
    format!(
        "/* hot::scan_several */ SELECT attempt_id, first_line, line_count, first_ts, last_ts, levels, codec, raw_len, \
         hash, data FROM chunk_{shard} WHERE attempt_id IN ({}) ORDER BY attempt_id, first_line LIMIT ?",
        vec!["?"; attempts].join(", ")
    )
}

/// Of each attempt the chunks that begin at a line or behind it.
pub(super) fn scan_each_from(shard: Shard, attempts: usize) -> String {
    format!(
        "/* hot::scan_each_from */ SELECT attempt_id, first_line, line_count, first_ts, last_ts, levels, codec, raw_len, \
         hash, data FROM chunk_{shard} WHERE {} ORDER BY attempt_id, first_line LIMIT ?",
        vec!["(attempt_id = ? AND first_line >= ?)"; attempts].join(" OR ")
    )
}

/// From the chunk that holds the first line asked for, without payloads.
pub(super) fn outline(shard: Shard) -> String {
    format!(
        "/* hot::outline */ SELECT first_line, line_count, first_ts, last_ts, levels \
         FROM chunk_{shard} WHERE attempt_id = ? AND first_line >= \
             (SELECT COALESCE(MAX(first_line), 0) FROM chunk_{shard} WHERE attempt_id = ? AND first_line <= ?) \
         AND first_line < ? ORDER BY first_line LIMIT ?"
    )
}

pub(super) fn outline_backwards(shard: Shard) -> String {
    format!(
        "/* hot::outline_backwards */ SELECT first_line, line_count, first_ts, last_ts, levels \
         FROM chunk_{shard} WHERE attempt_id = ? AND first_line < ? ORDER BY first_line DESC LIMIT ?"
    )
}

pub(super) fn headers(shard: Shard) -> String {
    format!(
        "/* hot::headers */ SELECT first_line, line_count, raw_len, hash FROM chunk_{shard} \
         WHERE attempt_id = ? AND first_line >= ? AND first_line < ? ORDER BY first_line LIMIT ?"
    )
}

pub(super) fn headers_of_several(shard: Shard, attempts: usize) -> String {
    format!(
        "/* hot::headers_of_several */ SELECT attempt_id, first_line, line_count, raw_len, hash FROM chunk_{shard} \
         WHERE attempt_id IN ({}) ORDER BY attempt_id, first_line LIMIT ?",
        vec!["?"; attempts].join(", ")
    )
}

pub(super) fn first_lines(shard: Shard, attempts: usize) -> String {
    format!(
        "/* hot::first_lines */ SELECT attempt_id, first_line FROM chunk_{shard} WHERE attempt_id IN ({}) \
         ORDER BY attempt_id, first_line LIMIT ?",
        vec!["?"; attempts].join(", ")
    )
}

pub(super) fn delete_several_below(shard: Shard, attempts: usize) -> String {
    format!(
        "/* hot::delete_several_below */ DELETE FROM chunk_{shard} WHERE attempt_id IN ({}) \
         AND first_line < CASE attempt_id {} END",
        vec!["?"; attempts].join(", "),
        vec!["WHEN ? THEN ?"; attempts].join(" ")
    )
}

pub(super) fn delete_below(shard: Shard) -> String {
    format!("/* hot::delete_below */ DELETE FROM chunk_{shard} WHERE attempt_id = ? AND first_line < ?")
}

/// From one line of one attempt on, then all of the others.
pub(super) fn spans(shard: Shard, others: usize) -> String {
    format!(
        "/* hot::spans */ SELECT attempt_id, first_line, line_count FROM chunk_{shard} \
         WHERE (attempt_id = ? AND first_line >= ?) OR attempt_id IN ({}) ORDER BY attempt_id, first_line LIMIT ?",
        vec!["?"; others].join(", ")
    )
}
