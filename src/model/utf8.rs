//! Where text may be cut.

/// The longest prefix that does not end inside of a UTF-8 character, so that pieces of text are text.
pub fn char_boundary(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for at in (tail..bytes.len()).rev() {
        let width = match bytes[at] {
            0x00..=0x7F => 1,
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
        };
        return if at + width > bytes.len() && at > 0 { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_cut_between_characters(text: String, cut in 0usize..64) {
            let cut = cut.min(text.len());
            let end = char_boundary(&text.as_bytes()[..cut]);
            prop_assert!(cut < 4 || text.is_char_boundary(end));
        }
    }
}
