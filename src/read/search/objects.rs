//! A search object by object, through the frames that may hold a match.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use ulid::Ulid;

use super::{Finds, SearchRequest};
use crate::catalog::{MAX_PARTS, Part, Segment, SegmentCursor};
use crate::cold::segment::{Probe, ScannedFrame, Scanning, SearchKeys, SearchMap};
use crate::cold::{self, Key, ObjectName};
use crate::db::{self, Db};
use crate::model::{App, AttemptKey, LineRange, Record, RuleName};
use crate::read::sieve::Sieve;
use crate::read::{Block, Cost, Filter, Needle, ReadError, Reader, Shape, Tier, View};

/// Frames that are fetched with one request and decompressed at the same time. With two such batches
/// under way, a search holds some 50 MB.
const BATCH_FRAMES: usize = 8;
const BATCH_BYTES: u64 = 16 << 20;

/// Batches under way: one is looked at while the next is fetched and decompressed.
const BATCHES: usize = 2;

/// Compressed bytes between two frames of a batch that are fetched along.
const MAX_GAP_BYTES: u64 = 128 << 10;

/// How often the list of objects is read again for those that appeared meanwhile.
const MAX_PASSES: u32 = 10;

/// All live objects, one after the other.
pub(super) struct Objects {
    reader: Reader,
    request: Arc<SearchRequest>,
    probe: Arc<Probe>,
    keys: Arc<SearchKeys>,
    lists: Vec<ServerList>,
    /// 16 bytes for each object there is.
    seen: HashSet<Ulid>,
    passes: u32,
    found_new: bool,
    current: Option<Object>,
}

/// The objects of one server that are still to come.
struct ServerList {
    db: Arc<Db>,
    queue: VecDeque<Segment>,
    /// Where the list goes on; `None` behind its end.
    after: Option<SegmentCursor>,
}

/// One object under way.
struct Object {
    segment: Segment,
    db: Arc<Db>,
    key: Key,
    map: Arc<SearchMap>,
    /// Frames that may hold a match, from the end of the object.
    batches: VecDeque<Vec<usize>>,
    running: FuturesOrdered<BoxFuture<'static, cold::Result<Vec<ScannedFrame>>>>,
    ready: VecDeque<Unit>,
}

/// One attempt's frames of a batch.
struct Unit {
    owner: AttemptKey,
    frames: Vec<Arc<ScannedFrame>>,
}

impl Objects {
    pub fn new(reader: Reader, request: &Arc<SearchRequest>) -> Self {
        let texts = request.filter.texts();
        let mut objects = Self {
            probe: Arc::new(probe(&request.filter, &texts)),
            keys: Arc::new(SearchKeys::of(&texts)),
            request: Arc::clone(request),
            lists: Vec::new(),
            seen: HashSet::new(),
            passes: 0,
            found_new: false,
            current: None,
            reader,
        };
        objects.begin_pass();
        objects
    }

    fn begin_pass(&mut self) {
        let servers = self.reader.catalog.cluster.servers().iter();
        let list =
            |db: &Arc<Db>| ServerList { db: Arc::clone(db), queue: VecDeque::new(), after: Some(SegmentCursor::START) };
        self.lists = servers.map(list).collect();
        self.passes += 1;
        self.found_new = false;
    }

    /// Takes the next step, and shows what it finds; false at the end.
    pub async fn next(
        &mut self,
        finds: &mut Finds,
        show: &mut impl FnMut(&View, u64, &[u8]),
    ) -> Result<bool, ReadError> {
        let Some(object) = &mut self.current else { return self.next_object(finds).await };
        if let Some(unit) = object.ready.pop_front() {
            let place = (object.key.clone(), object.segment.ulid, Arc::clone(&object.map));
            return self.look_at(unit, place, finds, show).await.map(|()| true);
        }
        while object.running.len() < BATCHES
            && let Some(frames) = object.batches.pop_front()
        {
            let (store, key, map, probe) =
                (self.reader.store.clone(), object.key.clone(), Arc::clone(&object.map), Arc::clone(&self.probe));
            let scan = async move { Scanning::begin(&store, &key, &map, &frames, &probe).await?.end().await };
            object.running.push_back(Box::pin(scan));
        }
        match object.running.next().await {
            Some(Ok(frames)) => object.ready = units(frames),
            Some(Err(error)) => self.vanished_or(error.into()).await?,
            None => self.current = None,
        }
        Ok(true)
    }

