//! What the index knows of each attempt, and the blocks that hold it column by column.

use crate::model::{
    App, AttemptId, AttemptKey, AttemptNo, AttemptState, Identity, Instance, Job, Labels, LineRange, Millis, Outcome,
};

use super::codec::{Cursor, Decoded, Malformed, level_byte, put_i64, put_ts, put_u64, split_level_byte, text};
use super::extent::Extent;
use super::packer::FrameSpot;

/// A block is closed at this many attempts …
pub(super) const MAX_BLOCK_ENTRIES: usize = 1024;
/// … or this many bytes before compression, whichever comes first.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// The numbers of an entry take about 40 bytes, at worst 127; this is what the writer counts.
const NUMBERS_BYTES: usize = 64;
/// Above what 1,024 entries of the worst kind can take.
pub(super) const MAX_BLOCK_BYTES: usize = 256 << 10;

/// What the catalog said of an attempt when the segment was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptMeta {
    pub id: AttemptId,
    /// Rises with each change of what stands here, so that the newest entry wins in a rebuild.
    pub meta_version: u32,
    pub identity: Identity,
    pub state: AttemptState,
    pub outcome: Option<Outcome>,
    pub created_at: Millis,
    pub finished_at: Option<Millis>,
}

/// Some consecutive lines of one attempt in a segment. Without lines it only tells the attempt's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the segment, from 0.
    pub ordinal: u32,
    pub attempt: AttemptMeta,
    pub first_line: u64,
    pub extent: Extent,
    pub spot: FrameSpot,
    /// Bytes of NDJSON, heads and newlines included.
    pub raw_bytes: u64,
    /// [`content_hash`](super::content_hash) of the records' JSON lines, as chunks hold them.
    pub hash: u64,
}

impl Entry {
    pub fn lines(&self) -> LineRange {
        LineRange::new(self.first_line, self.first_line.saturating_add(self.extent.lines))
    }

    /// What it adds to a block before compression, about.
    pub(super) fn weight(&self) -> usize {
        let identity = &self.attempt.identity;
        NUMBERS_BYTES
            + identity.key.instance.as_bytes().len()
            + identity.job.as_ref().map_or(0, |job| job.as_bytes().len())
            + if identity.labels.is_empty() { 0 } else { identity.labels.to_json().len() }
    }
}

const HAS_FINISHED_AT: u8 = 1;
const HAS_JOB: u8 = 1 << 1;
const HAS_LABELS: u8 = 1 << 2;

/// Encodes consecutive entries. Equal kinds of values stand together: most columns compress to next to nothing.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let metas = || entries.iter().map(|entry| &entry.attempt);
    let mut before = 0;
    for id in metas().map(|meta| meta.id.get()) {
        put_i64(&mut out, id.wrapping_sub(before));
        before = id;
    }
    for meta in metas() {
        put_u64(&mut out, meta.meta_version.into());
    }
    out.extend(metas().map(|meta| (meta.state.code() | Outcome::code(meta.outcome) << 4) as u8));
    out.extend(metas().map(flags));
    out.extend(entries.iter().map(|entry| level_byte(entry.extent.levels, entry.extent.ts)));
    let mut before = 0;
    for at in metas().map(|meta| meta.created_at.get()) {
        put_i64(&mut out, at.wrapping_sub(before));
        before = at;
    }
    for meta in metas() {
        if let Some(at) = meta.finished_at {
            put_i64(&mut out, at.get().wrapping_sub(meta.created_at.get()));
        }
    }
    for entry in entries {
        put_u64(&mut out, entry.first_line);
    }
    for entry in entries {
        put_u64(&mut out, entry.extent.lines);
    }
    for entry in entries {
        if let Some(ts) = entry.extent.ts {
            put_ts(&mut out, ts_base(&entry.attempt), ts);
        }
    }
    encode_places(&mut out, entries);
    encode_names(&mut out, entries);
    out
}

