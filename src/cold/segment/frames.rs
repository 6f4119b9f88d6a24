//! What the index knows of each data frame.

use super::MAX_FRAME_BYTES;
use super::codec::{Cursor, Decoded, Malformed, level_byte, put_ts, put_u64, split_level_byte};
use super::extent::Extent;

/// Frames per block of the index; about 40 kB before compression.
pub(super) const FRAMES_PER_BLOCK: usize = 4096;
/// 4,096 frames of the longest encoding, 45 bytes, fit.
pub(super) const MAX_FRAME_BLOCK_BYTES: usize = 256 << 10;

/// One data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Bytes in the object.
    pub compressed_len: u32,
    /// Bytes of NDJSON.
    pub raw_len: u32,
    /// Bounds over the chunks whose lines it holds.
    pub extent: Extent,
}

/// Encodes up to [`FRAMES_PER_BLOCK`] frames column by column.
pub(super) fn encode(frames: &[FrameInfo]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        put_u64(&mut out, frame.compressed_len.into());
    }
    for frame in frames {
        put_u64(&mut out, frame.raw_len.into());
    }
    for frame in frames {
        put_u64(&mut out, frame.extent.lines);
    }
    out.extend(frames.iter().map(|frame| level_byte(frame.extent.levels, frame.extent.ts)));
    let mut base = 0i64;
    for ts in frames.iter().filter_map(|frame| frame.extent.ts) {
        put_ts(&mut out, base, ts);
        base = ts.min().nanos();
    }
    out
}

pub(super) fn decode(bytes: &[u8], count: usize) -> Decoded<Vec<FrameInfo>> {
    // Each frame takes at least four bytes, so this bounds what is allocated below.
    if count > bytes.len() {
        return Err(Malformed("a frame block is too short for its count"));
    }
    let mut cursor = Cursor::new(bytes);
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        frames.push(FrameInfo { compressed_len: cursor.u32()?, raw_len: 0, extent: Extent::default() });
    }
    for frame in &mut frames {
        frame.raw_len = cursor.u32()?;
    }
    for frame in &mut frames {
        frame.extent.lines = cursor.u64()?;
    }
    let levels = cursor.take(count)?;
    let mut base = 0i64;
    for (frame, &byte) in frames.iter_mut().zip(levels) {
        let (levels, has_ts) = split_level_byte(byte);
        frame.extent.levels = levels;
        if has_ts {
            let ts = cursor.ts(base)?;
            base = ts.min().nanos();
            frame.extent.ts = Some(ts);
        }
        if frame.raw_len as usize > MAX_FRAME_BYTES {
            return Err(Malformed("a frame is larger than it may be"));
        }
        if frame.extent.lines == 0 || frame.extent.lines > frame.raw_len.into() {
            return Err(Malformed("a frame has an impossible number of lines"));
        }
    }
    cursor.end()?;
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::extent::TsRange;
    use super::*;
    use crate::model::{LevelSet, Timestamp};

    prop_compose! {
        fn frame()(
            compressed_len: u32, raw_len in 2..MAX_FRAME_BYTES as u32, lines in 1u64.., ts: Option<(i64, i64)>, levels in 0i64..128,
        ) -> FrameInfo {
            let ts = ts.map(|(a, b)| TsRange::new(Timestamp::from_nanos(a), Timestamp::from_nanos(b)));
            let extent = Extent { lines: lines % u64::from(raw_len - 1) + 1, ts, levels: LevelSet::stored(levels) };
            FrameInfo { compressed_len, raw_len, extent }
        }
    }

    proptest! {
        #[test]
        fn frames_round_trip(frames in prop::collection::vec(frame(), 0..50)) {
            prop_assert_eq!(decode(&encode(&frames), frames.len()), Ok(frames));
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes: Vec<u8>, count in 0usize..40) {
            let _ = decode(&bytes, count);
        }
    }
}
