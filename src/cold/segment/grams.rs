//! Which pieces of a message a search filter knows: some of its six-byte pieces, chosen so that a text
//! which is looked for names the same ones.
//!
//! A *word* is a run of ASCII letters, digits, `_`, and bytes of other scripts. Of each three *grams*
//! (pieces of six bytes) that follow each other in a word, the least by [`rank`] is kept (known as
//! winnowing: Schleimer, Wilkerson, Aiken 2003); of a word with fewer than three, the least of all.
//!
//! What is kept of a word depends on nothing but three neighbours each time. So a text whose words reach
//! over eight bytes finds its grams in every message that contains it, also where its first and last
//! word are only a part of longer ones there: of those, only grams of whole windows count. Words are
//! taken from the message as its JSON writes it, and a text that is looked for is escaped like it, so
//! no escape is ever undone.
//!
//! Measured against whole words, which cost about as much (docs/performance.md): a whole word is found
//! only where a text names it with a separator on both sides, which the id that people paste has not.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use memchr::memmem;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Decoded, Malformed};
use super::reader::take_line;
use crate::model::tail_start;

/// Bytes of a gram. With four or five, the digits of ids leave too few different ones to tell frames apart.
pub(super) const GRAM_BYTES: usize = 6;
/// Of so many grams in a row one is kept at least.
pub(super) const WINDOW: usize = 3;

/// A gram: its bytes, the first lowest.
pub(super) type Gram = u64;

/// The order by which the least gram is chosen: MurmurHash3's finalizer, one to one.
pub(super) fn rank(gram: Gram) -> u64 {
    let mut rank = gram;
    rank = (rank ^ rank >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    rank = (rank ^ rank >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    rank ^ rank >> 33
}

/// What a message that contains `text` is known by; empty where nothing can be said. `text` is escaped as in JSON.
pub(super) fn of_text(text: &[u8]) -> Vec<Gram> {
    let mut grams = Vec::new();
    for (start, end) in words(text) {
        let is_whole = start > 0 && end < text.len();
        if is_whole || end - start >= GRAM_BYTES + WINDOW - 1 {
            select(&text[start..end], |gram| grams.push(gram));
        }
    }
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// What the messages of a frame are known by, each once, in ascending order.
pub(super) fn of_frame(ndjson: &[u8]) -> Decoded<Vec<Gram>> {
    let mut seen: HashSet<&[u8], BuildHasherDefault<WordHasher>> = HashSet::default();
    let mut grams = Vec::new();
    let member = memmem::Finder::new(MESSAGE);
    let (mut rest, mut head): (&[u8], &[u8]) = (ndjson, b"");
    while !rest.is_empty() {
        let line = take_line(&mut rest).ok_or(Malformed("a line does not end"))?;
        if head.is_empty() || !line.strip_prefix(head).is_some_and(|tail| tail.starts_with(b"\"ts\":")) {
            head = &line[..tail_start(line).map_err(|_| Malformed("a line is not a record"))?];
        }
        let tail = &line[head.len()..];
        // Inside of a string its quotes would be escaped.
        let start = member.find(tail).ok_or(Malformed("a record without a message"))? + MESSAGE.len();
        let message = &tail[start..start + string_end(&tail[start..])];
        for (start, end) in words(message) {
            let word = &message[start..end];
            if word.len() >= GRAM_BYTES && seen.insert(word) {
                select(word, |gram| grams.push(gram));
            }
        }
    }
    grams.sort_unstable();
    grams.dedup();
    Ok(grams)
}

const MESSAGE: &[u8] = b",\"message\":\"";

/// Where the string ends whose first byte `text` begins with.
fn string_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &text[at..]) {
        if text[at + found] == b'"' {
            return at + found;
        }
        at = (at + found + 2).min(text.len());
    }
    text.len()
}

/// The words of a text, as ranges of its bytes.
fn words(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].iter().position(|byte| IN_WORD[*byte as usize])?;
        let len = text[start..].iter().position(|byte| !IN_WORD[*byte as usize]);
        at = len.map_or(text.len(), |len| start + len);
        Some((start, at))
    })
}