fn encode_places(out: &mut Vec<u8>, entries: &[Entry]) {
    let mut before = 0i64;
    for frame in entries.iter().map(|entry| i64::from(entry.spot.frame)) {
        put_i64(out, frame - before);
        before = frame;
    }
    let mut next = Next::default();
    for entry in entries {
        put_i64(out, i64::from(entry.spot.skip).wrapping_sub(next.skip(entry.spot.frame)));
        next.follow(entry.spot, entry.raw_bytes);
    }
    for entry in entries {
        put_u64(out, entry.raw_bytes);
    }
    for entry in entries {
        out.extend_from_slice(&entry.hash.to_le_bytes());
    }
}

fn encode_names(out: &mut Vec<u8>, entries: &[Entry]) {
    let identities = || entries.iter().map(|entry| &entry.attempt.identity);
    for identity in identities() {
        put_u64(out, identity.key.attempt.get().into());
    }
    let jobs: Vec<_> = identities().filter_map(|identity| identity.job.as_ref().map(Job::as_bytes)).collect();
    put_column(out, &jobs);
    let instances: Vec<_> = identities().map(|identity| identity.key.instance.as_bytes()).collect();
    put_column(out, &instances);
    let labels: Vec<_> = identities().filter(|identity| !identity.labels.is_empty()).collect();
    let labels: Vec<_> = labels.iter().map(|identity| identity.labels.to_json()).collect();
    put_column(out, &labels.iter().map(String::as_bytes).collect::<Vec<_>>());
}

/// All lengths, then all bytes.
fn put_column(out: &mut Vec<u8>, texts: &[&[u8]]) {
    for text in texts {
        put_u64(out, text.len() as u64);
    }
    for text in texts {
        out.extend_from_slice(text);
    }
}

fn flags(meta: &AttemptMeta) -> u8 {
    let mut flags = 0;
    if meta.finished_at.is_some() {
        flags |= HAS_FINISHED_AT;
    }
    if meta.identity.job.is_some() {
        flags |= HAS_JOB;
    }
    if !meta.identity.labels.is_empty() {
        flags |= HAS_LABELS;
    }
    flags
}

fn ts_base(meta: &AttemptMeta) -> i64 {
    meta.created_at.get().wrapping_mul(1_000_000)
}

/// Where an entry stands if it follows the one before directly, which is what nearly all do.
#[derive(Default)]
struct Next {
    frame: u32,
    end: u64,
}

impl Next {
    fn skip(&self, frame: u32) -> i64 {
        if frame == self.frame { self.end as i64 } else { 0 }
    }

    fn follow(&mut self, spot: FrameSpot, raw_bytes: u64) {
        *self = Self { frame: spot.frame, end: u64::from(spot.skip).wrapping_add(raw_bytes) };
    }
}

/// Decodes a block of `count` entries, the first with the given ordinal.
pub(super) fn decode(bytes: &[u8], count: usize, first_ordinal: u32, app: &App) -> Decoded<Vec<Entry>> {
    // Each entry takes more than eight bytes, so this bounds what is allocated below.
    if count > bytes.len() / 8 {
        return Err(Malformed("an attempt block is too short for its count"));
    }
    let mut cursor = Cursor::new(bytes);
    let mut ids = Vec::with_capacity(count);
    let mut before = 0i64;
    for _ in 0..count {
        before = before.wrapping_add(cursor.i64()?);
        ids.push(AttemptId::stored(before));
    }
    let meta_versions = column(count, || cursor.u32())?;
    let states = cursor.take(count)?;
    let flags = cursor.take(count)?;
    let levels = cursor.take(count)?;
    let times = decode_times(&mut cursor, flags)?;
    let mut entries = Vec::with_capacity(count);
    let lines = decode_lines(&mut cursor, &times, levels)?;
    let places = decode_places(&mut cursor, count)?;
    let identities = decode_names(&mut cursor, flags, app)?;
    cursor.end()?;
    for (i, identity) in identities.into_iter().enumerate() {
        let (state, outcome) = decode_state(states[i])?;
        let (created_at, finished_at) = times[i];
        let (first_line, extent) = lines[i];
        let (spot, raw_bytes, hash) = places[i];
        let (id, meta_version) = (ids[i], meta_versions[i]);
        let attempt = AttemptMeta { id, meta_version, identity, state, outcome, created_at, finished_at };
        let ordinal = u32::try_from(i).ok().and_then(|i| first_ordinal.checked_add(i));
        let ordinal = ordinal.ok_or(Malformed("too many attempts"))?;
        entries.push(Entry { ordinal, attempt, first_line, extent, spot, raw_bytes, hash });
    }
    Ok(entries)
}