    /// Opens the next object; false where there is none.
    async fn next_object(&mut self, finds: &mut Finds) -> Result<bool, ReadError> {
        let Some((db, segment)) = self.next_segment().await? else {
            // A pass that found nothing new ends it.
            if !self.found_new {
                return Ok(false);
            }
            if self.passes >= MAX_PASSES {
                finds.progress.cut = Some("objects were rewritten faster than they could be searched");
                return Ok(false);
            }
            self.begin_pass();
            return Ok(true);
        };
        if !self.seen.insert(segment.ulid) {
            return Ok(true);
        }
        self.found_new = true;
        let key = self.key_of(&db, &segment).await?;
        let empty = Arc::new(SearchMap::empty());
        let (batches, running, ready) = (VecDeque::new(), FuturesOrdered::new(), VecDeque::new());
        let mut object = Object { segment, db, key, map: empty, batches, running, ready };
        match self.reader.map_of(&object.key, &object.segment).await {
            Ok((map, fetched)) => {
                object.map = map;
                let before = finds.progress;
                finds.progress.bytes += fetched;
                object.batches = self.select(&object.map, finds);
                let cost = Cost {
                    frames: finds.progress.frames - before.frames,
                    frames_skipped: finds.progress.frames_skipped - before.frames_skipped,
                    bytes: finds.progress.bytes - before.bytes,
                    ..Cost::default()
                };
                cost.count(&self.reader.metrics);
                self.current = (!object.batches.is_empty()).then_some(object);
            }
            Err(error) => {
                self.current = Some(object);
                self.vanished_or(error).await?;
            }
        }
        Ok(true)
    }

    /// The newest of all servers' objects that are still to come.
    async fn next_segment(&mut self) -> Result<Option<(Arc<Db>, Segment)>, ReadError> {
        for list in &mut self.lists {
            while list.queue.is_empty()
                && let Some(after) = list.after
            {
                let app = self.request.among.app.as_ref();
                let (segments, next) = self.reader.catalog.live_segments(&list.db, app, after).await?;
                (list.queue, list.after) = (segments.into(), next);
            }
        }
        let newest = |list: &&mut ServerList| list.queue.front().map(|segment| (segment.finish_day, segment.ulid));
        let list = self.lists.iter_mut().max_by_key(newest);
        Ok(list.and_then(|list| list.queue.pop_front().map(|segment| (Arc::clone(&list.db), segment))))
    }

    async fn key_of(&mut self, db: &Arc<Db>, segment: &Segment) -> Result<Key, ReadError> {
        let catalog = &self.reader.catalog;
        let (app, rule) = (catalog.name(db, segment.app_id).await?, catalog.name(db, segment.rule_id).await?);
        let app: App = app.parse().map_err(|_| db::Error::Row(format!("app name \"{app}\"")))?;
        let rule: RuleName = rule.parse().map_err(|_| db::Error::Row(format!("rule name \"{rule}\"")))?;
        Ok(ObjectName { app, rule, finish_day: segment.finish_day, ulid: segment.ulid }.key())
    }

    /// The frames that may hold a match, in batches from the end of the object.
    fn select(&self, map: &SearchMap, finds: &mut Finds) -> VecDeque<Vec<usize>> {
        let bounds = self.request.filter.bounds();
        let may_match = |(frame, info): &(usize, &cold::segment::FrameInfo)| {
            bounds.may_hold(info.extent.levels, info.extent.ts.map(|ts| ts.ends())) && map.may_hold(*frame, &self.keys)
        };
        let frames: Vec<usize> = map.frames().iter().enumerate().filter(may_match).map(|(frame, _)| frame).collect();
        let progress = &mut finds.progress;
        progress.frames += frames.len() as u64;
        progress.frames_skipped += (map.frames().len() - frames.len()) as u64;
        *(if frames.is_empty() { &mut progress.objects_skipped } else { &mut progress.objects }) += 1;
        let mut batches: VecDeque<Vec<usize>> = VecDeque::new();
        let mut raw_bytes = 0u64;
        for frame in frames.into_iter().rev() {
            let raw = u64::from(map.frames()[frame].raw_len);
            let end = map.offset(frame + 1);
            match batches.back_mut() {
                Some(batch)
                    if batch.len() < BATCH_FRAMES
                        && raw_bytes + raw <= BATCH_BYTES
                        && map.offset(batch[batch.len() - 1]) - end <= MAX_GAP_BYTES =>
                {
                    batch.push(frame);
                    raw_bytes += raw;
                }
                _ => {
                    batches.push_back(vec![frame]);
                    raw_bytes = raw;
                }
            }
        }
        for batch in &mut batches {
            batch.reverse();
            let (first, last) = (batch[0], batch[batch.len() - 1]);
            progress.bytes += map.offset(last + 1) - map.offset(first);
        }
        batches
    }

