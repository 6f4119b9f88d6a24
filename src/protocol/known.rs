//! Which lines of an instance are stored already, so that two ways to the same log meet instead of repeating it.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3;

use crate::model::{Attrs, Record, Timestamp};

/// 48 bytes of memory a line, 200 MB in all; longer logs are not compared line by line.
pub const MAX_KNOWN_LINES: usize = 4 << 20;

/// What tells one line from another: its millisecond, level, source and bytes, in 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// `level` is the word for it, empty where the line has none.
    ///
    /// Of a line that is too long for one record each piece has its own ([`Pieces`](super::pieces::Pieces)).
    pub fn of(ts: Timestamp, level: &str, source: &str, message: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        // Whoever wrote the line had milliseconds; what came another way may have more digits.
        hash.update(&ts.nanos().div_euclid(1_000_000).to_le_bytes());
        for text in [level, source] {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(message);
        Self(hash.digest128())
    }

    /// Of a record that is stored, whose message is `message`.
    pub fn of_record(record: &Record<'_>, message: &[u8]) -> Self {
        let word = match record.level {
            Some(level) => level.as_str().to_owned(),
            None => record.attrs.as_ref().and_then(Attrs::level_name).unwrap_or_default(),
        };
        Self::of(record.ts, &word, &record.source, message)
    }
}

/// There are more lines than [`MAX_KNOWN_LINES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored log has more than {MAX_KNOWN_LINES} lines, too many to compare")]
pub struct TooManyLines;

/// The stored lines of an instance. Equal lines are counted: two of them in a file need two of them here.
///
/// Order does not matter, because a worker's lines arrive in another order than a file sorted by time has them.
#[derive(Debug, Default)]
pub struct KnownLines {
    counts: HashMap<Fingerprint, u32>,
    lines: usize,
}

impl KnownLines {
    pub fn add(&mut self, line: Fingerprint) -> Result<(), TooManyLines> {
        if self.lines == MAX_KNOWN_LINES {
            return Err(TooManyLines);
        }
        self.lines += 1;
        *self.counts.entry(line).or_default() += 1;
        Ok(())
    }

    /// Whether the line is there; a line that was taken is not there a second time.
    pub fn take(&mut self, line: Fingerprint) -> bool {
        match self.counts.get_mut(&line) {
            Some(count) if *count > 0 => {
                *count -= 1;
                self.lines -= 1;
                true
            }
            _ => false,
        }
    }

    /// How many lines were added and not taken.
    pub fn len(&self) -> usize {
        self.lines
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(message: &str) -> Fingerprint {
        Fingerprint::of(Timestamp::from_nanos(5_000_000), "INFO", "w", message.as_bytes())
    }

    #[test]
    fn equal_lines_are_counted() {
        let mut known = KnownLines::default();
        for message in ["a", "b", "a"] {
            known.add(print(message)).expect("few");
        }
        assert!(known.take(print("a")) && known.take(print("a")) && !known.take(print("a")));
        assert!(!known.take(print("c")));
        assert_eq!((known.len(), known.is_empty()), (1, false));
    }

    #[test]
    fn every_part_of_a_line_counts_but_less_than_a_millisecond() {
        let at = Timestamp::from_nanos;
        assert_eq!(Fingerprint::of(at(5_999_999), "INFO", "w", b"a"), print("a"));
        for other in [
            Fingerprint::of(at(6_000_000), "INFO", "w", b"a"),
            Fingerprint::of(at(5_000_000), "WARN", "w", b"a"),
            Fingerprint::of(at(5_000_000), "INFO", "v", b"a"),
            Fingerprint::of(at(5_000_000), "INFO", "w", b"b"),
            Fingerprint::of(at(5_000_000), "INFOw", "", b"a"),
        ] {
            assert_ne!(other, print("a"));
        }
    }
}
