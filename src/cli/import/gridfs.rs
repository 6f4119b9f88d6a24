//! A `mongodump` of PowerJob's GridFS: `log.files.bson` and `log.chunks.bson`.
//!
//! The dump lists chunks in any order, so their places are indexed first; then each log is read by its chunks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bson::RawDocumentBuf;
use bson::oid::ObjectId;
use bytes::Bytes;

use super::mysql::InstanceTable;
use super::powerjob::{self, Facts, MAX_SAMPLES, Sample};
use super::report::Skip;
use super::{Found, Lines, Log, Source};
use crate::protocol::powerjob::{InstanceId, is_placeholder};

/// Names of the buckets that logs are in; `fs` is MongoDB's default.
const BUCKETS: [&str; 2] = ["log", "fs"];
/// Logs of a page.
const PAGE_LOGS: usize = 1_000;
/// 32 bytes of memory a chunk, half a GiB in all; chunks are 255 KiB, or a small log.
const MAX_CHUNKS: usize = 16 << 20;
/// MongoDB's limit is 16 MiB; more is no BSON.
const MAX_DOCUMENT_BYTES: u32 = 17 << 20;
/// A longer file is no placeholder.
const SMALL_BYTES: u64 = 256;

/// A dump whose chunks are indexed.
#[derive(Debug)]
pub(super) struct Dump {
    chunks: File,
    places: Vec<Place>,
    logs: std::vec::IntoIter<Judged>,
    pub(super) total: u64,
    pub(super) samples: Vec<Sample<Key>>,
    instances: Option<InstanceTable>,
    settings: powerjob::Settings,
}

/// Where a chunk is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: ObjectId,
    number: i32,
    offset: u64,
}

/// How a log is found again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    file: ObjectId,
    length: u64,
    chunk_bytes: u64,
}

#[derive(Debug)]
struct Stored {
    name: String,
    uploaded_at: i64,
    key: Key,
}

#[derive(Debug)]
struct Judged {
    name: String,
    key: Key,
    verdict: Result<InstanceId, Skip>,
}

/// The bucket's two files, in this folder or one right below it.
pub(super) fn find(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let below = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let below = below.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    for folder in std::iter::once(folder.to_owned()).chain(below) {
        for bucket in BUCKETS {
            let files = folder.join(format!("{bucket}.files.bson"));
            if files.is_file() {
                return Ok((files, folder.join(format!("{bucket}.chunks.bson"))));
            }
        }
    }
    bail!(
        "there is no log.files.bson or fs.files.bson in {}: dump with `mongodump --db powerjob --out FOLDER`, without --gzip",
        folder.display()
    )
}

impl Dump {
    pub(super) fn open(
        folder: &Path,
        instances: Option<InstanceTable>,
        settings: powerjob::Settings,
    ) -> anyhow::Result<Self> {
        let (files, chunks) = find(folder)?;
        let stored = read_files(&files).with_context(|| format!("read {}", files.display()))?;
        let opened = File::open(&chunks).with_context(|| format!("open {}", chunks.display()))?;
        let places = index(&opened).with_context(|| format!("read {}", chunks.display()))?;
        let mut dump = Self {
            chunks: opened,
            places,
            logs: Vec::new().into_iter(),
            total: stored.len() as u64,
            samples: Vec::new(),
            instances,
            settings,
        };
        let judged = dump.judge(stored)?;
        let samples = judged.iter().filter_map(|log| Some((log.key, log.verdict.ok()?)));
        dump.samples = samples.take(MAX_SAMPLES).collect();
        dump.logs = judged.into_iter();
        Ok(dump)
    }

    /// The newest copy of each log counts, unless it is a placeholder.
    fn judge(&self, stored: Vec<Stored>) -> anyhow::Result<Vec<Judged>> {
        let mut newest: HashMap<InstanceId, (i64, ObjectId)> = HashMap::new();
        let mut judged = Vec::with_capacity(stored.len());
        for Stored { name, uploaded_at, key } in stored {
            let verdict = match InstanceId::of_file(&name) {
                None => Err(Skip::NotALog),
                Some(_) if key.length <= SMALL_BYTES && self.is_placeholder(&key)? => Err(Skip::Placeholder),
                Some(id) => {
                    let of_this = (uploaded_at, key.file);
                    newest.entry(id).and_modify(|best| *best = of_this.max(*best)).or_insert(of_this);
                    Ok(id)
                }
            };
            judged.push(Judged { name, key, verdict });
        }
        for log in &mut judged {
            if let Ok(id) = log.verdict
                && newest.get(&id).is_some_and(|(_, file)| *file != log.key.file)
            {
                log.verdict = Err(Skip::OlderCopy);
            }
        }
        Ok(judged)
    }

