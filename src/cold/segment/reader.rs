//! Reads lines of one attempt from its part: only the frames that may hold what is asked for.
//!
//! Frames that lie together are fetched by one ranged request; a gap is read over where that costs
//! less than another request. Forwards, the next frame is decompressed while one is looked at.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use memchr::memchr;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::cold::error::{Error, Result};
use crate::cold::keys::Key;
use crate::cold::store::Store;
use crate::model::{App, AttemptKey, AttemptNo, Bounds, Instance, LineRange, tail_start};

use super::codec::{Decoded, Malformed};
use super::extent::TsRange;
use super::filters::{SearchKeys, SearchMap};
use super::index::Index;
use super::place::{FrameMap, MappedFrame, Place};
use super::pull::Pull;
use super::{MAX_FRAME_BYTES, zframe};

/// Compressed bytes between two wanted frames that are read over: they arrive in the time that
/// another request takes to be answered by a store some milliseconds away.
const MAX_GAP_BYTES: u64 = 128 << 10;

/// Frames that one request for a page gets at most, after it has doubled from the first.
const MAX_RUN_FRAMES: usize = 16;

/// Compressed bytes that are held to read backwards.
const MAX_HELD_BYTES: u64 = 4 << 20;

/// A part as the catalog knows it: which object, where in it, and whose lines must be there.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub key: &'a Key,
    /// The object's length.
    pub byte_length: u64,
    pub place: &'a Place,
    pub attempt: &'a AttemptKey,
}

/// What to read of a part.
#[derive(Debug, Clone)]
pub struct Asked {
    pub lines: LineRange,
    /// Frames that cannot hold a record within them are left out.
    pub bounds: Bounds,
    /// From the last frame to the first.
    pub backwards: bool,
    /// How many lines are surely wanted: the first request gets no more frames than hold them.
    pub at_once: u64,
    /// Search filters, and what they must not rule out.
    pub search: Option<(Arc<SearchMap>, Arc<SearchKeys>)>,
    /// Lines as they stand in the object, where that is what they would be made into.
    pub ndjson: Option<Ndjson>,
}

/// How NDJSON lines are asked for.
#[derive(Debug, Clone)]
pub struct Ndjson {
    /// What each line must begin with; where a part says something else of its attempt, records come.
    pub head: Arc<[u8]>,
    /// Whether frames that hold nothing else may come as they are stored.
    pub frames: bool,
}

impl Asked {
    /// Whether a frame may hold what is asked for.
    fn may_hold(&self, frame: &MappedFrame, offset: u64) -> bool {
        let is_ruled_out = |(map, keys): &(Arc<SearchMap>, Arc<SearchKeys>)| {
            map.frame_at(offset).is_some_and(|frame| !map.may_hold(frame, keys))
        };
        self.bounds.may_hold(frame.levels, frame.ts.map(TsRange::ends))
            && !self.search.as_ref().is_some_and(is_ruled_out)
    }

    /// All of `lines`, forwards, with one request.
    pub fn all(lines: LineRange) -> Self {
        Self { lines, bounds: Bounds::default(), backwards: false, at_once: u64::MAX, search: None, ndjson: None }
    }
}

/// What reading has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartCost {
    /// Frames that were decompressed.
    pub frames: u64,
    /// Frames of wanted lines that were left out by their bounds.
    pub frames_skipped: u64,
    /// Bytes of the object that were asked for.
    pub bytes: u64,
}

/// Consecutive lines of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineBlock {
    pub first_line: u64,
    pub line_count: u64,
    /// Each ended by a newline.
    pub lines: Bytes,
    pub shape: Shape,
}

/// What the lines of a block are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// The records' own JSON.
    #[default]
    Records,
    /// NDJSON lines as they stand in the object, with the identity in front.
    Ndjson,
    /// The zstd frame of such lines, as it is stored.
    Frame,
}

