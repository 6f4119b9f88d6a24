//! Cutting a stream of bytes into lines and batches of lines, in bounded memory.

use bytes::{Bytes, BytesMut};

use crate::model::char_boundary;

/// A batch is sent once it has this many lines …
pub(super) const BATCH_LINES: u64 = 2_000;
/// … or this many bytes: some dozen chunks of the hot tier, a few milliseconds of a commit.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// A longer line goes in pieces: the daemon takes bodies of 16 MiB.
pub(super) const LONGEST_LINE: usize = 12 << 20;

/// What comes off the front of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Whole lines, each with its LF but perhaps the last of the stream.
    Lines { bytes: Bytes, lines: u64 },
    /// A piece of a line over [`LONGEST_LINE`], without LF; `last` where the line ends with it.
    Piece { bytes: Bytes, last: bool },
}

/// Gathers what was read and gives it out in batches.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// Up to where the buffer was searched for LF.
    searched: usize,
    /// The end of the last whole line that fits, and how many lines there are before it.
    end: usize,
    lines: u64,
    full: bool,
    in_long_line: bool,
}

impl Splitter {
    /// Where to read more to.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(64 << 10);
        &mut self.buffer
    }

    /// Whether whole lines wait for company.
    pub(super) fn holds_lines(&self) -> bool {
        self.lines > 0
    }

    /// A batch that is full, or a piece of a line that is too long; `None`: read on.
    pub(super) fn next_full(&mut self) -> Option<Batch> {
        if self.in_long_line {
            return self.next_piece();
        }
        self.search();
        if self.full || self.lines > 0 && self.buffer.len() >= BATCH_BYTES {
            return self.next_lines();
        }
        if self.lines == 0 && self.buffer.len() >= LONGEST_LINE {
            self.in_long_line = true;
            return self.next_piece();
        }
        None
    }

    /// The whole lines that are there, full or not.
    pub(super) fn next_lines(&mut self) -> Option<Batch> {
        if self.lines == 0 {
            return None;
        }
        let (lines, bytes) = (self.lines, self.buffer.split_to(self.end).freeze());
        (self.searched, self.end, self.lines, self.full) = (0, 0, 0, false);
        Some(Batch::Lines { bytes, lines })
    }

    /// What is left at the end of the stream; call until it gives `None`.
    pub(super) fn next_rest(&mut self) -> Option<Batch> {
        if let Some(batch) = self.next_full() {
            return Some(batch);
        }
        if self.in_long_line {
            (self.in_long_line, self.searched) = (false, 0);
            return Some(Batch::Piece { bytes: self.buffer.split().freeze(), last: true });
        }
        if self.end < self.buffer.len() && self.lines < BATCH_LINES {
            // The last line has no LF.
            self.end = self.buffer.len();
            self.lines += 1;
        }
        self.next_lines()
    }

    fn search(&mut self) {
        for at in memchr::memchr_iter(b'\n', &self.buffer[self.searched..]) {
            let end = self.searched + at + 1;
            // A batch holds at least one line, however long.
            if self.lines == BATCH_LINES || self.lines > 0 && end > BATCH_BYTES {
                self.full = true;
                break;
            }
            self.end = end;
            self.lines += 1;
        }
        if !self.full {
            self.searched = self.buffer.len();
        }
    }

    /// Of the long line at the front: up to its LF if that is there, else one batch's worth.
    fn next_piece(&mut self) -> Option<Batch> {
        let window = &self.buffer[..self.buffer.len().min(BATCH_BYTES)];
        if let Some(at) = memchr::memchr(b'\n', window) {
            let bytes = self.buffer.split_to(at).freeze();
            let _ = self.buffer.split_to(1);
            (self.in_long_line, self.searched) = (false, 0);
            return Some(Batch::Piece { bytes, last: true });
        }
        if window.len() < BATCH_BYTES {
            return None;
        }
        let cut = char_boundary(window);
        Some(Batch::Piece { bytes: self.buffer.split_to(cut).freeze(), last: false })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(input: &[u8], step: usize) -> Vec<Batch> {
        let (mut splitter, mut batches) = (Splitter::default(), Vec::new());
        for part in input.chunks(step) {
            splitter.buffer().extend_from_slice(part);
            while let Some(batch) = splitter.next_full() {
                batches.push(batch);
            }
        }
        while let Some(batch) = splitter.next_rest() {
            batches.push(batch);
        }
        batches
    }

    #[test]
    fn batches_end_at_lines() {
        let input = b"x\n".repeat(4_500);
        let counts: Vec<u64> = all(&input, 1_000)
            .iter()
            .map(|batch| match batch {
                Batch::Lines { lines, .. } => *lines,
                Batch::Piece { .. } => panic!("no piece"),
            })
            .collect();
        assert_eq!(counts, [2_000, 2_000, 500]);
        assert_eq!(all(b"a\n\nb", 2), [Batch::Lines { bytes: Bytes::from_static(b"a\n\nb"), lines: 3 }]);
        let input = [&b"x\n".repeat(2_000)[..], b"y"].concat();
        assert!(matches!(all(&input, 99)[..], [Batch::Lines { lines: 2_000, .. }, Batch::Lines { lines: 1, .. }]));
        assert_eq!(all(b"", 1), []);
    }

    #[test]
    fn batches_do_not_depend_on_how_the_input_came() {
        let input: Vec<u8> = (0..9_000).flat_map(|n| format!("{n} {}\n", "y".repeat(n % 700)).into_bytes()).collect();
        let whole = all(&input, input.len());
        assert_eq!(all(&input, 777), whole);
        assert!(whole.len() > 3);
        for batch in whole {
            assert!(matches!(batch, Batch::Lines { bytes, .. } if bytes.len() <= BATCH_BYTES));
        }
    }

    #[test]
    fn a_long_line_goes_whole_and_an_endless_one_in_pieces() {
        let mut input = vec![b'x'; 3 << 20];
        input.extend_from_slice(b"\nshort\n");
        let lines: Vec<_> = all(&input, 1 << 16);
        assert!(matches!(&lines[0], Batch::Lines { bytes, lines: 1 } if bytes.len() == (3 << 20) + 1));

        let mut input = "é".repeat(8 << 20).into_bytes();
        input.extend_from_slice(b"\nshort\n");
        let batches = all(&input, 100_000);
        let (mut joined, mut ends) = (Vec::new(), 0);
        for batch in &batches[..batches.len() - 1] {
            let Batch::Piece { bytes, last } = batch else { panic!("no line") };
            assert!(std::str::from_utf8(bytes).is_ok());
            joined.extend_from_slice(bytes);
            ends += usize::from(*last);
        }
        assert_eq!((joined.len(), ends), (16 << 20, 1));
        assert_eq!(batches.last(), Some(&Batch::Lines { bytes: Bytes::from_static(b"short\n"), lines: 1 }));
    }

    proptest! {
        #[test]
        fn nothing_is_lost(input: Vec<u8>, step in 1usize..40) {
            let mut joined = Vec::new();
            for batch in all(&input, step) {
                let Batch::Lines { bytes, .. } = batch else { panic!("short lines only") };
                joined.extend_from_slice(&bytes);
            }
            prop_assert_eq!(joined, input);
        }
    }
}
