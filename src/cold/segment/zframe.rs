//! Single zstd frames: always with a content checksum and content size, and nothing else accepted.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe;

use super::codec::{Decoded, Malformed};

/// A context that makes checksummed frames. Some 20 MB at level 9, so it is worth keeping.
pub(super) fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(zstd_safe::CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(zstd_safe::CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}

/// Decompresses exactly one frame of at most `cap` bytes of content.
///
/// The frame must fill `frame`: with its checksum flag cleared by a flipped bit, or with another
/// frame behind it, it does not.
pub(super) fn decompress(frame: &[u8], cap: usize) -> Decoded<Vec<u8>> {
    check_end(frame)?;
    let size = match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) => usize::try_from(size).unwrap_or(usize::MAX),
        _ => return Err(Malformed("a zstd frame does not tell its size")),
    };
    if size > cap {
        return Err(Malformed("a zstd frame is larger than it may be"));
    }
    let content = zstd::bulk::decompress(frame, size).map_err(|_| Malformed("a zstd frame does not decompress"))?;
    if content.len() == size { Ok(content) } else { Err(Malformed("a zstd frame has another size than it tells")) }
}

/// Whether the bytes are one frame and nothing else, as far as its blocks' headers tell.
pub(super) fn check_end(frame: &[u8]) -> Decoded<()> {
    match zstd_safe::find_frame_compressed_size(frame) {
        Ok(len) if len == frame.len() => Ok(()),
        _ => Err(Malformed("a zstd frame does not end where it should")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_checked_frame_or_nothing() {
        let content = b"a line\n".repeat(100);
        let frame = compressor(3).and_then(|mut c| c.compress(&content)).expect("compressed");
        assert_eq!(decompress(&frame, content.len()), Ok(content.clone()));
        assert!(decompress(&frame, content.len() - 1).is_err(), "cap");
        assert!(decompress(&[&frame[..], &frame[..]].concat(), 1 << 20).is_err(), "two frames");
        for at in 0..frame.len() {
            assert!(decompress(&frame[..at], 1 << 20).is_err(), "truncated at {at}");
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(got) = decompress(&flipped, 1 << 20) {
                    assert_eq!(got, content, "bit {bit} of byte {at}");
                }
            }
        }
    }
}