    /// Looks at what an attempt has in some frames, as far as the catalog says that it is its.
    async fn look_at(
        &mut self,
        unit: Unit,
        (key, object, map): (Key, Ulid, Arc<SearchMap>),
        finds: &mut Finds,
        show: &mut impl FnMut(&View, u64, &[u8]),
    ) -> Result<(), ReadError> {
        let AttemptKey { app, instance, attempt } = &unit.owner;
        let view = match self.reader.open(app, instance, Some(*attempt)).await {
            Ok(view) => view,
            Err(ReadError::Gone { .. } | ReadError::NeverLogged) => return Ok(()),
            Err(error) => return Err(error),
        };
        finds.progress.scanned += 1;
        let parts = parts_in(&self.reader, &view, object).await?;
        let mut sieve = Sieve::new(self.request.filter.clone());
        let mut lines = self.reader.lines(&view, LineRange::new(0, 0));
        for frame in &unit.frames {
            for (part_lines, skip) in parts.iter().filter_map(|part| lines_in(part, &map, frame.frame)) {
                let records = frame.records(&key, &unit.owner, skip, part_lines.len())?;
                let block = Block { lines: part_lines, records, shape: Shape::Records, tier: Tier::Cold };
                let mut shown = |line: u64, json: &[u8]| {
                    if finds.take(&view, line) {
                        show(&view, line, json);
                    }
                    Ok(std::ops::ControlFlow::Continue(()))
                };
                let _ = sieve.sift(&mut lines, &block, &mut shown).await?;
            }
        }
        Ok(())
    }

    /// An object that is not there because it was rewritten or died is passed over: what still lives
    /// of it is in another, which the next pass finds.
    async fn vanished_or(&mut self, error: ReadError) -> Result<(), ReadError> {
        let object = self.current.take().map(|object| (object.db, object.segment.id));
        if let (ReadError::Cold(cold::Error::NotFound { .. }), Some((db, id))) = (&error, object)
            && !self.reader.catalog.is_live(&db, id).await?
        {
            return Ok(());
        }
        Err(error)
    }
}

fn probe(filter: &Filter, texts: &[String]) -> Probe {
    let filter = filter.clone();
    let may_match = move |line: &[u8]| {
        // What cannot be read is said where it is shown.
        Record::parse_json(line).map_or(true, |record| {
            // A record without a level may have that of another.
            let level = filter.level.is_none_or(|least| record.level.is_none_or(|level| level >= least));
            level && filter.matches_itself(&record)
        })
    };
    Probe { needle: Needle::of(texts).map(Needle::into_finder), may_match: Box::new(may_match) }
}

/// The attempts of a batch from its end, each with its frames in order.
fn units(frames: Vec<ScannedFrame>) -> VecDeque<Unit> {
    let mut units: VecDeque<Unit> = VecDeque::new();
    for frame in frames.into_iter().map(Arc::new) {
        for owner in &frame.owners {
            match units.front_mut() {
                Some(unit) if unit.owner == *owner => unit.frames.push(Arc::clone(&frame)),
                _ => units.push_front(Unit { owner: owner.clone(), frames: vec![Arc::clone(&frame)] }),
            }
        }
    }
    units
}

/// The parts of an attempt in one object.
async fn parts_in(reader: &Reader, view: &View, object: Ulid) -> Result<Vec<Part>, ReadError> {
    let (mut found, mut snapshot) = (Vec::new(), view.snapshot.clone());
    loop {
        found.extend(snapshot.parts.iter().filter(|part| part.segment.ulid == object).cloned());
        let Some(last) = snapshot.parts.last().filter(|_| snapshot.parts.len() >= MAX_PARTS as usize) else {
            return Ok(found);
        };
        let (key, rest) = (view.key(), LineRange::new(last.lines.end(), u64::MAX));
        match reader.catalog.snapshot(&key.app, &key.instance, Some(key.attempt), rest).await? {
            Some(next) => snapshot = next,
            None => return Ok(found),
        }
    }
}

/// Which lines of a part stand in a frame, and how many bytes before the first.
///
/// A part of many frames fills all but its last, so the frames' line counts say where each begins.
fn lines_in(part: &Part, map: &SearchMap, frame: usize) -> Option<(LineRange, u32)> {
    let (start, end) = (map.offset(frame), map.offset(frame + 1));
    let part_end = part.byte_offset + part.byte_length;
    let first = map.frame_at(part.byte_offset)?;
    if part.lines.is_empty() || start < part.byte_offset || end > part_end {
        return None;
    }
    let before: u64 = map.frames()[first..frame].iter().map(|frame| frame.extent.lines).sum();
    let begin = part.lines.start() + before;
    let lines = match end == part_end {
        true => LineRange::new(begin, part.lines.end()),
        false => LineRange::new(begin, begin + map.frames()[frame].extent.lines),
    };
    Some((lines, if frame == first { part.skip } else { 0 }))
}
