//! A streaming write of one object: in parts where it is large, in one request where it is not.

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use super::error::{Error, Result};
use super::keys::Key;
use super::store::{Counters, Store};

/// All parts but the last have this size: S3 wants at least 5 MiB, some of its kin equal sizes.
/// 10,000 parts, the most that S3 takes, make 80 GB.
const PART_BYTES: usize = 8 << 20;
/// One part is on its way while the next fills up and another is retried; three in memory at most.
const MAX_PARTS_IN_FLIGHT: usize = 2;

/// An object that is being written. It becomes visible with [`Upload::finish`] and not before.
///
/// Call [`Upload::abort`] when it fails: S3 and GCS keep, and charge for, the parts of an upload that
/// is merely dropped. Dropping stops the requests in flight.
pub struct Upload {
    store: Store,
    key: Key,
    buffer: Vec<u8>,
    multipart: Option<Box<dyn MultipartUpload>>,
    in_flight: JoinSet<object_store::Result<()>>,
    hasher: blake3::Hasher,
    byte_length: u64,
}

/// What was written: the bytes as they were handed in, not as the store may have kept them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    pub byte_length: u64,
    /// BLAKE3 of the whole object.
    pub hash: [u8; 32],
}

impl Upload {
    pub(super) fn new(store: Store, key: Key) -> Self {
        Self {
            store,
            key,
            buffer: Vec::new(),
            multipart: None,
            in_flight: JoinSet::new(),
            hasher: blake3::Hasher::new(),
            byte_length: 0,
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Bytes written so far, sent or not.
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// Appends bytes; waits while as many parts as allowed are on their way.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.byte_length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PART_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            // A part goes out only when more follows, so that an object of one part is one request.
            if self.buffer.len() == PART_BYTES && !bytes.is_empty() {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends what is left and makes the object visible. An error aborts the upload.
    pub async fn finish(mut self) -> Result<Uploaded> {
        match self.complete().await {
            Ok(()) => Ok(Uploaded { byte_length: self.byte_length, hash: *self.hasher.finalize().as_bytes() }),
            Err(error) => {
                // The name is never used again and the sweeper deletes it, whatever became of it.
                let _ = self.abort().await;
                Err(error)
            }
        }
    }

    /// Tells the store to forget the parts that it has.
    pub async fn abort(mut self) -> Result<()> {
        self.in_flight.shutdown().await;
        let Some(mut multipart) = self.multipart.take() else { return Ok(()) };
        Counters::add(&self.store.counters().puts, 1);
        multipart.abort().await.map_err(|error| self.store.failed("abort upload of", &self.key, error))
    }

    async fn complete(&mut self) -> Result<()> {
        if self.multipart.is_none() {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            return self.store.put(&self.key, bytes).await;
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.part_sent().await?;
        }
        let (store, key) = (&self.store, &self.key);
        if let Some(multipart) = &mut self.multipart {
            Counters::add(&store.counters().puts, 1);
            multipart.complete().await.map_err(|error| store.failed("finish upload of", key, error))?;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        while self.in_flight.len() >= MAX_PARTS_IN_FLIGHT {
            self.part_sent().await?;
        }
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART_BYTES));
        let part = PutPayload::from_bytes(Bytes::from(part));
        let counters = self.store.counters();
        if self.multipart.is_none() {
            Counters::add(&counters.puts, 1);
            let path = self.store.path(&self.key)?;
            let multipart = self.store.objects().put_multipart(&path).await;
            self.multipart = Some(multipart.map_err(|error| self.store.failed("start upload of", &self.key, error))?);
        }
        Counters::add(&counters.puts, 1);
        Counters::add(&counters.bytes_in, part.content_length() as u64);
        if let Some(multipart) = &mut self.multipart {
            // The set owns the request: dropping the upload ends it.
            self.in_flight.spawn(multipart.put_part(part));
        }
        Ok(())
    }

    async fn part_sent(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(self.store.failed("upload part of", &self.key, error)),
            Some(Err(error)) => {
                Err(Error::Unavailable { action: "upload part of", key: self.key.clone(), source: error.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use super::super::open::StoreSettings;
    use super::*;

    fn stores(folder: &std::path::Path) -> [Store; 2] {
        let url = url::Url::from_directory_path(folder).expect("absolute");
        [
            Store::from_object_store(Arc::new(InMemory::new()), "p"),
            Store::open(&StoreSettings::new(url)).expect("folder"),
        ]
    }

    #[tokio::test]
    async fn large_objects_go_in_parts_and_small_ones_in_one_request() {
        let folder = tempfile::tempdir().expect("folder");
        for store in stores(folder.path()) {
            // (length, requests): create, parts, complete where it is more than one part.
            for (len, requests) in [(0, 1), (1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 4), (4 * PART_BYTES - 7, 6)] {
                let key = Key::stored(format!("v1/{len}"));
                let bytes: Vec<u8> = (0..len).map(|i| ((i * 31) >> 3) as u8).collect();
                let before = store.counters().puts.load(Ordering::Relaxed);
                let mut upload = store.upload(&key);
                for piece in bytes.chunks(3_000_001) {
                    upload.write(piece).await.expect("write");
                }
                let uploaded = upload.finish().await.expect("finish");
                assert_eq!(store.counters().puts.load(Ordering::Relaxed) - before, requests, "{len}");
                assert_eq!(uploaded.byte_length, len as u64);
                assert_eq!(uploaded.hash, *blake3::hash(&bytes).as_bytes());
                assert_eq!(store.get_range(&key, 0..len as u64).await.expect("read"), bytes);
            }
        }
    }

    #[tokio::test]
    async fn an_aborted_upload_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        for store in stores(folder.path()) {
            let mut upload = store.upload(&Key::stored("v1/x"));
            upload.write(&vec![1; 2 * PART_BYTES]).await.expect("write");
            upload.abort().await.expect("abort");
            let listed: Vec<_> = store.list("v1/").try_collect().await.expect("list");
            assert_eq!(listed, []);
        }
        let left = std::fs::read_dir(folder.path().join("v1")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a staged file is left");
    }
}