/// The lines of a part that are asked for, frame by frame.
///
/// Holds two frames at a time. Gives all lines that may be wanted or an error, never fewer; between
/// blocks lines are missing only where the bounds leave frames out.
pub struct PartReader {
    store: Store,
    key: Key,
    attempt: Arc<AttemptKey>,
    ndjson: Option<Ndjson>,
    /// A frame of this part has shown that its lines begin as they were asked for.
    knows_head: bool,
    backwards: bool,
    /// In the order of reading.
    frames: VecDeque<WantedFrame>,
    /// How many frames the next request may get.
    run_frames: usize,
    /// Forwards: the open request, where its next byte stands, and where it ends.
    run: Option<(Pull, u64, u64)>,
    /// Backwards: frames that were fetched.
    held: VecDeque<(WantedFrame, Bytes)>,
    ahead: Option<Decoding>,
    cost: PartCost,
}

struct Decoding {
    frame: WantedFrame,
    task: JoinHandle<Decoded<(Bytes, Shape)>>,
}

/// What to take out of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedFrame {
    /// Where it begins in the object.
    pub offset: u64,
    pub compressed_len: u32,
    /// Bytes before the attempt's first line in this frame.
    pub skip: u32,
    /// Lines of the attempt that are not wanted.
    pub drop: u64,
    pub first_line: u64,
    pub take: u64,
    /// Between the attempt's first and last frame, so that it has no other lines, and all of it is wanted.
    pub is_all: bool,
}

impl WantedFrame {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.compressed_len.into())
    }
}

impl PartReader {
    /// Finds the frames that may hold what is asked for. No request, but one or two where the place
    /// has no frame map.
    pub async fn open(store: &Store, part: Part<'_>, asked: &Asked) -> Result<Self> {
        let place = part.place;
        let lines = asked.lines.intersect(place.lines());
        let mut cost = PartCost::default();
        let selected = match &place.frames {
            _ if lines.is_empty() => Ok(VecDeque::new()),
            Some(map) => select(map, place, lines, asked, &mut cost),
            None => {
                let index = Index::open(store, part.key, part.byte_length).await?;
                cost.bytes += index.bytes_read();
                select(&index.frame_map(place)?, place, lines, asked, &mut cost)
            }
        };
        let mut frames = selected.map_err(|wrong| Error::corrupt(part.key, wrong.0))?;
        if asked.backwards {
            frames.make_contiguous().reverse();
        }
        let mut at_once = 0u64;
        let run_frames = frames.iter().take_while(|frame| {
            let more = at_once < asked.at_once;
            at_once = at_once.saturating_add(frame.take);
            more
        });
        Ok(Self {
            run_frames: run_frames.count().max(1),
            store: store.clone(),
            key: part.key.clone(),
            attempt: Arc::new(part.attempt.clone()),
            ndjson: asked.ndjson.clone().filter(|_| !asked.backwards),
            knows_head: false,
            backwards: asked.backwards,
            frames,
            run: None,
            held: VecDeque::new(),
            ahead: None,
            cost,
        })
    }

    pub fn cost(&self) -> PartCost {
        self.cost
    }