    fn is_placeholder(&self, key: &Key) -> anyhow::Result<bool> {
        Ok(self.chunk(key, 0)?.is_some_and(|data| is_placeholder(&data)))
    }

    fn chunk(&self, key: &Key, number: i32) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.places.binary_search_by(|place| (place.file, place.number).cmp(&(key.file, number)));
        let Ok(at) = found else { return Ok(None) };
        let document = document_at(&self.chunks, self.places[at].offset)?;
        let data = document.get_binary("data").map_err(|error| anyhow::anyhow!("a chunk without data: {error}"))?;
        Ok(Some(data.bytes.to_vec()))
    }
}

fn document_at(file: &File, offset: u64) -> anyhow::Result<RawDocumentBuf> {
    let mut length = [0; 4];
    file.read_exact_at(&mut length, offset)?;
    let length = u32::from_le_bytes(length);
    ensure!(length <= MAX_DOCUMENT_BYTES, "a document of {length} bytes at {offset}: this is no BSON");
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    RawDocumentBuf::from_bytes(bytes).with_context(|| format!("decode the document at {offset}"))
}

/// Hands out each document with its offset, one at a time.
fn each_document(file: &File, mut take: impl FnMut(u64, &RawDocumentBuf) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut file = file;
    file.rewind()?;
    let end = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut offset = 0;
    while offset < end {
        let mut length = [0; 4];
        reader.read_exact(&mut length).context("the dump ends in the middle of a document")?;
        let size = u32::from_le_bytes(length);
        ensure!((5..=MAX_DOCUMENT_BYTES).contains(&size), "a document of {size} bytes at {offset}: this is no BSON");
        let mut bytes = length.to_vec();
        bytes.resize(size as usize, 0);
        reader.read_exact(&mut bytes[4..]).context("the dump ends in the middle of a document")?;
        let document = RawDocumentBuf::from_bytes(bytes).with_context(|| format!("decode the document at {offset}"))?;
        take(offset, &document)?;
        offset += u64::from(size);
    }
    Ok(())
}

fn read_files(path: &Path) -> anyhow::Result<Vec<Stored>> {
    let mut stored = Vec::new();
    each_document(&File::open(path)?, |offset, document| {
        let number = |name: &str| match document.get_i64(name) {
            Ok(number) => Ok(number),
            // The shell writes small numbers so.
            Err(_) => document.get_i32(name).map(i64::from),
        };
        let read = || {
            let file = document.get_object_id("_id")?;
            let key = Key {
                file,
                length: number("length")?.unsigned_abs(),
                chunk_bytes: number("chunkSize")?.unsigned_abs().max(1),
            };
            let uploaded_at = document.get_datetime("uploadDate")?.timestamp_millis();
            Ok::<_, bson::error::Error>(Stored { name: document.get_str("filename")?.to_owned(), uploaded_at, key })
        };
        stored.push(read().with_context(|| format!("the document at {offset} is no GridFS file"))?);
        Ok(())
    })?;
    Ok(stored)
}

fn index(chunks: &File) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::new();
    each_document(chunks, |offset, document| {
        ensure!(places.len() < MAX_CHUNKS, "more than {MAX_CHUNKS} chunks: dump the logs of fewer days at a time");
        let read = || {
            let (file, number) = (document.get_object_id("files_id")?, document.get_i32("n")?);
            Ok::<_, bson::error::Error>(Place { file, number, offset })
        };
        places.push(read().with_context(|| format!("the document at {offset} is no GridFS chunk"))?);
        Ok(())
    })?;
    places.sort_unstable();
    Ok(places)
}

