//! Files that are no logs: jars of PowerJob's containers. Kept in the cold store as they are.
//!
//! A file's bytes have a new name each time it is written, and a small object says which: so a reader gets the old
//! file or the new one, whole. What a crash between the two leaves is bytes that nobody refers to.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use s3s::{S3ErrorCode, S3Result, s3_error};
use ulid::Ulid;

use super::spool::Received;
use super::{Described, hex, unavailable};
use crate::cold::{Error, Key};
use crate::model::Millis;
use crate::protocol::Parts;

const FOLDER: &str = "powerjob";

/// Where the bytes of a file are, and what they are.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Pointer {
    name: String,
    #[serde(with = "as_text")]
    ulid: Ulid,
    bytes: u64,
    md5: String,
    modified_millis: i64,
}

impl Pointer {
    pub fn described(&self) -> Described {
        let mut md5 = [0; 16];
        for (byte, digits) in md5.iter_mut().zip(self.md5.as_bytes().chunks(2)) {
            *byte =
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0);
        }
        Described { bytes: self.bytes, md5, modified: Millis::new(self.modified_millis) }
    }
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use ulid::Ulid;

    pub fn serialize<S: Serializer>(ulid: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&ulid.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
        Ulid::from_string(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

pub struct Files {
    parts: Parts,
}

impl Files {
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    pub async fn put(&self, name: &str, received: &mut Received) -> S3Result<()> {
        let ulid = self.parts.clock.new_ulid();
        let before = match self.find(name).await {
            Ok(pointer) => Some(pointer),
            Err(error) if *error.code() == S3ErrorCode::NoSuchKey => None,
            Err(error) => return Err(error),
        };
        self.upload(ulid, received).await?;
        let pointer = Pointer {
            name: name.to_owned(),
            ulid,
            bytes: received.bytes,
            md5: hex(&received.md5),
            modified_millis: self.parts.clock.now().get(),
        };
        let json = serde_json::to_vec(&pointer).map_err(|error| s3_error!(error, InternalError))?;
        let put = self.parts.store.put(&Key::file(FOLDER, name), json.into()).await;
        put.map_err(|error| unavailable("a file is not stored", &error))?;
        if let Some(before) = before {
            // A reader that is in the middle of it tries again.
            let deleted = self.parts.store.delete(&Key::file_bytes(FOLDER, before.ulid)).await;
            if let Err(error) = deleted {
                tracing::warn!(file = name, ulid = %before.ulid, %error, "the bytes of a replaced file stay behind");
            }
        }
        Ok(())
    }

    async fn upload(&self, ulid: Ulid, received: &mut Received) -> S3Result<()> {
        let mut upload = self.parts.store.upload(&Key::file_bytes(FOLDER, ulid));
        let unreadable = |error: std::io::Error| unavailable("cannot read the spool", &error);
        let mut reading = received.read_from(0).await.map_err(unreadable)?;
        loop {
            let piece = reading.next().await.map_err(unreadable)?;
            if piece.is_empty() {
                break;
            }
            if let Err(error) = upload.write(piece).await {
                let _ = upload.abort().await;
                return Err(unavailable("a file is not stored", &error));
            }
        }
        upload.finish().await.map_err(|error| unavailable("a file is not stored", &error))?;
        Ok(())
    }

    /// Only where the store itself says so there is no such file.
    pub async fn find(&self, name: &str) -> S3Result<Pointer> {
        match self.parts.store.get(&Key::file(FOLDER, name)).await {
            Ok(json) => {
                serde_json::from_slice(&json).map_err(|error| unavailable("a file's pointer is damaged", &error))
            }
            Err(Error::NotFound { .. }) => Err(s3_error!(NoSuchKey)),
            Err(error) => Err(unavailable("a file cannot be looked up", &error)),
        }
    }

    pub async fn stream(&self, file: &Pointer) -> S3Result<BoxStream<'static, Result<Bytes, Error>>> {
        if file.bytes == 0 {
            return Ok(futures::stream::empty().boxed());
        }
        let key = Key::file_bytes(FOLDER, file.ulid);
        let stream = self.parts.store.stream_range(&key, 0..file.bytes).await;
        let stream = stream.map_err(|error| unavailable("a file cannot be read", &error))?;
        Ok(stream.map_err(|error| error).boxed())
    }
}