    /// The wanted lines of the next frame; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<LineBlock>> {
        let frames_may_pass = self.ndjson.as_ref().is_some_and(|ndjson| ndjson.frames);
        if frames_may_pass && self.knows_head && self.frames.front().is_some_and(|frame| frame.is_all) {
            return self.pass_frame().await;
        }
        let current = match self.ahead.take() {
            Some(decoding) => decoding,
            None => match self.fetch().await? {
                Some((frame, compressed)) => self.decode(frame, compressed),
                None => return Ok(None),
            },
        };
        // What the open request brings anyway is decompressed while this frame is looked at.
        if self.run.is_some()
            && !frames_may_pass
            && let Some((frame, compressed)) = self.fetch().await?
        {
            self.ahead = Some(self.decode(frame, compressed));
        }
        let Decoding { frame, task } = current;
        let lines = task.await.unwrap_or(Err(Malformed("decoding it panicked")));
        let (lines, shape) = lines.map_err(|wrong| Error::corrupt(&self.key, wrong.0))?;
        self.knows_head = shape == Shape::Ndjson;
        Ok(Some(LineBlock { first_line: frame.first_line, line_count: frame.take, lines, shape }))
    }

    /// The next frame as it is. Its checksum is for whoever decompresses it; whose lines it holds, the frame before
    /// has shown.
    async fn pass_frame(&mut self) -> Result<Option<LineBlock>> {
        let Some((frame, lines)) = self.fetch().await? else { return Ok(None) };
        zframe::check_end(&lines).map_err(|wrong| Error::corrupt(&self.key, wrong.0))?;
        let (first_line, line_count) = (frame.first_line, frame.take);
        Ok(Some(LineBlock { first_line, line_count, lines, shape: Shape::Frame }))
    }

    fn decode(&mut self, frame: WantedFrame, compressed: Bytes) -> Decoding {
        self.cost.frames += 1;
        let (attempt, head) = (Arc::clone(&self.attempt), self.ndjson.as_ref().map(|ndjson| Arc::clone(&ndjson.head)));
        let task = tokio::task::spawn_blocking(move || {
            let raw = zframe::decompress(&compressed, MAX_FRAME_BYTES)?;
            if let Some(head) = head
                && let Some(lines) = lines_with(&raw, frame, &head)?
            {
                return Ok((Bytes::from(raw).slice(lines), Shape::Ndjson));
            }
            Ok((extract(&raw, frame, &attempt)?.into(), Shape::Records))
        });
        Decoding { frame, task }
    }

    /// The next frame's bytes.
    async fn fetch(&mut self) -> Result<Option<(WantedFrame, Bytes)>> {
        if self.backwards { self.fetch_backwards().await } else { self.fetch_forwards().await }
    }

    async fn fetch_forwards(&mut self) -> Result<Option<(WantedFrame, Bytes)>> {
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        let (mut pull, at, end) = match self.run.take() {
            Some(run) => run,
            None => {
                let most = self.next_run() - 1;
                let more = run_len(&frame, self.frames.make_contiguous(), most, u64::MAX);
                let end = more.checked_sub(1).map_or(&frame, |last| &self.frames[last]).end();
                self.cost.bytes += end - frame.offset;
                let stream = self.store.stream_range(&self.key, frame.offset..end).await?;
                (Pull::new(self.key.clone(), stream), frame.offset, end)
            }
        };
        pull.take(frame.offset - at).await?;
        let compressed = pull.take(frame.compressed_len.into()).await?;
        self.run = (frame.end() < end).then_some((pull, frame.end(), end));
        Ok(Some((frame, compressed)))
    }

    async fn fetch_backwards(&mut self) -> Result<Option<(WantedFrame, Bytes)>> {
        if self.held.is_empty() {
            let Some(last) = self.frames.pop_front() else { return Ok(None) };
            let most = self.next_run() - 1;
            let more = run_len(&last, self.frames.make_contiguous(), most, MAX_HELD_BYTES);
            let mut run = vec![last];
            run.extend(self.frames.drain(..more));
            let (start, end) = (run[run.len() - 1].offset, last.end());
            self.cost.bytes += end - start;
            let bytes = self.store.get_range(&self.key, start..end).await?;
            self.held = run
                .into_iter()
                .map(|frame| (frame, bytes.slice((frame.offset - start) as usize..(frame.end() - start) as usize)))
                .collect();
        }
        Ok(self.held.pop_front())
    }

    /// How many frames this request may get; the next one twice as many.
    fn next_run(&mut self) -> usize {
        let frames = self.run_frames;
        self.run_frames = frames.saturating_mul(2).min(MAX_RUN_FRAMES).max(frames);
        frames
    }

    /// The same as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<LineBlock>> {
        let blocks =
            stream::try_unfold(self, |mut reader| async move { Ok(reader.next().await?.map(|block| (block, reader))) });
        blocks.boxed()
    }
}

/// How many of `rest` are fetched together with `first`: at most `most`, none behind a large gap, and
/// no more than `max_bytes` in all.
fn run_len(first: &WantedFrame, rest: &[WantedFrame], most: usize, max_bytes: u64) -> usize {
    let (mut before, mut len) = (first, 0);
    for frame in rest.iter().take(most) {
        let gap = frame.offset.saturating_sub(before.end()).max(before.offset.saturating_sub(frame.end()));
        let bytes = frame.end().max(first.end()) - frame.offset.min(first.offset);
        if gap > MAX_GAP_BYTES || bytes > max_bytes {
            break;
        }
        (before, len) = (frame, len + 1);
    }
    len
}

