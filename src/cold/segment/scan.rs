//! Looks through whole frames for attempts that may hold what is searched for, whoever they are.
//!
//! Many small attempts share a frame; here it is fetched and decompressed once for all of them.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use tokio::task::JoinHandle;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::Store;
use crate::model::{AttemptKey, tail_start};

use super::codec::{Decoded, Malformed};
use super::filters::SearchMap;
use super::reader::{WantedFrame, extract, owner_of};
use super::zframe;

/// Says of one line, as it stands in the object, whether it may match.
pub type MayMatch = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What to look for. Both parts may say yes too often, and never no to a match.
pub struct Probe {
    /// Bytes that stand in every line that matches.
    pub needle: Option<memmem::Finder<'static>>,
    pub may_match: MayMatch,
}

/// A frame with lines that may match.
#[derive(Debug, Clone)]
pub struct ScannedFrame {
    /// Its position in the object.
    pub frame: usize,
    /// Whose lines they are, in the order of the frame.
    pub owners: Vec<AttemptKey>,
    raw: Bytes,
}

impl ScannedFrame {
    /// The records of `owner`: `take` lines behind the first `skip` bytes.
    pub fn records(&self, key: &Key, owner: &AttemptKey, skip: u32, take: u64) -> Result<Bytes> {
        let wanted = WantedFrame { offset: 0, compressed_len: 0, skip, drop: 0, first_line: 0, take, is_all: false };
        let records = extract(&self.raw, wanted, owner);
        records.map(Bytes::from).map_err(|wrong| Error::corrupt(key, wrong.0))
    }
}

/// Frames under way: fetched, and being decompressed on threads of their own.
pub struct Scanning {
    key: Key,
    tasks: Vec<JoinHandle<Decoded<ScannedFrame>>>,
}

impl Scanning {
    /// Fetches some frames, which stand in ascending order, with one request.
    pub async fn begin(
        store: &Store,
        key: &Key,
        map: &SearchMap,
        frames: &[usize],
        probe: &Arc<Probe>,
    ) -> Result<Self> {
        let end_of = |frame: usize| map.offset(frame + 1);
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(Self { key: key.clone(), tasks: Vec::new() });
        };
        let start = map.offset(*first);
        let bytes = store.get_range(key, start..end_of(*last)).await?;
        let task = |frame: &usize| {
            let compressed = bytes.slice((map.offset(*frame) - start) as usize..(end_of(*frame) - start) as usize);
            let (frame, probe, raw_len) = (*frame, Arc::clone(probe), map.frames()[*frame].raw_len as usize);
            tokio::task::spawn_blocking(move || {
                let raw = zframe::decompress(&compressed, raw_len)?;
                let owners = owners(&raw, &probe)?;
                let raw = if owners.is_empty() { Bytes::new() } else { raw.into() };
                Ok(ScannedFrame { frame, owners, raw })
            })
        };
        Ok(Self { key: key.clone(), tasks: frames.iter().map(task).collect() })
    }

    /// Waits for all of them; those without a line that may match are left out.
    pub async fn end(self) -> Result<Vec<ScannedFrame>> {
        let mut frames = Vec::new();
        for task in self.tasks {
            let scanned = task.await.unwrap_or(Err(Malformed("decoding it panicked")));
            let scanned = scanned.map_err(|wrong| Error::corrupt(&self.key, wrong.0))?;
            if !scanned.owners.is_empty() {
                frames.push(scanned);
            }
        }
        Ok(frames)
    }
}

/// The attempts of a frame with a line that may match; consecutive ones differ.
fn owners(raw: &[u8], probe: &Probe) -> Decoded<Vec<AttemptKey>> {
    let (mut owners, mut known): (Vec<AttemptKey>, &[u8]) = (Vec::new(), b"");
    let mut at = 0;
    while at < raw.len() {
        let found = match &probe.needle {
            Some(needle) => match needle.find(&raw[at..]) {
                Some(found) => at + found,
                None => break,
            },
            None => at,
        };
        let start = memchr::memrchr(b'\n', &raw[..found]).map_or(0, |newline| newline + 1);
        let end = memchr::memchr(b'\n', &raw[found..]).map_or(raw.len(), |newline| found + newline);
        let line = &raw[start..end];
        at = end + 1;
        // One line is enough to look at the attempt.
        let is_known = !known.is_empty() && line.strip_prefix(known).is_some_and(|tail| tail.starts_with(b"\"ts\":"));
        if is_known || !(probe.may_match)(line) {
            continue;
        }
        known = &line[..tail_start(line).map_err(|_| Malformed("a line is not a record"))?];
        let owner = owner_of(known)?;
        if owners.last() != Some(&owner) {
            owners.push(owner);
        }
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_with_a_match_are_named_and_each_once() {
        let line = |instance: &str, message: &str| {
            format!(
                "{{\"app\":\"a\",\"instance\":\"{instance}\",\"ts\":\"1970-01-01T00:00:00Z\",\"message\":\"{message}\"}}\n"
            )
        };
        let raw = [line("x", "no"), line("y", "yes"), line("y", "yes"), line("yes", "no"), line("z", "yes")].concat();
        let check = |needle: Option<&str>, expected: &[&str]| {
            let needle = needle.map(|needle| memmem::Finder::new(needle).into_owned());
            let may_match = Box::new(|line: &[u8]| memmem::find(line, b":\"yes\"}").is_some());
            let found = owners(raw.as_bytes(), &Probe { needle, may_match }).expect("a frame");
            assert_eq!(found.iter().map(|key| key.instance.as_str()).collect::<Vec<_>>(), expected);
        };
        check(Some("yes"), &["y", "z"]);
        check(None, &["y", "z"]);
        check(Some("nowhere"), &[]);
    }
}