impl Source for Dump {
    type Key = Key;

    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<Found<Key>>>> {
        let page: Vec<Judged> = self.logs.by_ref().take(PAGE_LOGS).collect();
        let ids: Vec<InstanceId> = page.iter().filter_map(|log| log.verdict.ok()).collect();
        let facts = powerjob::facts_of(self.instances.as_ref(), &ids).await?;
        let found = page.into_iter().map(|Judged { name, key, verdict }| match verdict {
            Ok(id) => Found::Log(Log {
                version: key.file.to_hex(),
                bytes: key.length,
                target: Facts::target(facts.get(&id).copied(), id),
                name,
                key,
            }),
            Err(why) => Found::Skipped { name, why },
        });
        let found: Vec<_> = found.collect();
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    async fn read(&self, key: &Key, offset: u64) -> anyhow::Result<Option<Bytes>> {
        if offset >= key.length {
            return Ok(Some(Bytes::new()));
        }
        let number = i32::try_from(offset / key.chunk_bytes).context("find a chunk")?;
        let Some(data) = self.chunk(key, number)? else { return Ok(None) };
        let skip = usize::try_from(offset % key.chunk_bytes).context("find a place in a chunk")?;
        // A chunk that ends too early is as bad as one that is not there.
        Ok(data.get(skip..).filter(|rest| !rest.is_empty()).map(Bytes::copy_from_slice))
    }

    fn lines(&self, log: &Log<Key>) -> Lines {
        self.settings.lines(&log.target)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bson::{Binary, DateTime, doc};
    use chrono_tz::Tz;

    use super::*;

    fn write(path: &Path, documents: &[bson::Document]) {
        let mut file = File::create(path).expect("made");
        for document in documents {
            file.write_all(&document.to_vec().expect("BSON")).expect("written");
        }
    }

    fn file(id: u8, name: &str, length: i64, day: i64) -> bson::Document {
        let (id, at) = (ObjectId::from_bytes([id; 12]), DateTime::from_millis(day * 86_400_000));
        doc! { "_id": id, "filename": name, "length": length, "chunkSize": 4_i32, "uploadDate": at }
    }

    fn chunk(file: u8, n: i32, data: &[u8]) -> bson::Document {
        let data = Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: data.to_vec() };
        doc! { "_id": ObjectId::from_bytes([100 + file; 12]), "files_id": ObjectId::from_bytes([file; 12]), "n": n, "data": data }
    }

    #[tokio::test]
    async fn a_dump_is_read_by_its_chunks() {
        let folder = tempfile::tempdir().expect("a folder");
        let dump = folder.path().join("powerjob");
        std::fs::create_dir(&dump).expect("made");
        let placeholder = b"SYSTEM: There is no online log for this job instance.";
        let files = [
            file(1, "oms-5.log", 3, 1),
            file(2, "oms-5.log", 10, 2),
            file(3, "oms-5.log", placeholder.len() as i64, 3),
            file(4, "oms-6.log", 0, 1),
            file(5, "oms-7.log", 8, 1),
            file(6, "x.txt", 1, 1),
        ];
        write(&dump.join("log.files.bson"), &files);
        let chunks = [
            chunk(2, 2, b"ij"),
            chunk(1, 0, b"old"),
            chunk(2, 0, b"abcd"),
            chunk(3, 0, placeholder),
            chunk(2, 1, b"efgh"),
            chunk(5, 0, b"half"),
        ];
        write(&dump.join("log.chunks.bson"), &chunks);
        let settings = powerjob::Settings { zone: Tz::UTC };
        let mut dump = Dump::open(folder.path(), None, settings).expect("a dump");
        let page = dump.next_page().await.expect("read").expect("a page");
        let (mut logs, mut skipped) = (Vec::new(), Vec::new());
        for found in page {
            match found {
                Found::Log(log) => logs.push(log),
                Found::Skipped { name, why } => skipped.push((name, why)),
            }
        }
        let named = |name: &str, why| (name.to_owned(), why);
        assert_eq!(
            skipped,
            [named("oms-5.log", Skip::OlderCopy), named("oms-5.log", Skip::Placeholder), named("x.txt", Skip::NotALog)]
        );
        assert!(dump.next_page().await.expect("read").is_none());
        let mut texts = Vec::new();
        for log in &logs {
            let mut text = Vec::new();
            let whole = loop {
                match dump.read(&log.key, text.len() as u64).await.expect("read") {
                    Some(piece) if piece.is_empty() => break true,
                    Some(piece) => text.extend_from_slice(&piece),
                    None => break false,
                }
            };
            texts.push((log.name.as_str(), String::from_utf8(text).expect("ASCII"), whole));
        }
        let text = |name, text: &str, whole| (name, text.to_owned(), whole);
        assert_eq!(
            texts,
            [text("oms-5.log", "abcdefghij", true), text("oms-6.log", "", true), text("oms-7.log", "half", false)]
        );
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = powerjob::Settings { zone: Tz::UTC };
        let error = Dump::open(folder.path(), None, settings).expect_err("empty");
        assert!(error.to_string().contains("mongodump"), "{error}");
        for name in ["fs.files.bson", "fs.chunks.bson"] {
            std::fs::write(folder.path().join(name), b"\x1f\x8b\x08\x00 gzip").expect("written");
        }
        assert!(Dump::open(folder.path(), None, settings).is_err());
    }
}
