//! The statements of audits: they walk tables that grow, a page at a time and each page by an index.

use super::sql::{ATTEMPT_COLUMNS, SEGMENT_COLUMNS, repeat};
use crate::db::{Engine, Shard};

/// The next folder of an app within the same day.
pub(super) fn next_rule() -> &'static str {
    "/* catalog::next_folder */ SELECT finish_day, rule_id FROM segment \
     WHERE app_id = ? AND finish_day = ? AND rule_id > ? ORDER BY rule_id LIMIT 1"
}

/// The first folder of an app's next day.
pub(super) fn next_day() -> &'static str {
    "/* catalog::next_folder */ SELECT finish_day, rule_id FROM segment \
     WHERE app_id = ? AND finish_day > ? ORDER BY finish_day, rule_id LIMIT 1"
}

pub(super) fn folder_segments(engine: Engine) -> String {
    format!(
        "/* catalog::folder_segments */ SELECT {SEGMENT_COLUMNS}, s.hash AS s_hash, s.entries AS s_entries, \
         s.dead_entries AS s_dead_entries FROM segment s {index} \
         WHERE s.app_id = ? AND s.finish_day = ? AND s.rule_id = ? AND s.id > ? ORDER BY s.id LIMIT ?",
        index = engine.with_index("segment_folder")
    )
}

pub(super) fn segment_by_id() -> String {
    format!(
        "/* catalog::audited_segment */ SELECT {SEGMENT_COLUMNS}, s.hash AS s_hash, s.entries AS s_entries, \
         s.dead_entries AS s_dead_entries FROM segment s WHERE s.id = ?"
    )
}

pub(super) fn part_spots(shard: Shard) -> String {
    format!(
        "/* catalog::part_spots */ SELECT attempt_id, first_line, line_count, byte_offset, byte_length, skip \
         FROM part_{shard} WHERE segment_id = ?"
    )
}

pub(super) fn attempts_in(shard: Shard) -> String {
    format!(
        "/* catalog::attempts_in */ SELECT {ATTEMPT_COLUMNS} FROM part_{shard} p \
         JOIN attempt_{shard} a ON a.id = p.attempt_id WHERE p.segment_id = ? LIMIT ?"
    )
}

/// From one line of one attempt on, then all of the others.
pub(super) fn part_spans(shard: Shard, others: usize) -> String {
    format!(
        "/* catalog::part_spans */ SELECT p.attempt_id AS p_attempt_id, p.first_line AS p_first_line, \
         p.line_count AS p_line_count, s.state AS s_state FROM part_{shard} p \
         LEFT JOIN segment s ON s.id = p.segment_id \
         WHERE (p.attempt_id = ? AND p.first_line >= ?) OR p.attempt_id IN ({}) \
         ORDER BY p.attempt_id, p.first_line LIMIT ?",
        repeat("?", ", ", others)
    )
}

/// How many live objects there are in a scope, counted up to a limit.
pub(super) fn audited_total(engine: Engine, by_app: bool) -> String {
    let (index, app) =
        if by_app { (engine.with_index("segment_folder"), "app_id = ? AND") } else { (String::new(), "") };
    format!(
        "/* catalog::audited_total */ SELECT COUNT(*) AS segments, CAST(COALESCE(SUM(byte_length), 0) AS SIGNED) \
         AS segment_bytes FROM (SELECT byte_length FROM segment {index} WHERE {app} finish_day >= ? AND state = 1 \
         LIMIT ?) live"
    )
}

// The scrub.

pub(super) fn segments_after() -> String {
    format!(
        "/* catalog::segments_after */ SELECT {SEGMENT_COLUMNS}, s.hash AS s_hash, s.entries AS s_entries, \
         s.dead_entries AS s_dead_entries FROM segment s WHERE s.id > ? AND s.state = 1 ORDER BY s.id LIMIT ?"
    )
}

pub(super) fn put_finding(engine: Engine) -> String {
    let new = |column| engine.offered(column);
    format!(
        "/* catalog::put_finding */ INSERT INTO finding (segment_id, kind, name, what, hit, found_at) \
         VALUES (?, ?, ?, ?, ?, ?) {} kind = {}, what = {}, hit = {}, found_at = {}",
        engine.on_duplicate("segment_id"),
        new("kind"),
        new("what"),
        new("hit"),
        new("found_at"),
    )
}

pub(super) fn forget_finding() -> &'static str {
    "/* catalog::forget_finding */ DELETE FROM finding WHERE segment_id = ?"
}

pub(super) fn forget_findings() -> &'static str {
    "/* catalog::forget_findings */ DELETE FROM finding WHERE found_at < ?"
}

pub(super) fn findings() -> &'static str {
    "/* catalog::findings */ SELECT segment_id, kind, name, what, hit, found_at FROM finding \
     ORDER BY segment_id DESC LIMIT ?"
}
