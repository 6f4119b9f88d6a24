//! What a file has in common with the log that is stored already.

use std::convert::Infallible;

use chrono_tz::Tz;

use super::spool::Received;
use crate::model::{LineRange, Record};
use crate::protocol::known::{Fingerprint, KnownLines, TooManyLines};
use crate::protocol::pieces::Pieces;
use crate::protocol::powerjob::log_file::LogFile;
use crate::protocol::powerjob::{Line, Parser};
use crate::read::{ReadError, Reader, View};

/// How the bytes of a stored log and of a file begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    Equal,
    /// The log is the beginning of the file, so many bytes of it.
    Prefix(u64),
    Differ,
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("read the stored log")]
    Read(#[from] ReadError),
    #[error("read the spool")]
    Spool(#[from] std::io::Error),
}

/// Compares byte by byte, in the memory of two blocks.
pub async fn bytes(reader: &Reader, view: &View, zone: Tz, received: &mut Received) -> Result<Bytes, CompareError> {
    let total = received.bytes;
    let mut log = LogFile::open(reader, view, view.attempt.lines(), zone);
    let mut file = received.read_from(0).await?;
    let (mut ours, mut compared) = (bytes::Bytes::new(), 0u64);
    loop {
        let mut theirs = file.next().await?;
        while !theirs.is_empty() {
            if ours.is_empty() {
                match log.next().await? {
                    Some(more) => ours = more,
                    None => return Ok(Bytes::Prefix(compared)),
                }
            }
            let len = ours.len().min(theirs.len());
            if ours[..len] != theirs[..len] {
                return Ok(Bytes::Differ);
            }
            compared += len as u64;
            ours = ours.slice(len..);
            theirs = &theirs[len..];
        }
        if compared == total {
            break;
        }
    }
    while ours.is_empty() {
        match log.next().await? {
            Some(more) => ours = more,
            None => return Ok(Bytes::Equal),
        }
    }
    Ok(Bytes::Differ)
}

/// Which lines of a file are stored nowhere yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Of each line of the file, or piece of a long one, counted from 0.
    pub is_missing: Vec<bool>,
    pub missing: usize,
}

impl Missing {
    pub fn known(&self) -> usize {
        self.is_missing.len() - self.missing
    }
}

/// Takes a stored log's lines into `known`; a line that is too long for one record in the pieces that a file has.
pub async fn add_log(
    reader: &Reader,
    view: &View,
    known: &mut KnownLines,
) -> Result<Result<(), TooManyLines>, ReadError> {
    let mut lines = reader.lines(view, LineRange::new(0, u64::MAX));
    let mut pieces = Pieces::default();
    while let Some(block) = lines.next().await? {
        for (_, json) in block.records() {
            let record = Record::parse_json(json)?;
            let mut added =
                pieces.push(&record.message_bytes(), |piece| known.add(Fingerprint::of_record(&record, piece)));
            if !record.partial {
                added = added.and_then(|()| known.add(Fingerprint::of_record(&record, pieces.rest())));
                pieces.clear();
            }
            if added.is_err() {
                return Ok(added);
            }
        }
    }
    Ok(Ok(()))
}

/// Looks for each line of the file in `known`, which loses those that are found.
pub async fn lines(received: &mut Received, mut parser: Parser, known: &mut KnownLines) -> std::io::Result<Missing> {
    let mut found = Missing::default();
    let mut judge = |line: Line<'_>| {
        let is_missing = !known.take(line.fingerprint());
        found.is_missing.push(is_missing);
        found.missing += usize::from(is_missing);
        Ok::<_, Infallible>(())
    };
    let mut reading = received.read_from(0).await?;
    loop {
        let piece = reading.next().await?;
        if piece.is_empty() {
            break;
        }
        let Ok(()) = parser.push(piece, &mut judge);
    }
    let Ok(()) = parser.finish(&mut judge);
    Ok(found)
}
