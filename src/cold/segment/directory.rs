//! The end of the index: what the object as a whole is, where its blocks stand, and the footer that
//! everything is found from.

use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::{App, Millis, RuleName};

use super::codec::{Cursor, Decoded, Malformed, level_byte, put_bytes, put_i64, put_ts, put_u64, split_level_byte};
use super::entry::MAX_BLOCK_ENTRIES;
use super::extent::Extent;
use super::frames::FRAMES_PER_BLOCK;
use super::{FORMAT_VERSION, MAX_FRAMES, MAX_REPLACES};

const FOOTER_MAGIC: [u8; 8] = *b"LTINDEX1";
pub(super) const FOOTER_BYTES: usize = 48;
/// 4,096 replaced names, 64 attempt blocks and 256 frame blocks take less than 100 kB.
pub(super) const MAX_DIRECTORY_BYTES: usize = 1 << 20;

/// What is the same for all attempts of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The id that the bucket and the database share.
    pub cluster: String,
    pub app: App,
    pub rule: RuleName,
    /// Days since 1970-01-01 UTC.
    pub finish_day: i64,
    pub created_at: Millis,
    /// The objects whose attempts this one took over, at most [`MAX_REPLACES`].
    pub replaces: Vec<Ulid>,
}

/// Sums over a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub attempts: u64,
    pub frames: u64,
    /// Bytes of NDJSON.
    pub raw_bytes: u64,
    /// Bytes of the data frames, which begin at offset 0.
    pub data_bytes: u64,
    pub extent: Extent,
}

/// A block of attempts: where it ends is where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptBlock {
    pub compressed_len: u32,
    pub entries: u32,
    /// Bounds over its attempts, for a search that skips blocks.
    pub extent: Extent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub header: SegmentHeader,
    /// Program and version that wrote the object: what to look for when a version turns out to be wrong.
    pub created_by: String,
    pub totals: Totals,
    pub attempt_blocks: Vec<AttemptBlock>,
    /// Compressed length of each block of frames; all but the last hold `FRAMES_PER_BLOCK`.
    pub frame_blocks: Vec<u32>,
}

impl Directory {
    pub fn encode(&self) -> Vec<u8> {
        let (mut out, header, totals) = (Vec::new(), &self.header, &self.totals);
        put_bytes(&mut out, header.cluster.as_bytes());
        put_bytes(&mut out, header.app.as_bytes());
        put_bytes(&mut out, header.rule.as_bytes());
        put_bytes(&mut out, self.created_by.as_bytes());
        put_i64(&mut out, header.finish_day);
        put_i64(&mut out, header.created_at.get());
        put_u64(&mut out, header.replaces.len() as u64);
        for ulid in &header.replaces {
            out.extend_from_slice(&ulid.to_bytes());
        }
        for total in [totals.attempts, totals.frames, totals.raw_bytes, totals.data_bytes] {
            put_u64(&mut out, total);
        }
        put_extent(&mut out, totals.extent);
        put_u64(&mut out, self.attempt_blocks.len() as u64);
        for block in &self.attempt_blocks {
            put_u64(&mut out, block.compressed_len.into());
            put_u64(&mut out, block.entries.into());
            put_extent(&mut out, block.extent);
        }
        put_u64(&mut out, self.frame_blocks.len() as u64);
        for len in &self.frame_blocks {
            put_u64(&mut out, (*len).into());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut cursor = Cursor::new(bytes);
        let cluster = cursor.text()?.to_owned();
        let app = cursor.text()?.parse().map_err(|_| Malformed("the app's name is invalid"))?;
        let rule = cursor.text()?.parse().map_err(|_| Malformed("the rule's name is invalid"))?;
        let created_by = cursor.text()?.to_owned();
        let finish_day = cursor.i64()?;
        let created_at = Millis::new(cursor.i64()?);
        let replaces = (0..cursor.count(16)?).map(|_| cursor.array().map(Ulid::from_bytes)).collect::<Decoded<_>>()?;
        let header = SegmentHeader { cluster, app, rule, finish_day, created_at, replaces };
        let (attempts, frames, raw_bytes, data_bytes) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let totals = Totals { attempts, frames, raw_bytes, data_bytes, extent: extent(&mut cursor)? };
        let attempt_blocks = (0..cursor.count(4)?).map(|_| attempt_block(&mut cursor)).collect::<Decoded<_>>()?;
        let frame_blocks = (0..cursor.count(1)?).map(|_| cursor.u32()).collect::<Decoded<_>>()?;
        cursor.end()?;
        let directory = Self { header, created_by, totals, attempt_blocks, frame_blocks };
        directory.check().map(|()| directory)
    }

    /// What the parts say of each other must agree.
    fn check(&self) -> Decoded<()> {
        let entries: u64 = self.attempt_blocks.iter().map(|block| u64::from(block.entries)).sum();
        if entries != self.totals.attempts || self.attempt_blocks.iter().any(|block| block.entries == 0) {
            return Err(Malformed("the attempt blocks do not add up"));
        }
        if self.totals.frames > MAX_FRAMES as u64 {
            return Err(Malformed("too many frames"));
        }
        if self.frame_blocks.len() as u64 != self.totals.frames.div_ceil(FRAMES_PER_BLOCK as u64) {
            return Err(Malformed("the frame blocks do not add up"));
        }
        if self.header.replaces.len() > MAX_REPLACES {
            return Err(Malformed("too many replaced objects"));
        }
        Ok(())
    }

    /// How many frames each block of frames holds.
    pub fn frames_in_block(&self, block: usize) -> usize {
        (self.totals.frames as usize).saturating_sub(block * FRAMES_PER_BLOCK).min(FRAMES_PER_BLOCK)
    }
}

fn attempt_block(cursor: &mut Cursor<'_>) -> Decoded<AttemptBlock> {
    let (compressed_len, entries) = (cursor.u32()?, cursor.u32()?);
    if entries as usize > MAX_BLOCK_ENTRIES {
        return Err(Malformed("an attempt block holds too many attempts"));
    }
    Ok(AttemptBlock { compressed_len, entries, extent: extent(cursor)? })
}

fn put_extent(out: &mut Vec<u8>, extent: Extent) {
    put_u64(out, extent.lines);
    out.push(level_byte(extent.levels, extent.ts));
    if let Some(ts) = extent.ts {
        put_ts(out, 0, ts);
    }
}

fn extent(cursor: &mut Cursor<'_>) -> Decoded<Extent> {
    let lines = cursor.u64()?;
    let (levels, has_ts) = split_level_byte(cursor.u8()?);
    let ts = if has_ts { Some(cursor.ts(0)?) } else { None };
    Ok(Extent { lines, ts, levels })
}

/// The last 48 bytes of the index frame: how long its three areas are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub attempt_blocks_len: u64,
    pub frame_blocks_len: u64,
    pub directory_len: u32,
    pub directory_hash: u64,
}

