//! Which lines share a frame. Pure and synchronous: lines go in, raw frames come out.
//!
//! Three rules, so that a small attempt costs one frame and a large one shares none but its last:
//!
//! 1. an attempt that fits into one frame never straddles two;
//! 2. one that does not starts on a frame of its own and fills as many as it needs;
//! 3. what its last frame has left is shared with the small ones that follow.
//!
//! A frame holds at most `frame_size` bytes, unless one line alone is larger. The packer never knows
//! how long an attempt will be, so a frame is held back until the attempt that began inside of it
//! has ended; when that one turns out not to fit, it moves to a new frame.

use super::extent::Extent;

/// A frame's lines before compression.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub bytes: Vec<u8>,
    pub extent: Extent,
}

/// Where an attempt's lines stand: fixed when the attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSpot {
    /// Ordinal of the frame with the first line.
    pub frame: u32,
    /// Bytes before the first line in that frame, decompressed.
    pub skip: u32,
}

/// Groups the lines of one attempt after the other into frames.
pub struct FramePacker {
    frame_size: usize,
    /// The frame being filled.
    buffer: Vec<u8>,
    ordinal: u32,
    /// Lines in the buffer that belong to attempts which have ended.
    ended: Extent,
    /// Lines in the buffer that belong to the current attempt.
    current: Extent,
    /// Where in the buffer the current attempt begins; 0 also when it began in a frame before.
    current_start: usize,
    spot: FrameSpot,
}

impl FramePacker {
    pub fn new(frame_size: usize) -> Self {
        Self {
            frame_size,
            buffer: Vec::new(),
            ordinal: 0,
            ended: Extent::default(),
            current: Extent::default(),
            current_start: 0,
            spot: FrameSpot { frame: 0, skip: 0 },
        }
    }

    /// The lines that follow belong to the next attempt.
    pub fn begin(&mut self) {
        self.ended.merge(std::mem::take(&mut self.current));
        self.current_start = self.buffer.len();
        self.spot = self.here();
    }

    /// The frame that must leave before a line of `len` bytes can come in. Call it until it gives none.
    pub fn make_room(&mut self, len: usize) -> Option<RawFrame> {
        if self.buffer.is_empty() || self.buffer.len() + len <= self.frame_size {
            return None;
        }
        let tail = self.buffer.split_off(self.cut());
        let frame = self.take_frame();
        self.buffer.reserve_exact(self.frame_size.max(len));
        self.buffer.extend_from_slice(&tail);
        if self.current_start > 0 {
            // Rule 1: the attempt goes on to a new frame as a whole, and the old one is left to others.
            self.current_start = 0;
            self.spot = FrameSpot { frame: self.ordinal, skip: 0 };
        }
        Some(frame)
    }

    /// Where the frame in the buffer ends when it has to leave now.
    fn cut(&self) -> usize {
        if self.current_start > 0 { self.current_start } else { self.buffer.len() }
    }

    /// Adds a line: `head`, then `tail`, which ends in a newline. `block` bounds what the line holds.
    pub fn push(&mut self, head: &[u8], tail: &[u8], block: Extent) {
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(tail);
        self.current.lines += 1;
        self.current.widen(block);
    }

    /// Where the current attempt's first line stands. Final once its last line is in.
    pub fn spot(&self) -> FrameSpot {
        self.spot
    }

    /// The last frame, if any line is in it.
    pub fn finish(mut self) -> Option<RawFrame> {
        self.ended.merge(std::mem::take(&mut self.current));
        (!self.buffer.is_empty()).then_some(RawFrame { bytes: self.buffer, extent: self.ended })
    }

    fn here(&self) -> FrameSpot {
        // A frame is far below 4 GiB: the writer bounds its size and that of a line.
        FrameSpot { frame: self.ordinal, skip: self.buffer.len() as u32 }
    }

