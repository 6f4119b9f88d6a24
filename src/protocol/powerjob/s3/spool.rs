//! A body, received whole and checked against everything that its sender promised, before anything is stored.
//!
//! It waits in a file without a name, so that its size is a matter of the disk and a crash leaves nothing behind.

use std::io::SeekFrom;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::dto::{PutObjectInput, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::unavailable;
use crate::protocol::Parts;

/// Bytes of the beginning that are kept in memory; a placeholder is shorter.
const HEAD_BYTES: usize = 1024;

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Checksums in headers, or in trailers behind the body, beside `Content-MD5`.
const CHECKSUMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What the sender says of the body.
pub struct Promised {
    content_md5: Option<String>,
    bytes: Option<u64>,
    /// By the names of [`CHECKSUMS`].
    checksums: [Option<String>; 5],
    trailers: Option<TrailingHeaders>,
}

impl Promised {
    pub fn of(input: &PutObjectInput, trailers: Option<TrailingHeaders>) -> Self {
        Self {
            content_md5: input.content_md5.clone(),
            bytes: input.content_length.and_then(|length| u64::try_from(length).ok()),
            checksums: [
                input.checksum_crc32.clone(),
                input.checksum_crc32c.clone(),
                input.checksum_crc64nvme.clone(),
                input.checksum_sha1.clone(),
                input.checksum_sha256.clone(),
            ],
            trailers,
        }
    }

    /// Once the body has been read, its trailers are known.
    fn check(mut self, received: &Received, computed: s3s::dto::Checksum) -> S3Result<()> {
        if let Some(trailers) = self.trailers {
            for (name, promised) in CHECKSUMS.iter().zip(&mut self.checksums) {
                let of_trailer = trailers.read(|headers| {
                    let value = headers.get(format!("x-amz-checksum-{name}"))?;
                    value.to_str().ok().map(|value| value.trim().to_owned())
                });
                *promised = promised.take().or(of_trailer.flatten());
            }
        }
        let computed = [
            computed.checksum_crc32,
            computed.checksum_crc32c,
            computed.checksum_crc64nvme,
            computed.checksum_sha1,
            computed.checksum_sha256,
        ];
        if let Some(promised) = self.content_md5 {
            let promised = BASE64_STANDARD.decode(promised.as_bytes()).map_err(|_| S3ErrorCode::InvalidDigest)?;
            if promised != received.md5 {
                return Err(s3_error!(BadDigest, "the body is not what Content-MD5 says"));
            }
        }
        for ((name, promised), computed) in CHECKSUMS.iter().zip(self.checksums).zip(computed) {
            if promised.is_some() && promised != computed {
                return Err(s3_error!(BadDigest, "the body is not what x-amz-checksum-{name} says"));
            }
        }
        if self.bytes.is_some_and(|bytes| bytes != received.bytes) {
            return Err(s3_error!(IncompleteBody, "{} bytes came, not as many as announced", received.bytes));
        }
        Ok(())
    }
}

/// A body that is whole and what its sender says.
pub struct Received {
    pub bytes: u64,
    pub md5: [u8; 16],
    /// Its beginning.
    pub head: Vec<u8>,
    file: File,
}

impl Received {
    /// From this byte on.
    pub async fn read_from(&mut self, offset: u64) -> std::io::Result<Reading<'_>> {
        self.file.seek(SeekFrom::Start(offset)).await?;
        Ok(Reading { file: &mut self.file, buffer: vec![0; READ_BYTES] })
    }
}

/// Reads a body, piece by piece.
pub struct Reading<'r> {
    file: &'r mut File,
    buffer: Vec<u8>,
}

impl Reading<'_> {
    /// The next bytes; none behind the last.
    pub async fn next(&mut self) -> std::io::Result<&[u8]> {
        let read = self.file.read(&mut self.buffer).await?;
        Ok(&self.buffer[..read])
    }
}

/// Where bodies wait.
pub struct Spool {
    parts: Parts,
    folder: PathBuf,
    max_bytes: u64,
}

impl Spool {
    pub fn new(parts: Parts, max_bytes: u64) -> Self {
        Self { folder: parts.data_dir.join("spool"), parts, max_bytes }
    }

    pub async fn receive(&self, mut body: StreamingBlob, promised: Promised) -> S3Result<Received> {
        if promised.bytes.is_some_and(|bytes| bytes > self.max_bytes) {
            return Err(self.too_large());
        }
        let file = self.file().await.map_err(|error| unavailable("cannot make a file in the spool", &error))?;
        let mut received = Received { bytes: 0, md5: [0; 16], head: Vec::new(), file };
        let (mut md5, mut checksums) = (Md5::new(), all_checksums());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| broken_body(&error))?;
            received.bytes += piece.len() as u64;
            if received.bytes > self.max_bytes {
                return Err(self.too_large());
            }
            md5.update(&piece);
            checksums.update(&piece);
            let room = HEAD_BYTES.saturating_sub(received.head.len());
            received.head.extend_from_slice(&piece[..piece.len().min(room)]);
            let written = received.file.write_all(&piece).await;
            written.map_err(|error| unavailable("cannot write into the spool", &error))?;
        }
        let flushed = received.file.flush().await;
        flushed.map_err(|error| unavailable("cannot write into the spool", &error))?;
        received.md5.copy_from_slice(&md5.finalize());
        promised.check(&received, checksums.finalize())?;
        Ok(received)
    }

    /// A file without a name.
    async fn file(&self) -> std::io::Result<File> {
        tokio::fs::create_dir_all(&self.folder).await?;
        let path = self.folder.join(self.parts.clock.new_ulid().to_string());
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(file)
    }

    fn too_large(&self) -> S3Error {
        let words = format!("more than protocol.powerjob_s3.max_file_size, {} bytes", self.max_bytes);
        S3Error::with_message(S3ErrorCode::EntityTooLarge, words)
    }
}

fn all_checksums() -> ChecksumHasher {
    use s3s::crypto::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
    ChecksumHasher {
        crc32: Some(Crc32::new()),
        crc32c: Some(Crc32c::new()),
        sha1: Some(Sha1::new()),
        sha256: Some(Sha256::new()),
        crc64nvme: Some(Crc64Nvme::new()),
    }
}

/// s3s keeps the types of these errors to itself, so they are known by their names.
fn broken_body(error: &StdError) -> S3Error {
    let text = error.to_string();
    let code = match () {
        () if text.contains("SignatureMismatch") => S3ErrorCode::SignatureDoesNotMatch,
        () if text.contains("Sha256Mismatch") => S3ErrorCode::BadDigest,
        () => S3ErrorCode::IncompleteBody,
    };
    S3Error::with_message(code, format!("the body broke off or was changed on its way: {text}"))
}
