//! Where an attempt's lines stand in an object: what the catalog keeps of a part.

use crate::model::{LevelSet, LineRange};

use super::codec::{Cursor, Decoded, Malformed, level_byte, put_i64, put_u64, split_level_byte};
use super::extent::{Extent, TsRange};
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
    /// `None` for more than [`FrameMap::MAX_FRAMES`] frames: then only the segment's index has it.
    pub frames: Option<FrameMap>,
}

impl Place {
    pub fn lines(&self) -> LineRange {
        LineRange::new(self.first_line, self.first_line.saturating_add(self.line_count))
    }
}

/// How the lines of an attempt fall into its frames: what a reader needs to fetch only some of them.
///
/// A catalog row holds it for attempts of up to some 200 frames; beyond that the segment's index has it.
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
    /// The same of its timestamps, where it is one of many frames and they fit.
    pub ts: Option<TsRange>,
}

impl FrameMap {
    /// 256 frames of 2 MiB are 512 MiB of one attempt's NDJSON; a frame takes some 10 bytes.
    pub const MAX_FRAMES: usize = 256;
    /// The width of the catalog's column.
    pub const MAX_BYTES: usize = 2048;

    pub fn frames(&self) -> &[MappedFrame] {
        &self.frames
    }

    /// At most [`FrameMap::MAX_BYTES`]: where they do not fit without the timestamps, and then not
    /// at all (no bytes), the segment's index has them.
    pub fn encode(&self) -> Vec<u8> {
        let fits = |bytes: &Vec<u8>| bytes.len() <= Self::MAX_BYTES;
        Some(self.encode_with(true))
            .filter(fits)
            .or_else(|| Some(self.encode_with(false)).filter(fits))
            .unwrap_or_default()
    }

    fn encode_with(&self, ts: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 * self.frames.len());
        let (mut lines_before, mut millis_before) = (0i64, 0i64);
        for frame in &self.frames {
            let ts = frame.ts.filter(|_| ts);
            put_u64(&mut out, frame.compressed_len.into());
            put_i64(&mut out, (frame.lines as i64).wrapping_sub(lines_before));
            out.push(level_byte(frame.levels, ts));
            lines_before = frame.lines as i64;
            if let Some((first, last)) = ts.map(TsRange::to_millis) {
                put_i64(&mut out, first.wrapping_sub(millis_before));
                put_u64(&mut out, last.wrapping_sub(first) as u64);
                millis_before = first;
            }
        }
        out
    }

    /// Reads what [`FrameMap::encode`] wrote, with bounds in whole milliseconds; `None` where the
    /// bytes are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::try_decode(bytes).ok()
    }

    fn try_decode(bytes: &[u8]) -> Decoded<Self> {
        let (mut cursor, mut frames, mut lines_before) = (Cursor::new(bytes), Vec::new(), 0i64);
        let mut millis_before = 0i64;
        while !cursor.is_empty() {
            let compressed_len = cursor.u32()?;
            lines_before = lines_before.wrapping_add(cursor.i64()?);
            let lines = u64::try_from(lines_before).map_err(|_| Malformed("a frame has less than no lines"))?;
            let (levels, has_ts) = split_level_byte(cursor.u8()?);
            let mut ts = None;
            if has_ts {
                millis_before = millis_before.wrapping_add(cursor.i64()?);
                let last = millis_before.wrapping_add(cursor.u64()? as i64);
                if last < millis_before {
                    return Err(Malformed("a range of timestamps ends before it starts"));
                }
                ts = Some(TsRange::from_millis(millis_before, last));
            }
            frames.push(MappedFrame { compressed_len, lines, levels, ts });
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

    /// Where a frame begins; for one that does not exist, where the data ends.
    pub fn offset(&self, frame: usize) -> u64 {
        self.offsets.get(frame).copied().unwrap_or(self.data_bytes())
    }

    pub fn frame_at(&self, offset: u64) -> Option<usize> {
        self.offsets[..self.frames.len()].binary_search(&offset).ok()
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
            let Extent { levels, ts, .. } = frame.extent;
            // A part's own row says it of a single frame, and more exactly.
            let ts = ts.filter(|_| count > 1);
            frames.push(MappedFrame { compressed_len: frame.compressed_len, lines: mine, levels, ts });
        }
        Ok(FrameMap { frames })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timestamp;

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
        fn a_map_fits_its_column_and_is_never_too_narrow(
            frames in prop::collection::vec((any::<u32>(), 0u64..1 << 40, 0i64..128, any::<Option<(i64, i64)>>()), 0..256),
        ) {
            let frame = |(compressed_len, lines, levels, ts): (u32, u64, i64, Option<(i64, i64)>)| {
                let ts = ts.map(|(a, b)| TsRange::new(Timestamp::from_nanos(a), Timestamp::from_nanos(b)));
                MappedFrame { compressed_len, lines, levels: LevelSet::stored(levels), ts }
            };
            let map = FrameMap { frames: frames.into_iter().map(frame).collect() };
            let bytes = map.encode();
            prop_assert!(bytes.len() <= FrameMap::MAX_BYTES);
            let decoded = FrameMap::decode(&bytes).expect("own bytes");
            if bytes.is_empty() {
                prop_assert!(map.frames.is_empty() || map.encode_with(false).len() > FrameMap::MAX_BYTES);
                return Ok(());
            }
            prop_assert_eq!(decoded.frames.len(), map.frames.len());
            for (one, other) in decoded.frames.iter().zip(&map.frames) {
                prop_assert_eq!((one.compressed_len, one.lines, one.levels), (other.compressed_len, other.lines, other.levels));
                if let Some((wide, narrow)) = one.ts.zip(other.ts) {
                    prop_assert!(wide.min() <= narrow.min() && wide.max() >= narrow.max());
                }
            }
        }

        #[test]
        fn any_bytes_are_a_map_or_refused(bytes: Vec<u8>) {
            let _ = FrameMap::decode(&bytes);
        }
    }

    #[test]
    fn a_usual_attempt_of_300_mb_needs_no_index() {
        let frame = |n: i64| {
            let ts = |millis: i64| Timestamp::from_nanos(1_800_000_000_000_000_000 + millis * 1_000_000);
            let ts = Some(TsRange::new(ts(n * 61_234), ts((n + 1) * 61_234)));
            MappedFrame {
                compressed_len: 150_000 + n as u32,
                lines: 13_000 + n as u64 % 500,
                levels: LevelSet::EMPTY,
                ts,
            }
        };
        let map = FrameMap { frames: (0..150).map(frame).collect() };
        assert_eq!(FrameMap::decode(&map.encode()), Some(map));
    }
}
