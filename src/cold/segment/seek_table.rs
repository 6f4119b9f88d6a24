//! The seek table of the official zstd seekable format: the last skippable frame of the object.
//!
//! ```text
//! magic 0x184D2A5E | length | entries (compressed u32, decompressed u32) … | count u32 | descriptor u8 | 0x8F92EAB1
//! ```
//!
//! All little endian. Every frame before it has an entry, also our index, as one of no content:
//! a reader adds up the compressed sizes to find a frame.

use super::codec::{Decoded, Malformed};

const MAGIC: u32 = 0x184D_2A5E;
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
const ENTRY_BYTES: usize = 8;
const HEADER_BYTES: usize = 8;
pub(super) const SEEK_FOOTER_BYTES: usize = 9;

/// Compressed and decompressed length of one frame.
pub(super) type SeekEntry = (u32, u32);

/// The whole skippable frame.
pub(super) fn encode(entries: impl ExactSizeIterator<Item = SeekEntry>) -> Vec<u8> {
    let count = entries.len() as u32;
    let payload_len = count * ENTRY_BYTES as u32 + SEEK_FOOTER_BYTES as u32;
    let mut out = Vec::with_capacity(HEADER_BYTES + payload_len as usize);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&payload_len.to_le_bytes());
    for (compressed, decompressed) in entries {
        out.extend_from_slice(&compressed.to_le_bytes());
        out.extend_from_slice(&decompressed.to_le_bytes());
    }
    out.extend_from_slice(&count.to_le_bytes());
    // Frames carry their own checksums; the table needs none.
    out.push(0);
    out.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
    out
}

/// The length of the whole skippable frame, as its last nine bytes tell it.
pub(super) fn frame_len(footer: &[u8; SEEK_FOOTER_BYTES]) -> Decoded<u64> {
    let [c0, c1, c2, c3, descriptor, m0, m1, m2, m3] = *footer;
    if u32::from_le_bytes([m0, m1, m2, m3]) != FOOTER_MAGIC {
        return Err(Malformed("it does not end in a seek table"));
    }
    if descriptor != 0 {
        return Err(Malformed("the seek table is of another kind"));
    }
    let count = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
    Ok((HEADER_BYTES + SEEK_FOOTER_BYTES) as u64 + count * ENTRY_BYTES as u64)
}

/// The entries of a whole skippable frame.
pub(super) fn decode(frame: &[u8]) -> Decoded<impl Iterator<Item = SeekEntry>> {
    let wrong = Malformed("the seek table is damaged");
    let footer = frame.last_chunk::<SEEK_FOOTER_BYTES>().ok_or(wrong)?;
    if frame_len(footer)? != frame.len() as u64 {
        return Err(wrong);
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let (header, rest) = frame.split_at_checked(HEADER_BYTES).ok_or(wrong)?;
    if number(&header[..4]) != MAGIC || number(&header[4..]) as usize != rest.len() {
        return Err(wrong);
    }
    let entries = rest[..rest.len() - SEEK_FOOTER_BYTES].chunks_exact(ENTRY_BYTES);
    Ok(entries.map(move |entry| (number(&entry[..4]), number(&entry[4..]))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tables_round_trip(entries: Vec<SeekEntry>) {
            let frame = encode(entries.iter().copied());
            let footer = frame.last_chunk().expect("footer");
            prop_assert_eq!(frame_len(footer), Ok(frame.len() as u64));
            prop_assert_eq!(decode(&frame).expect("table").collect::<Vec<_>>(), entries);
        }

        #[test]
        fn any_bytes_are_a_table_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes).map(|entries| entries.count());
        }
    }
}
