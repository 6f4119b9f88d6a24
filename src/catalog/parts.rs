//! Where some consecutive lines of an attempt stand inside a segment.

use sqlx::any::AnyRow;

use super::{Segment, column, count};
use crate::db::{Error, Result};
use crate::model::{LevelSet, LineRange, Timestamp};

/// One row of the part table, with its segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub segment: Segment,
    pub lines: LineRange,
    /// Of the compressed frames that hold the lines.
    pub byte_offset: u64,
    pub byte_length: u64,
    /// Decompressed bytes before the first line in the first frame.
    pub skip: u32,
    pub ts_range: Option<(Timestamp, Timestamp)>,
    pub levels: LevelSet,
    /// The map of the frames as the segment format encodes it; empty where there are too many.
    pub frames: Vec<u8>,
}

impl Part {
    /// Reads the columns `p_…` and `s_…`; `None` where the outer join found no part.
    pub(super) fn from_row(row: &AnyRow) -> Result<Option<Self>> {
        let Some(first_line) = column::<Option<i64>>(row, "p_first_line")? else {
            return Ok(None);
        };
        let first_line = u64::try_from(first_line).map_err(|_| Error::Row(format!("part first_line {first_line}")))?;
        let ts = |name: &str| Ok::<_, Error>(column::<Option<i64>>(row, name)?.map(Timestamp::from_nanos));
        Ok(Some(Self {
            segment: Segment::from_row(row)?,
            lines: LineRange::new(first_line, first_line + count(row, "p_line_count")?),
            byte_offset: count(row, "p_byte_offset")?,
            byte_length: count(row, "p_byte_length")?,
            skip: column::<i32>(row, "p_skip")?.unsigned_abs(),
            ts_range: ts("p_first_ts")?.zip(ts("p_last_ts")?),
            levels: LevelSet::stored(i64::from(column::<i32>(row, "p_levels")?)),
            frames: column(row, "p_frames")?,
        }))
    }
}
