//! Looks for a text in records' JSON without parsing them.
//!
//! A record's message is JSON that we wrote ourselves ([`Record::write_json`]), one escape for each
//! character that needs one. So where a message contains a text, its JSON contains the text's JSON.
//! The other way round does not hold: a find is only a reason to look.
//!
//! [`Record::write_json`]: crate::model::Record::write_json

use memchr::memmem::Finder;

use crate::model::json_escaped;

/// The longest of the texts that a message must contain.
#[derive(Clone)]
pub(super) struct Needle {
    finder: Finder<'static>,
}

impl Needle {
    /// `None` where there is nothing to look for.
    pub fn of(texts: &[String]) -> Option<Self> {
        let longest = texts.iter().map(|text| json_escaped(text)).max_by_key(Vec::len)?;
        (!longest.is_empty()).then(|| Self { finder: Finder::new(&longest).into_owned() })
    }

    pub fn into_finder(self) -> Finder<'static> {
        self.finder
    }

    pub fn is_in(&self, records: &[u8]) -> bool {
        self.finder.find(records).is_some()
    }

    /// The lines that hold it, each with its position among `records` and without its newline.
    pub fn lines<'r>(&'r self, records: &'r [u8]) -> impl Iterator<Item = (u64, &'r [u8])> {
        let (mut rest, mut number) = (records, 0u64);
        std::iter::from_fn(move || {
            let at = self.finder.find(rest)?;
            // A text holds no newline once it is escaped, so a find is inside of one line.
            let start = memchr::memrchr(b'\n', &rest[..at]).map_or(0, |newline| newline + 1);
            let end = memchr::memchr(b'\n', &rest[at..]).map_or(rest.len(), |newline| at + newline);
            number += memchr::memchr_iter(b'\n', &rest[..start]).count() as u64;
            let found = (number, &rest[start..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            number += 1;
            Some(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Record, Timestamp};

    fn json(message: &str) -> Vec<u8> {
        let ts = Timestamp::from_nanos(0);
        let mut out = Vec::new();
        let (level, attrs, raw) = (None, None, None);
        Record { ts, level, source: "".into(), message: message.into(), attrs, raw, partial: false }
            .write_json(&mut out);
        out.push(b'\n');
        out
    }

    fn text() -> impl Strategy<Value = String> {
        let piece =
            prop_oneof!["[a-c]{0,3}", "[\"\\\\\n\t\u{0}-\u{1f}\u{7f}]{0,2}", "[余额不足é🚀]{0,2}", any::<String>()];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_message_that_contains_a_text_is_found(
            messages in prop::collection::vec(text(), 1..8), before: usize, len in 0usize..12, of: prop::sample::Index,
        ) {
            let chars: Vec<char> = of.get(&messages).chars().collect();
            let start = if chars.is_empty() { 0 } else { before % chars.len() };
            let part: String = chars[start..].iter().take(len).collect();
            let records: Vec<u8> = messages.iter().flat_map(|message| json(message)).collect();
            let Some(needle) = Needle::of(std::slice::from_ref(&part)) else { return Ok(()) };
            let found: Vec<(u64, &[u8])> = needle.lines(&records).collect();
            for (at, message) in messages.iter().enumerate().filter(|(_, message)| message.contains(&part)) {
                let json = json(message);
                prop_assert!(found.contains(&(at as u64, json.strip_suffix(b"\n").unwrap())), "{part:?} in {message:?}");
            }
        }
    }
}