const IN_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
        byte += 1;
    }
    table
};

/// Gives the grams of a word that are kept, some perhaps more than once.
fn select(word: &[u8], mut keep: impl FnMut(Gram)) {
    let Some((first, rest)) = word.split_at_checked(GRAM_BYTES - 1) else { return };
    let next = |gram: Gram, byte: &u8| gram >> 8 | u64::from(*byte) << (8 * (GRAM_BYTES - 1));
    let mut gram = first.iter().fold(0, next);
    let mut ranked = rest.iter().map(|byte| {
        gram = next(gram, byte);
        (rank(gram), gram)
    });
    let (Some(mut a), b) = (ranked.next(), ranked.next()) else { return };
    let Some(mut b) = b else { return keep(a.1) };
    let Some(mut c) = ranked.next() else { return keep(a.min(b).1) };
    let mut last = None;
    loop {
        let least = a.min(b).min(c).1;
        if last.replace(least) != Some(least) {
            keep(least);
        }
        let Some(next) = ranked.next() else { return };
        (a, b, c) = (b, c, next);
    }
}

/// Words are short and many.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    /// The length, which the hash of the bytes knows.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Identity, Record, Timestamp, json_escaped};

    fn line(identity: &Identity, message: &str) -> Vec<u8> {
        let ts = Timestamp::from_nanos(1);
        let (level, source) = (None, "w,\"message\":\"no".into());
        let attrs = None;
        let mut line = identity.head();
        let mut record = Vec::new();
        Record { ts, level, source, message: message.into(), attrs, raw: None, partial: false }.write_json(&mut record);
        line.extend_from_slice(&record[1..]);
        line.push(b'\n');
        line
    }

    fn identity() -> Identity {
        let key = crate::model::AttemptKey {
            app: "a".parse().expect("app"),
            instance: "i".parse().expect("instance"),
            attempt: crate::model::AttemptNo::FIRST,
        };
        let labels = r#"{"message":"a label of that name","ts":"x"}"#.parse().expect("labels");
        Identity { key, job: None, labels }
    }

    #[test]
    fn what_is_long_enough_is_known_by_something() {
        for text in ["deadbeef", "order 7440123456 failed", "余额不足", "x 余额不 y", "ConnectionTimeout", " abcdef "]
        {
            assert!(!of_text(&json_escaped(text)).is_empty(), "{text}");
        }
        // Too short, or perhaps only parts of longer words.
        for text in ["", "timeout", "余额", "a b c d e f g h", "abcdefg hijklmn"] {
            assert!(of_text(&json_escaped(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn only_the_message_counts() {
        let grams = of_frame(&line(&identity(), "the message itself")).expect("a frame");
        assert_eq!(grams, of_text(b" the message itself "));
        assert!(of_frame(b"{}\n").is_err() && of_frame(b"x").is_err());
    }

    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-e0-3_]{0,14}",
            "[ .,:/-]{1,2}",
            "[\"\\\\\n\r\t\u{0}-\u{1f}]{1,2}",
            "[余额不足订单é🚀]{0,5}",
            any::<String>()
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_frame_knows_every_part_of_its_messages(
            messages in prop::collection::vec(text(), 1..6), start: usize, len in 0usize..40, of: prop::sample::Index,
        ) {
            let frame: Vec<u8> = messages.iter().flat_map(|message| line(&identity(), message)).collect();
            let known = of_frame(&frame).expect("a frame");
            let chars: Vec<char> = of.get(&messages).chars().collect();
            let start = if chars.is_empty() { 0 } else { start % chars.len() };
            let part: String = chars[start..].iter().take(len).collect();
            for gram in of_text(&json_escaped(&part)) {
                prop_assert!(known.binary_search(&gram).is_ok(), "{part:?} in {messages:?}");
            }
        }
    }
}
