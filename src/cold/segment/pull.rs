//! Takes pieces of exact length out of a stream of bytes.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::ByteStream;

use super::MAX_FRAME_BYTES;

/// No piece is larger than the largest frame that zstd cannot compress at all.
const MAX_PIECE_BYTES: usize = MAX_FRAME_BYTES + MAX_FRAME_BYTES / 128;

/// A stream of an object's bytes, and those that arrived but were not taken yet.
pub(super) struct Pull {
    key: Key,
    stream: ByteStream,
    buffer: BytesMut,
}

impl Pull {
    pub fn new(key: Key, stream: ByteStream) -> Self {
        Self { key, stream, buffer: BytesMut::new() }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The next `len` bytes. Grows by what arrives, not by what `len` says.
    pub async fn take(&mut self, len: u64) -> Result<Bytes> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_PIECE_BYTES {
            return Err(Error::corrupt(&self.key, format!("a piece of {len} bytes")));
        }
        while self.buffer.len() < len {
            let Some(piece) = self.stream.try_next().await? else {
                return Err(Error::corrupt(&self.key, "its parts are longer than the range that holds them"));
            };
            self.buffer.extend_from_slice(&piece);
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    /// Whatever is there next, until the end.
    pub async fn any(&mut self) -> Result<Option<Bytes>> {
        if self.buffer.is_empty() { self.stream.try_next().await } else { Ok(Some(self.buffer.split().freeze())) }
    }
}