fn column<T>(count: usize, mut next: impl FnMut() -> Decoded<T>) -> Decoded<Vec<T>> {
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(next()?);
    }
    Ok(values)
}

fn decode_state(byte: u8) -> Decoded<(AttemptState, Option<Outcome>)> {
    let state = AttemptState::from_code(i64::from(byte & 0xF)).ok_or(Malformed("an unknown attempt state"))?;
    let code = i64::from(byte >> 4);
    let outcome = Outcome::from_code(code);
    if Outcome::code(outcome) == code { Ok((state, outcome)) } else { Err(Malformed("an unknown outcome")) }
}

fn decode_times(cursor: &mut Cursor<'_>, flags: &[u8]) -> Decoded<Vec<(Millis, Option<Millis>)>> {
    let mut before = 0i64;
    let created = column(flags.len(), || {
        before = before.wrapping_add(cursor.i64()?);
        Ok(before)
    })?;
    let times = created.into_iter().zip(flags).map(|(created, flags)| {
        let finished = match flags & HAS_FINISHED_AT {
            0 => None,
            _ => Some(Millis::new(created.wrapping_add(cursor.i64()?))),
        };
        Ok((Millis::new(created), finished))
    });
    times.collect()
}

fn decode_lines(
    cursor: &mut Cursor<'_>,
    times: &[(Millis, Option<Millis>)],
    levels: &[u8],
) -> Decoded<Vec<(u64, Extent)>> {
    let first_lines = column(times.len(), || cursor.u64())?;
    let counts = column(times.len(), || cursor.u64())?;
    let mut lines = Vec::with_capacity(times.len());
    for (i, (first_line, count)) in first_lines.into_iter().zip(counts).enumerate() {
        let (levels, has_ts) = split_level_byte(levels[i]);
        let base = times[i].0.get().wrapping_mul(1_000_000);
        let ts = if has_ts { Some(cursor.ts(base)?) } else { None };
        if first_line.checked_add(count).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Malformed("a line number is too large"));
        }
        lines.push((first_line, Extent { lines: count, ts, levels }));
    }
    Ok(lines)
}

fn decode_places(cursor: &mut Cursor<'_>, count: usize) -> Decoded<Vec<(FrameSpot, u64, u64)>> {
    let mut before = 0i64;
    let frames = column(count, || {
        before = before.wrapping_add(cursor.i64()?);
        u32::try_from(before).map_err(|_| Malformed("a frame's number is too large"))
    })?;
    let skips = column(count, || cursor.i64())?;
    let raw_bytes = column(count, || cursor.u64())?;
    let mut next = Next::default();
    let mut places = Vec::with_capacity(count);
    for ((frame, skip), raw_bytes) in frames.into_iter().zip(skips).zip(raw_bytes) {
        let skip = next.skip(frame).wrapping_add(skip);
        let skip = u32::try_from(skip).map_err(|_| Malformed("an offset lies outside of its frame"))?;
        let spot = FrameSpot { frame, skip };
        next.follow(spot, raw_bytes);
        places.push((spot, raw_bytes, u64::from_le_bytes(cursor.array()?)));
    }
    Ok(places)
}