impl Footer {
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..8].copy_from_slice(&FOOTER_MAGIC);
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // 10..12 is reserved and 0.
        out[12..16].copy_from_slice(&self.directory_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.attempt_blocks_len.to_le_bytes());
        out[24..32].copy_from_slice(&self.frame_blocks_len.to_le_bytes());
        out[32..40].copy_from_slice(&self.directory_hash.to_le_bytes());
        let hash = xxh3_64(&out[..40]);
        out[40..].copy_from_slice(&hash.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; FOOTER_BYTES]) -> Decoded<Self> {
        let mut cursor = Cursor::new(bytes);
        if cursor.array()? != FOOTER_MAGIC {
            return Err(Malformed("it has no index of ours"));
        }
        let version = u16::from_le_bytes(cursor.array()?);
        let _reserved: [u8; 2] = cursor.array()?;
        let directory_len = u32::from_le_bytes(cursor.array()?);
        let attempt_blocks_len = u64::from_le_bytes(cursor.array()?);
        let frame_blocks_len = u64::from_le_bytes(cursor.array()?);
        let directory_hash = u64::from_le_bytes(cursor.array()?);
        if u64::from_le_bytes(cursor.array()?) != xxh3_64(&bytes[..40]) {
            return Err(Malformed("the index footer's checksum is wrong"));
        }
        if version != FORMAT_VERSION {
            return Err(Malformed("its format is of a later version"));
        }
        Ok(Self { attempt_blocks_len, frame_blocks_len, directory_len, directory_hash })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LevelSet;

    fn directory() -> Directory {
        let extent = Extent { lines: 5, ts: None, levels: LevelSet::UNKNOWN };
        Directory {
            header: SegmentHeader {
                cluster: "c".to_owned(),
                app: "a".parse().expect("app"),
                rule: "r".parse().expect("rule"),
                finish_day: -3,
                created_at: Millis::new(17),
                replaces: vec![Ulid::from_parts(1, 2)],
            },
            created_by: "test".to_owned(),
            totals: Totals { attempts: 3, frames: 4097, raw_bytes: 9, data_bytes: 8, extent },
            attempt_blocks: vec![AttemptBlock { compressed_len: 70, entries: 3, extent }],
            frame_blocks: vec![300, 5],
        }
    }

    #[test]
    fn directories_round_trip_and_must_add_up() {
        let good = directory();
        assert_eq!(Directory::decode(&good.encode()), Ok(good.clone()));
        assert_eq!((good.frames_in_block(0), good.frames_in_block(1), good.frames_in_block(2)), (4096, 1, 0));
        let mut bad = good.clone();
        bad.totals.attempts = 4;
        assert!(Directory::decode(&bad.encode()).is_err());
        bad = good;
        bad.frame_blocks.pop();
        assert!(Directory::decode(&bad.encode()).is_err());
    }

    proptest! {
        #[test]
        fn footers_round_trip(attempt_blocks_len: u64, frame_blocks_len: u64, directory_len: u32, directory_hash: u64) {
            let footer = Footer { attempt_blocks_len, frame_blocks_len, directory_len, directory_hash };
            prop_assert_eq!(Footer::decode(&footer.encode()), Ok(footer));
        }

        #[test]
        fn any_flipped_bit_in_a_footer_is_seen(bit in 0..FOOTER_BYTES * 8) {
            let mut bytes =
                Footer { attempt_blocks_len: 1, frame_blocks_len: 2, directory_len: 3, directory_hash: 4 }.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Footer::decode(&bytes).is_err());
        }

        #[test]
        fn damaged_directories_are_refused_or_read(at: prop::sample::Index, with: u8, cut: bool) {
            let mut bytes = directory().encode();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = with }
            let _ = Directory::decode(&bytes);
        }
    }
}
