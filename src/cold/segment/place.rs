//! Where an attempt's lines stand in an object: what the catalog keeps of a part.

use crate::model::{LevelSet, LineRange};

use super::codec::{Cursor, Decoded, Malformed, level_byte, put_i64, put_u64, split_level_byte};
use super::frames::FrameInfo;
use super::packer::FrameSpot;

/// Some consecutive lines of one attempt in an object, and how to get at them with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub first_line: u64,
    pub line_count: u64,
    /// Where the first of its frames begins in the object.
    pub byte_offset: u64,
    /// Bytes of all its frames.
    pub byte_length: u64,
    /// Bytes of other attempts before the first line in the first frame, decompressed.
    pub skip: u32,
    /// `None` for more than [`FrameMap::MAX_FRAMES`] frames: then the segment's index has it.
    pub frames: Option<FrameMap>,
}

impl Place {
    pub fn lines(&self) -> LineRange {
        LineRange::new(self.first_line, self.first_line.saturating_add(self.line_count))
    }
}

/// How the lines of an attempt fall into its frames: what a reader needs to fetch only some of them.
///
/// A catalog row holds it for attempts of up to [`FrameMap::MAX_FRAMES`] frames; beyond that the
/// segment's index has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameMap {
    frames: Vec<MappedFrame>,
}

/// One frame as one attempt sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedFrame {
    pub compressed_len: u32,
    /// Lines of this attempt in it; the first and last frame may hold others' as well.
    pub lines: u64,
    /// Bounds of the whole frame, as bits of a level set.
    pub levels: LevelSet,
}

impl FrameMap {
    /// 64 frames of 2 MiB are 128 MiB of one attempt's NDJSON.
    pub const MAX_FRAMES: usize = 64;
    /// The width of the catalog's column. A frame takes at most 5 + 10 + 1 bytes, so 64 of them fit.
    pub const MAX_BYTES: usize = 1024;

    pub fn frames(&self) -> &[MappedFrame] {
        &self.frames
    }

    /// At most [`FrameMap::MAX_BYTES`] for a map of up to [`FrameMap::MAX_FRAMES`] frames.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * self.frames.len());
        let mut lines_before = 0i64;
        for frame in &self.frames {
            put_u64(&mut out, frame.compressed_len.into());
            put_i64(&mut out, (frame.lines as i64).wrapping_sub(lines_before));
            out.push(level_byte(frame.levels, None));
            lines_before = frame.lines as i64;
        }
        out
    }

    /// Reads what [`FrameMap::encode`] wrote; `None` where the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::try_decode(bytes).ok()
    }

    fn try_decode(bytes: &[u8]) -> Decoded<Self> {
        let (mut cursor, mut frames, mut lines_before) = (Cursor::new(bytes), Vec::new(), 0i64);
        while !cursor.is_empty() {
            let compressed_len = cursor.u32()?;
            lines_before = lines_before.wrapping_add(cursor.i64()?);
            let lines = u64::try_from(lines_before).map_err(|_| Malformed("a frame has less than no lines"))?;
            let (levels, _) = split_level_byte(cursor.u8()?);
            frames.push(MappedFrame { compressed_len, lines, levels });
        }
        Ok(Self { frames })
    }
}

/// All frames of a segment, and where each begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameTable {
    frames: Vec<FrameInfo>,
    /// One more than frames: the last is where the data ends.
    offsets: Vec<u64>,
}

impl FrameTable {
    pub fn new(frames: Vec<FrameInfo>) -> Self {
        let mut offsets = Vec::with_capacity(frames.len() + 1);
        let mut offset = 0u64;
        offsets.push(offset);
        for frame in &frames {
            offset += u64::from(frame.compressed_len);
            offsets.push(offset);
        }
        Self { frames, offsets }
    }

    pub fn frames(&self) -> &[FrameInfo] {
        &self.frames
    }

