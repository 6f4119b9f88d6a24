//! The statements of a search over everything.

use crate::db::Shard;

use super::sql::SEGMENT_COLUMNS;

/// Live objects, those of the latest day of finish first; of a day the newest.
pub(super) fn live_segments(by_app: bool) -> String {
    let app = if by_app { "s.app_id = ? AND" } else { "" };
    format!(
        "/* catalog::live_segments */ SELECT {SEGMENT_COLUMNS} FROM segment s WHERE {app} s.state = 1 \
         AND (s.finish_day < ? OR (s.finish_day = ? AND s.id < ?)) ORDER BY s.finish_day DESC, s.id DESC LIMIT ?"
    )
}

pub(super) fn segment_state() -> &'static str {
    "/* catalog::is_live */ SELECT state FROM segment WHERE id = ?"
}

/// Attempts that have chunks, newest first. Walks the key of the chunks backwards.
pub(super) fn hot_attempts(shard: Shard) -> String {
    format!(
        "/* catalog::list_hot */ SELECT DISTINCT attempt_id FROM chunk_{shard} WHERE attempt_id < ? \
         ORDER BY attempt_id DESC LIMIT ?"
    )
}
