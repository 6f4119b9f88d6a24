//! A line that is too long for one record goes in pieces.
//!
//! Where a line is cut depends on its text alone, not on how the text came: so the pieces of a line that is stored
//! are those of the same line in a file.

use crate::model::char_boundary;

/// Below the default `max_record_size`, and all that is held of a line.
pub const PIECE_BYTES: usize = 256 << 10;

/// Gathers the text of one line and gives out what is too much.
#[derive(Debug, Default)]
pub struct Pieces {
    held: Vec<u8>,
}

impl Pieces {
    /// Adds text; `take` gets each piece that more text follows.
    pub fn push<E>(&mut self, mut text: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.held.len() + text.len() > PIECE_BYTES {
            let (now, rest) = text.split_at(PIECE_BYTES.saturating_sub(self.held.len()));
            self.held.extend_from_slice(now);
            text = rest;
            let cut = char_boundary(&self.held);
            take(&self.held[..cut])?;
            self.held.drain(..cut);
        }
        self.held.extend_from_slice(text);
        Ok(())
    }

    /// The end of the line.
    pub fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Makes ready for the next line.
    pub fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn cut(text: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut pieces, mut given) = (Pieces::default(), Vec::new());
        for part in text.chunks(step) {
            let Ok(()) = pieces.push(part, |piece| {
                given.push(piece.to_vec());
                Ok::<_, Infallible>(())
            });
        }
        given.push(pieces.rest().to_vec());
        given
    }

    #[test]
    fn cuts_depend_on_the_text_alone() {
        let text = format!("a{}", "é".repeat(PIECE_BYTES)).into_bytes();
        let whole = cut(&text, text.len());
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [PIECE_BYTES - 1, PIECE_BYTES, 2]);
        assert!(whole.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
        for step in [PIECE_BYTES - 1, 100_001, 77] {
            assert!(cut(&text, step) == whole, "by {step}");
        }
        assert_eq!(cut(&text[..PIECE_BYTES - 1], 1_000).len(), 1);
    }
}