/// The frames that may hold what is wanted of `lines` (not empty, inside of the place).
fn select(
    map: &FrameMap,
    place: &Place,
    lines: LineRange,
    asked: &Asked,
    cost: &mut PartCost,
) -> Decoded<VecDeque<WantedFrame>> {
    let (mut line, mut offset) = (place.first_line, place.byte_offset);
    let mut frames = VecDeque::new();
    for (i, frame) in map.frames().iter().enumerate() {
        let end = line.checked_add(frame.lines).ok_or(Malformed("its frame map has too many lines"))?;
        let here = LineRange::new(line, end).intersect(lines);
        if !here.is_empty() {
            if asked.may_hold(frame, offset) {
                let skip = if i == 0 { place.skip } else { 0 };
                let (drop, take, compressed_len) = (here.start() - line, here.len(), frame.compressed_len);
                let is_all = i > 0 && i + 1 < map.frames().len() && take == frame.lines;
                let first_line = here.start();
                frames.push_back(WantedFrame { offset, compressed_len, skip, drop, first_line, take, is_all });
            } else {
                cost.frames_skipped += 1;
            }
        }
        (line, offset) = (end, offset.saturating_add(frame.compressed_len.into()));
    }
    if line == place.lines().end() { Ok(frames) } else { Err(Malformed("its frame map and its part disagree")) }
}

/// Takes the wanted lines out of a decompressed frame, after checking whose they are.
pub(super) fn extract(raw: &[u8], frame: WantedFrame, attempt: &AttemptKey) -> Decoded<Vec<u8>> {
    let mut rest = &raw[start_of(raw, frame)?..];
    let mut out =
        Vec::with_capacity(rest.len().min(usize::try_from(frame.take.saturating_mul(256)).unwrap_or(usize::MAX)));
    // The head is the same on all lines of an attempt, so looking for its end once is enough.
    let mut head: &[u8] = b"";
    for _ in 0..frame.take {
        let line = take_line(&mut rest).ok_or(TOO_FEW)?;
        if head.is_empty() || !line.strip_prefix(head).is_some_and(|tail| tail.starts_with(b"\"ts\":")) {
            let len = tail_start(line).map_err(|_| Malformed("a line is not a record"))?;
            head = &line[..len];
            check_owner(head, attempt)?;
        }
        out.push(b'{');
        out.extend_from_slice(&line[head.len()..]);
    }
    Ok(out)
}

/// Where the wanted lines of a frame stand, if each begins with `head`, which also says whose they are.
fn lines_with(raw: &[u8], frame: WantedFrame, head: &[u8]) -> Decoded<Option<Range<usize>>> {
    let start = start_of(raw, frame)?;
    let mut rest = &raw[start..];
    for _ in 0..frame.take {
        let line = take_line(&mut rest).ok_or(TOO_FEW)?;
        if !line.strip_prefix(head).is_some_and(|tail| tail.starts_with(b"\"ts\":")) {
            return Ok(None);
        }
    }
    Ok(Some(start..raw.len() - rest.len()))
}

/// Where the first wanted line begins.
fn start_of(raw: &[u8], frame: WantedFrame) -> Decoded<usize> {
    let mut rest = raw.get(frame.skip as usize..).ok_or(TOO_FEW)?;
    for _ in 0..frame.drop {
        take_line(&mut rest).ok_or(TOO_FEW)?;
    }
    Ok(raw.len() - rest.len())
}

const TOO_FEW: Malformed = Malformed("a frame holds fewer lines than recorded");

/// The next line with its newline.
pub(super) fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (line, after) = rest.split_at(memchr(b'\n', rest)? + 1);
    *rest = after;
    Some(line)
}

/// A wrong offset would show one attempt's log under another's name; the lines themselves say whose they are.
fn check_owner(head: &[u8], attempt: &AttemptKey) -> Decoded<()> {
    match owner_of(head) {
        Ok(owner) if owner == *attempt => Ok(()),
        _ => Err(Malformed("the lines at this place are another attempt's")),
    }
}

/// Whose lines begin with this head.
pub(super) fn owner_of(head: &[u8]) -> Decoded<AttemptKey> {
    #[derive(Deserialize)]
    struct Owner {
        app: App,
        instance: Instance,
        #[serde(default)]
        attempt: AttemptNo,
    }
    let wrong = Malformed("a line does not say whose it is");
    let object = [head.strip_suffix(b",").ok_or(wrong)?, b"}"].concat();
    let Owner { app, instance, attempt } = serde_json::from_slice(&object).map_err(|_| wrong)?;
    Ok(AttemptKey { app, instance, attempt })
}
