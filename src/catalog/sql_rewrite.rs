//! The statements that move parts from an object to the one that replaces it.

use crate::db::Shard;

/// In key order from behind a part.
pub(super) fn parts_in(shard: Shard) -> String {
    format!(
        "/* catalog::parts_in */ SELECT attempt_id, first_line, line_count FROM part_{shard} \
         WHERE segment_id = ? AND (attempt_id > ? OR (attempt_id = ? AND first_line > ?)) \
         ORDER BY attempt_id, first_line LIMIT ?"
    )
}

/// An UPDATE, because it must lock the row until the transaction ends: whoever deletes or expires an
/// attempt locks it first as well, and so sees its parts in one object or in the other.
pub(super) fn lock_attempt(shard: Shard) -> String {
    format!(
        "/* catalog::publish_rewrite */ UPDATE attempt_{shard} SET failures = failures \
         WHERE id = ? AND state NOT IN (3, 4)"
    )
}

pub(super) fn move_part(shard: Shard) -> String {
    format!(
        "/* catalog::publish_rewrite */ UPDATE part_{shard} SET segment_id = ?, byte_offset = ?, byte_length = ?, \
         skip = ?, frames = ? WHERE attempt_id = ? AND first_line = ? AND line_count = ? AND segment_id = ?"
    )
}