    pub fn data_bytes(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The place of `lines` that take `raw_bytes` from `spot` on.
    pub fn place(&self, lines: LineRange, spot: FrameSpot, raw_bytes: u64) -> Decoded<Place> {
        let (first_line, line_count) = (lines.start(), lines.len());
        if lines.is_empty() {
            let frames = Some(FrameMap::default());
            return Ok(Place { first_line, line_count, byte_offset: 0, byte_length: 0, skip: 0, frames });
        }
        let first = spot.frame as usize;
        let mut left = u64::from(spot.skip).saturating_add(raw_bytes);
        let mut count = 0;
        while left > 0 {
            let frame = self.frames.get(first + count).ok_or(Malformed("an attempt ends behind the last frame"))?;
            left = left.saturating_sub(frame.raw_len.into());
            count += 1;
        }
        let frames = match count {
            0 => return Err(Malformed("lines without bytes")),
            1..=FrameMap::MAX_FRAMES => Some(self.map(first, count, spot.skip, line_count)?),
            _ => None,
        };
        let byte_offset = self.offsets[first];
        let byte_length = self.offsets[first + count] - byte_offset;
        Ok(Place { first_line, line_count, byte_offset, byte_length, skip: spot.skip, frames })
    }

    /// The map of a place that came without one.
    pub fn map_of(&self, place: &Place) -> Decoded<FrameMap> {
        let frame_at = |offset: Option<u64>| offset.and_then(|offset| self.offsets.binary_search(&offset).ok());
        let first = frame_at(Some(place.byte_offset));
        let end = frame_at(place.byte_offset.checked_add(place.byte_length));
        match (first, end) {
            (Some(first), Some(end)) if first < end => self.map(first, end - first, place.skip, place.line_count),
            _ => Err(Malformed("the part's range is not made of whole frames")),
        }
    }

    /// How `lines` fall into `count` frames: all but the last hold nothing else, or there is only one.
    fn map(&self, first: usize, count: usize, skip: u32, lines: u64) -> Decoded<FrameMap> {
        let spanned = self.frames.get(first..first + count).ok_or(Malformed("frames that do not exist"))?;
        if count > 1 && skip > 0 {
            return Err(Malformed("an attempt of many frames does not begin with its first"));
        }
        let mut left = lines;
        let mut frames = Vec::with_capacity(count);
        for (i, frame) in spanned.iter().enumerate() {
            let mine = if i + 1 == count { left } else { frame.extent.lines };
            left = left.checked_sub(mine).ok_or(Malformed("an attempt has fewer lines than its frames"))?;
            if mine == 0 || mine > frame.extent.lines {
                return Err(Malformed("an attempt has more lines than its frames"));
            }
            frames.push(MappedFrame { compressed_len: frame.compressed_len, lines: mine, levels: frame.extent.levels });
        }
        Ok(FrameMap { frames })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::extent::Extent;
    use super::*;

    fn table(frames: &[(u32, u32, u64)]) -> FrameTable {
        let frame = |&(compressed_len, raw_len, lines)| {
            let extent = Extent { lines, ..Extent::default() };
            FrameInfo { compressed_len, raw_len, extent }
        };
        FrameTable::new(frames.iter().map(frame).collect())
    }

    fn lines_per_frame(map: &FrameMap) -> Vec<u64> {
        map.frames().iter().map(|frame| frame.lines).collect()
    }

    #[test]
    fn a_small_attempt_is_in_one_frame_and_a_large_one_in_many() {
        let table = table(&[(10, 100, 5), (20, 100, 4), (30, 100, 6)]);
        let place = table.place(LineRange::new(7, 9), FrameSpot { frame: 0, skip: 60 }, 40).expect("in frame 0");
        assert_eq!((place.byte_offset, place.byte_length, place.skip), (0, 10, 60));
        assert_eq!(lines_per_frame(&table.map_of(&place).expect("map")), [2]);
        let place = table.place(LineRange::new(0, 7), FrameSpot { frame: 1, skip: 0 }, 150).expect("in 1 and 2");
        assert_eq!((place.byte_offset, place.byte_length), (10, 50));
        assert_eq!(place.frames.as_ref().map(lines_per_frame), Some(vec![4, 3]));
        assert_eq!(Some(table.map_of(&place).expect("map")), place.frames);
    }

    #[test]
    fn places_that_cannot_be_are_refused() {
        let table = table(&[(10, 100, 5), (20, 100, 4)]);
        let at = |frame, skip| FrameSpot { frame, skip };
        for (lines, spot, raw_bytes) in [
            (5, at(0, 60), 140),
            (3, at(0, 0), 101),
            (10, at(0, 0), 200),
            (1, at(1, 0), 101),
            (1, at(9, 0), 1),
            (1, at(0, 0), 0),
        ] {
            assert!(table.place(LineRange::new(0, lines), spot, raw_bytes).is_err(), "{lines} {spot:?} {raw_bytes}");
        }
    }

    proptest! {
        #[test]
        fn the_largest_map_fits_its_column(frames in prop::collection::vec((any::<u32>(), any::<i64>(), 0i64..128), 64)) {
            let frame = |(compressed_len, lines, levels): (u32, i64, i64)| {
                MappedFrame { compressed_len, lines: lines.unsigned_abs() & i64::MAX as u64, levels: LevelSet::stored(levels) }
            };
            let map = FrameMap { frames: frames.into_iter().map(frame).collect() };
            let bytes = map.encode();
            prop_assert!(bytes.len() <= FrameMap::MAX_BYTES);
            prop_assert_eq!(FrameMap::decode(&bytes), Some(map));
        }

        #[test]
        fn any_bytes_are_a_map_or_refused(bytes: Vec<u8>) {
            let _ = FrameMap::decode(&bytes);
        }
    }
}
