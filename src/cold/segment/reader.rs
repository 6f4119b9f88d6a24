//! Reads lines of one attempt from its part, with one ranged request.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use memchr::memchr;
use serde::Deserialize;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::Store;
use crate::model::{App, AttemptKey, AttemptNo, Instance, LineRange, tail_start};

use super::codec::{Decoded, Malformed};
use super::index::Index;
use super::place::{FrameMap, Place};
use super::pull::Pull;
use super::{MAX_FRAME_BYTES, zframe};

/// A part as the catalog knows it: which object, where in it, and whose lines must be there.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub key: &'a Key,
    /// The object's length.
    pub byte_length: u64,
    pub place: &'a Place,
    pub attempt: &'a AttemptKey,
}

/// Consecutive lines of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineBlock {
    pub first_line: u64,
    pub line_count: u64,
    /// Each ended by a newline.
    pub lines: Bytes,
}

/// The lines of a part that are in a wanted range, frame by frame.
///
/// Holds one frame at a time. Gives all wanted lines or an error, never fewer.
pub struct PartReader {
    pull: Pull,
    frames: VecDeque<WantedFrame>,
    next_line: u64,
    attempt: Arc<AttemptKey>,
    whole_lines: bool,
}

/// What to take out of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WantedFrame {
    compressed_len: u32,
    /// Bytes before the attempt's first line in this frame.
    skip: u32,
    /// Lines of the attempt that are not wanted.
    drop: u64,
    take: u64,
}

impl PartReader {
    /// Asks for the frames that hold the `wanted` lines, as far as the part has them.
    ///
    /// One request; one or two more before it where the place has no frame map.
    pub async fn open(store: &Store, part: Part<'_>, wanted: LineRange) -> Result<Self> {
        let place = part.place;
        let wanted = wanted.intersect(place.lines());
        let attempt = Arc::new(part.attempt.clone());
        let (frames, offset) = if wanted.is_empty() {
            (VecDeque::new(), 0)
        } else {
            match &place.frames {
                Some(map) => select(map, place, wanted),
                None => {
                    let index = Index::open(store, part.key, part.byte_length).await?;
                    select(&index.frame_map(place)?, place, wanted)
                }
            }
            .map_err(|wrong| Error::corrupt(part.key, wrong.0))?
        };
        let len: u64 = frames.iter().map(|frame| u64::from(frame.compressed_len)).sum();
        let stream = store.stream_range(part.key, offset..offset.saturating_add(len)).await?;
        let pull = Pull::new(part.key.clone(), stream);
        Ok(Self { pull, frames, next_line: wanted.start(), attempt, whole_lines: false })
    }

    /// Gives the NDJSON lines as they stand in the object, with the identity in front, instead of the
    /// records' own JSON.
    pub fn whole_lines(mut self) -> Self {
        self.whole_lines = true;
        self
    }

    /// The wanted lines of the next frame; `None` after the last wanted line.
    pub async fn next(&mut self) -> Result<Option<LineBlock>> {
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        let compressed = self.pull.take(frame.compressed_len.into()).await?;
        let (attempt, whole_lines) = (Arc::clone(&self.attempt), self.whole_lines);
        let extracted = tokio::task::spawn_blocking(move || {
            let raw = zframe::decompress(&compressed, MAX_FRAME_BYTES)?;
            extract(&raw, frame, &attempt, whole_lines)
        });
        let extracted = extracted.await.unwrap_or(Err(Malformed("decoding it panicked")));
        let lines = extracted.map_err(|wrong| Error::corrupt(self.pull.key(), wrong.0))?;
        let first_line = self.next_line;
        self.next_line += frame.take;
        Ok(Some(LineBlock { first_line, line_count: frame.take, lines: lines.into() }))
    }

    /// The same as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<LineBlock>> {
        let blocks =
            stream::try_unfold(self, |mut reader| async move { Ok(reader.next().await?.map(|block| (block, reader))) });
        blocks.boxed()
    }
}

/// The frames that hold `wanted` (not empty, inside of the place), and where the first begins.
fn select(map: &FrameMap, place: &Place, wanted: LineRange) -> Decoded<(VecDeque<WantedFrame>, u64)> {
    let (mut line, mut offset) = (place.first_line, place.byte_offset);
    let (mut frames, mut start) = (VecDeque::new(), None);
    for (i, frame) in map.frames().iter().enumerate() {
        let end = line.checked_add(frame.lines).ok_or(Malformed("its frame map has too many lines"))?;
        let here = LineRange::new(line, end).intersect(wanted);
        if !here.is_empty() {
            start.get_or_insert(offset);
            let skip = if i == 0 { place.skip } else { 0 };
            let (drop, take) = (here.start() - line, here.len());
            frames.push_back(WantedFrame { compressed_len: frame.compressed_len, skip, drop, take });
        }
        (line, offset) = (end, offset.saturating_add(frame.compressed_len.into()));
    }
    match start {
        Some(start) if line == place.lines().end() => Ok((frames, start)),
        _ => Err(Malformed("its frame map and its part disagree")),
    }
}

/// Takes the wanted lines out of a decompressed frame, after checking whose they are.
fn extract(raw: &[u8], frame: WantedFrame, attempt: &AttemptKey, whole_lines: bool) -> Decoded<Vec<u8>> {
    let too_few = Malformed("a frame holds fewer lines than recorded");
    let mut rest = raw.get(frame.skip as usize..).ok_or(too_few)?;
    for _ in 0..frame.drop {
        take_line(&mut rest).ok_or(too_few)?;
    }
    let mut out = Vec::new();
    // The head is the same on all lines of an attempt, so looking for its end once is enough.
    let mut head: &[u8] = b"";
    for _ in 0..frame.take {
        let line = take_line(&mut rest).ok_or(too_few)?;
        if head.is_empty() || !line.strip_prefix(head).is_some_and(|tail| tail.starts_with(b"\"ts\":")) {
            let len = tail_start(line).map_err(|_| Malformed("a line is not a record"))?;
            head = &line[..len];
            check_owner(head, attempt)?;
        }
        if whole_lines {
            out.extend_from_slice(line);
        } else {
            out.push(b'{');
            out.extend_from_slice(&line[head.len()..]);
        }
    }
    Ok(out)
}

/// The next line with its newline.
pub(super) fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (line, after) = rest.split_at(memchr(b'\n', rest)? + 1);
    *rest = after;
    Some(line)
}

/// A wrong offset would show one attempt's log under another's name; the lines themselves say whose they are.
fn check_owner(head: &[u8], attempt: &AttemptKey) -> Decoded<()> {
    #[derive(Deserialize)]
    struct Owner {
        app: App,
        instance: Instance,
        #[serde(default)]
        attempt: AttemptNo,
    }
    let wrong = Malformed("the lines at this place are another attempt's");
    let object = [head.strip_suffix(b",").ok_or(wrong)?, b"}"].concat();
    let owner: Owner = serde_json::from_slice(&object).map_err(|_| wrong)?;
    let is_same = (&owner.app, &owner.instance, owner.attempt) == (&attempt.app, &attempt.instance, attempt.attempt);
    if is_same { Ok(()) } else { Err(wrong) }
}
