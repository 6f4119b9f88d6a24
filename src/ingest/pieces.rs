//! A message that is too long for one record, in several.

use base64::Engine as _;

use crate::model::Record;

/// A record of each piece of a message; only the first has the attributes.
pub(super) fn in_pieces<'a>(record: Record<'a>, message: &'a [u8], max: usize) -> impl Iterator<Item = Record<'a>> {
    let (more_follows, mut attrs) = (record.partial, record.attrs.clone());
    let mut pieces = pieces(message, max).peekable();
    std::iter::from_fn(move || {
        let piece = pieces.next()?;
        let (message, raw) = match std::str::from_utf8(piece) {
            Ok(text) => (text.into(), None),
            Err(_) => {
                let raw = base64::prelude::BASE64_STANDARD.encode(piece);
                (String::from_utf8_lossy(piece), Some(raw.into()))
            }
        };
        let partial = more_follows || pieces.peek().is_some();
        Some(Record { message, raw, partial, attrs: attrs.take(), ..record.clone() })
    })
}

/// Cuts a message into pieces of at most `max` bytes, between characters where it is text.
fn pieces(message: &[u8], max: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let message = rest?;
        if message.len() <= max {
            return rest.take();
        }
        // A UTF-8 character has at most three bytes behind its first.
        let is_boundary = |at: &usize| message[*at] & 0xC0 != 0x80;
        let cut = (max.saturating_sub(3)..=max).rev().find(|at| *at > 0 && is_boundary(at)).unwrap_or(max);
        let (piece, behind) = message.split_at(cut);
        rest = Some(behind);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
    #[test]
    fn a_long_message_comes_back_from_its_pieces(message: Vec<u8>, text: String, max in 4usize..20) {
        for message in [message.as_slice(), text.as_bytes()] {
            let cut: Vec<&[u8]> = pieces(message, max).collect();
            prop_assert_eq!(cut.concat(), message);
            prop_assert!(cut.iter().all(|piece| piece.len() <= max && (!piece.is_empty() || message.is_empty())));
        }
        for piece in pieces(text.as_bytes(), max) {
            prop_assert!(std::str::from_utf8(piece).is_ok());
        }
    }
    }
}