    fn take_frame(&mut self) -> RawFrame {
        let mut extent = std::mem::take(&mut self.ended);
        if self.current_start == 0 {
            extent.merge(std::mem::take(&mut self.current));
        }
        self.ordinal += 1;
        RawFrame { bytes: std::mem::take(&mut self.buffer), extent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Level, LevelSet};

    /// Packs attempts given as the lengths of their lines; each line is one letter repeated.
    fn pack(frame_size: usize, attempts: &[Vec<usize>]) -> (Vec<RawFrame>, Vec<FrameSpot>) {
        let mut packer = FramePacker::new(frame_size);
        let (mut frames, mut spots) = (Vec::new(), Vec::new());
        for (number, lines) in attempts.iter().enumerate() {
            let mut levels = LevelSet::EMPTY;
            levels.insert(Some(Level::ALL[number % Level::ALL.len()]));
            packer.begin();
            for &len in lines {
                while let Some(frame) = packer.make_room(len) {
                    frames.push(frame);
                }
                let line = vec![b'a' + (number % 26) as u8; len];
                packer.push(&line[..1], &line[1..], Extent { lines: 9, ts: None, levels });
            }
            spots.push(packer.spot());
        }
        frames.extend(packer.finish());
        (frames, spots)
    }

    fn shown(frame_size: usize, attempts: &[&[usize]]) -> Vec<String> {
        let attempts: Vec<_> = attempts.iter().map(|lines| lines.to_vec()).collect();
        let (frames, _) = pack(frame_size, &attempts);
        frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned()).collect()
    }

    #[test]
    fn the_three_rules() {
        assert_eq!(shown(10, &[&[3], &[3], &[4]]), ["aaabbbcccc"], "full to the brim");
        assert_eq!(shown(10, &[&[3, 3], &[3, 3]]), ["aaaaaa", "bbbbbb"], "a small one does not straddle");
        assert_eq!(shown(10, &[&[3], &[6, 6, 6]]), ["aaa", "bbbbbb", "bbbbbb", "bbbbbb"], "a large one starts afresh");
        assert_eq!(shown(10, &[&[6, 6], &[3]]), ["aaaaaa", "aaaaaabbb"], "and shares its last frame");
        assert_eq!(shown(4, &[&[2, 9, 2]]), ["aa", "aaaaaaaaa", "aa"], "one line alone may be larger");
        assert_eq!(shown(4, &[&[], &[], &[2]]), ["cc"], "attempts without lines take no room");
        assert_eq!(shown(4, &[]), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn every_line_is_where_its_spot_says(
            frame_size in 1usize..40,
            attempts in prop::collection::vec(prop::collection::vec(1usize..20, 0..12), 0..12),
        ) {
            let (frames, spots) = pack(frame_size, &attempts);
            let bytes: usize = attempts.iter().flatten().sum();
            prop_assert_eq!(frames.iter().map(|frame| frame.bytes.len()).sum::<usize>(), bytes);
            prop_assert_eq!(
                frames.iter().map(|frame| frame.extent.lines).sum::<u64>(),
                attempts.iter().flatten().count() as u64
            );
            for (number, (lines, spot)) in attempts.iter().zip(&spots).enumerate() {
                let len: usize = lines.iter().sum();
                if len == 0 {
                    continue;
                }
                let (frame, skip) = (spot.frame as usize, spot.skip as usize);
                let from: Vec<u8> = frames[frame..].iter().flat_map(|frame| &frame.bytes).copied().skip(skip).take(len).collect();
                prop_assert_eq!(from, vec![b'a' + (number % 26) as u8; len]);
                if len <= frame_size {
                    prop_assert!(skip + len <= frames[frame].bytes.len(), "a small attempt straddles");
                } else {
                    prop_assert_eq!(skip, 0, "a large attempt shares its first frame");
                }
                prop_assert!(frames[frame].extent.levels.may_hold(Level::ALL[number % Level::ALL.len()]));
            }
            for frame in &frames {
                let lines = frame.extent.lines;
                prop_assert!(frame.bytes.len() <= frame_size || lines == 1);
            }
        }
    }
}