fn decode_names(cursor: &mut Cursor<'_>, flags: &[u8], app: &App) -> Decoded<Vec<Identity>> {
    let attempts = column(flags.len(), || {
        let number = i64::try_from(cursor.u64()?).unwrap_or(i64::MAX);
        AttemptNo::try_from(number).map_err(|_| Malformed("an attempt's number is too large"))
    })?;
    let with = |flag: u8| flags.iter().filter(|flags| **flags & flag != 0).count();
    let mut jobs = take_column(cursor, with(HAS_JOB))?.into_iter();
    let mut instances = take_column(cursor, flags.len())?.into_iter();
    let mut labels = take_column(cursor, with(HAS_LABELS))?.into_iter();
    let mut identities = Vec::with_capacity(flags.len());
    for (attempt, flags) in attempts.into_iter().zip(flags) {
        let next = |flag: u8, texts: &mut dyn Iterator<Item = &str>| match flags & flag {
            0 => None,
            _ => texts.next().map(str::to_owned),
        };
        let job = next(HAS_JOB, &mut jobs).map(|job| job.parse::<Job>());
        let job = job.transpose().map_err(|_| Malformed("a job's name is invalid"))?;
        let labels = next(HAS_LABELS, &mut labels).unwrap_or_default();
        let labels = labels.parse::<Labels>().map_err(|_| Malformed("labels are invalid"))?;
        let instance = instances.next().map(str::parse::<Instance>);
        let Some(Ok(instance)) = instance else { return Err(Malformed("an instance's name is invalid")) };
        identities.push(Identity { key: AttemptKey { app: app.clone(), instance, attempt }, job, labels });
    }
    Ok(identities)
}

/// What [`put_column`] wrote.
fn take_column<'a>(cursor: &mut Cursor<'a>, count: usize) -> Decoded<Vec<&'a str>> {
    let lens = column(count, || cursor.u32())?;
    lens.into_iter().map(|len| text(cursor.take(len as usize)?)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::extent::TsRange;
    use super::*;
    use crate::model::{LevelSet, Timestamp};

    prop_compose! {
        pub fn identity()(
            instance in "[\\PC\"]{1,20}", job: Option<u8>, attempt in 1i64..4, labels: BTreeMap<u8, u8>,
        ) -> Identity {
            let labels = labels.into_iter().take(5).map(|(k, v)| (format!("ts{k}"), v.to_string())).collect();
            Identity {
                key: AttemptKey {
                    app: "app".parse().expect("app"),
                    instance: instance.parse().expect("instance"),
                    attempt: attempt.try_into().expect("attempt"),
                },
                job: job.map(|job| format!("job-{job}").parse().expect("job")),
                labels: Labels::new(labels).expect("labels"),
            }
        }
    }

    prop_compose! {
        pub fn meta()(
            id: i64, meta_version: u32, identity in identity(), state in 0i64..5, outcome in 0i64..4,
            created_at: i64, finished_at: Option<i64>,
        ) -> AttemptMeta {
            AttemptMeta {
                id: AttemptId::stored(id),
                meta_version,
                identity,
                state: AttemptState::from_code(state).expect("state"),
                outcome: Outcome::from_code(outcome),
                created_at: Millis::new(created_at),
                finished_at: finished_at.map(Millis::new),
            }
        }
    }

    prop_compose! {
        fn entry()(
            attempt in meta(), first_line in 0..1u64 << 62, lines in 0..1u64 << 62, ts: Option<(i64, i64)>,
            levels in 0i64..128, frame: u32, skip: u32, raw_bytes: u64, hash: u64,
        ) -> Entry {
            let ts = ts.map(|(a, b)| TsRange::new(Timestamp::from_nanos(a), Timestamp::from_nanos(b)));
            let extent = Extent { lines, ts, levels: LevelSet::stored(levels) };
            Entry { ordinal: 0, attempt, first_line, extent, spot: FrameSpot { frame, skip }, raw_bytes, hash }
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(mut entries in prop::collection::vec(entry(), 0..20)) {
            for (entry, ordinal) in entries.iter_mut().zip(7..) {
                entry.ordinal = ordinal;
            }
            let bytes = encode(&entries);
            let worst: usize = entries.iter().map(Entry::weight).sum();
            prop_assert!(bytes.len() <= worst * 2);
            let app = "app".parse().expect("app");
            prop_assert_eq!(decode(&bytes, entries.len(), 7, &app), Ok(entries));
        }

        #[test]
        fn damaged_blocks_are_refused_or_read(
            entries in prop::collection::vec(entry(), 1..5), at: prop::sample::Index, with: u8, cut: bool,
        ) {
            let mut bytes = encode(&entries);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = with }
            let _ = decode(&bytes, entries.len(), u32::MAX, &"app".parse().expect("app"));
        }

        #[test]
        fn any_bytes_are_entries_or_refused(bytes: Vec<u8>, count in 0usize..20) {
            let _ = decode(&bytes, count, 0, &"app".parse().expect("app"));
        }
    }
}
