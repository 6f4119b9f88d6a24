//! From a request's body to batches: NDJSON, a JSON array, or plain text.
//!
//! A bad line does not sink the good ones: it is reported with its index and left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;

use base64::Engine as _;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Batch;
use super::input::{Input, Message, Scalar};
use super::pieces::in_pieces;
use super::room::{Budget, NoRoom, Room};
use crate::catalog::BatchKey;
use crate::hot::Lines;
use crate::model::{App, AttemptKey, AttemptNo, Attrs, Instance, Job, Labels, Level, LevelTracker, Record, Timestamp};

/// What a request says of all its records.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The attempt that the path names; records may then name no other.
    pub key: Option<AttemptKey>,
    pub app: App,
    pub job: Option<Job>,
    pub source: String,
    /// The client's key for the whole request.
    pub batch_key: Option<String>,
    pub at_line: Option<u64>,
    /// What the body is encoded in, where it is not UTF-8.
    pub charset: Option<&'static encoding_rs::Encoding>,
    /// For records without a timestamp.
    pub arrived: Option<Timestamp>,
    /// A longer message is stored in several records.
    pub max_record_bytes: usize,
    /// What room for the records is taken from; without one there is no bound but the body's.
    pub budget: Option<Budget>,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Counted from 0 over the lines of the request that are not blank.
    pub index: u64,
    pub error: String,
}

/// A request's records, by attempt.
#[derive(Debug, Default)]
pub struct Decoded {
    pub batches: Vec<Batch>,
    /// Of each batch, the indexes of the request's lines that are in it.
    pub places: Vec<Vec<Range<u64>>>,
    pub accepted: u64,
    pub rejected: Vec<Rejected>,
    /// Records whose message was no UTF-8 and is kept in `raw`.
    pub not_utf8: u64,
    /// The room that all of this takes.
    pub room: Room,
    /// There was no room for all of it: then there are no batches, and nothing may be stored.
    pub refused: Option<NoRoom>,
}

/// Longest source in bytes; sources are workers' addresses, not texts.
const MAX_SOURCE_BYTES: usize = 1024;

/// NDJSON in which each record names its attempt.
pub fn decode_bulk(body: &[u8], defaults: &Defaults) -> Decoded {
    let mut decoder = Decoder::new(defaults);
    for line in lines_of(without_mark(body)).filter(|line| !line.trim_ascii().is_empty()) {
        decoder.json_record(line);
        if decoder.is_refused() {
            break;
        }
    }
    decoder.finish()
}

/// NDJSON or a JSON array of records of the attempt that `defaults` names.
pub fn decode_lines(body: &[u8], defaults: &Defaults) -> Result<Decoded, serde_json::Error> {
    let body = without_mark(body);
    if !body.trim_ascii_start().starts_with(b"[") {
        return Ok(decode_bulk(body, defaults));
    }
    let mut decoder = Decoder::new(defaults);
    let mut json = serde_json::Deserializer::from_slice(body);
    match json.deserialize_seq(ArrayVisitor(&mut decoder)).and_then(|()| json.end()) {
        Err(error) if !decoder.is_refused() => Err(error),
        _ => Ok(decoder.finish()),
    }
}

/// Tools on Windows begin a file with U+FEFF.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Plain text, a record a line; every byte but the newline belongs to the message.
pub fn decode_text(body: &[u8], defaults: &Defaults) -> Decoded {
    let mut decoder = Decoder::new(defaults);
    for line in lines_of(body) {
        decoder.text_record(line);
        if decoder.is_refused() {
            break;
        }
    }
    decoder.finish()
}

/// Decodes the elements of an array as they are found, so that there is never a list of them all.
struct ArrayVisitor<'a, 'd>(&'a mut Decoder<'d>);

impl<'de> Visitor<'de> for ArrayVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut records: S) -> Result<(), S::Error> {
        while let Some(record) = records.next_element::<&RawValue>()? {
            self.0.json_record(record.get().as_bytes());
            if self.0.is_refused() {
                return Err(serde::de::Error::custom("there is no room for all of them"));
            }
        }
        Ok(())
    }
}

/// Lines without their newline; the last one may lack it.
fn lines_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    // No byte is no line; a newline alone is one, which is empty.
    let mut rest = (!body.is_empty()).then(|| body.strip_suffix(b"\n").unwrap_or(body));
    std::iter::from_fn(move || {
        let (line, behind) = match memchr::memchr(b'\n', rest?) {
            Some(end) => (&rest?[..end], Some(&rest?[end + 1..])),
            None => (rest?, None),
        };
        rest = behind;
        Some(line)
    })
}

struct Decoder<'d> {
    defaults: &'d Defaults,
    open: Vec<Open>,
    /// Where in `open` an attempt's records gather.
    places: HashMap<AttemptKey, usize>,
    last: Option<usize>,
    names: LastNames,
    next_index: u64,
    accepted: u64,
    not_utf8: u64,
    rejected: Vec<Rejected>,
    meter: Meter,
}

/// The names of the record before; most records repeat them.
#[derive(Default)]
struct LastNames {
    app: Option<App>,
    instance: Option<Instance>,
    job: Option<Job>,
}

/// Checks and copies a name that the record before did not have.
fn repeated<T>(last: &mut Option<T>, name: &str) -> Result<T, String>
where
    T: Clone + AsRef<str> + FromStr<Err: std::fmt::Display>,
{
    match last {
        Some(last) if last.as_ref() == name => Ok(last.clone()),
        _ => Ok(last.insert(name.parse().map_err(|e: T::Err| e.to_string())?).clone()),
    }
}

/// Counts what decoding takes in memory, and takes room for it.
#[derive(Default)]
struct Meter {
    budget: Option<Budget>,
    bytes: u64,
    room: Room,
    refused: Option<NoRoom>,
}

impl Meter {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(budget) = &self.budget
            && self.refused.is_none()
        {
            self.refused = budget.grow(&mut self.room, self.bytes).err();
        }
    }
}

/// A batch that is still growing.
struct Open {
    batch: Batch,
    levels: LevelTracker,
    /// Of what was sent, to know it again; only where the client gave a key.
    content: Option<Xxh3>,
    places: Vec<Range<u64>>,
}

impl<'d> Decoder<'d> {
    fn new(defaults: &'d Defaults) -> Self {
        Self {
            defaults,
            open: Vec::new(),
            places: HashMap::new(),
            last: None,
            names: LastNames::default(),
            next_index: 0,
            accepted: 0,
            not_utf8: 0,
            rejected: Vec::new(),
            meter: Meter { budget: defaults.budget.clone(), ..Meter::default() },
        }
    }

    fn json_record(&mut self, line: &[u8]) {
        let line = self.in_utf8(line);
        let result = Input::parse(&line).map_err(|error| fault(&error)).and_then(|input| self.accept(input));
        self.count(result);
    }

    fn text_record(&mut self, line: &[u8]) {
        let message = self.in_utf8(line);
        // What the charset could not decode is kept as it came.
        let result = self.accept(Input { message: Message::Bytes(message), ..Input::default() });
        self.count(result);
    }

    fn count(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.accepted += 1,
            Err(error) => {
                self.meter.add((size_of::<Rejected>() + error.len()) as u64);
                self.rejected.push(Rejected { index: self.next_index, error });
            }
        }
        self.next_index += 1;
    }

    /// Whether there is no room for what has been decoded so far.
    fn is_refused(&self) -> bool {
        self.meter.refused.is_some()
    }

    /// Honours the charset; bytes that are wrong in it stay as they are.
    fn in_utf8<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(charset) = self.defaults.charset else { return line.into() };
        match charset.decode_without_bom_handling_and_without_replacement(line) {
            Some(Cow::Borrowed(text)) => text.as_bytes().into(),
            Some(Cow::Owned(text)) => text.into_bytes().into(),
            None => line.into(),
        }
    }

    fn accept(&mut self, input: Input<'_>) -> Result<(), String> {
        let key = self.key_of(&input)?;
        let job = match input.job.as_deref().filter(|job| !job.is_empty()) {
            Some(job) => Some(repeated(&mut self.names.job, job)?),
            None => self.defaults.job.clone(),
        };
        let source = input.source.unwrap_or(Cow::Borrowed(&self.defaults.source));
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!("source has {} bytes, at most {MAX_SOURCE_BYTES} are allowed", source.len()));
        }
        let own_ts = input.ts.map(timestamp).transpose()?;
        let ts = own_ts.or(self.defaults.arrived).unwrap_or(Timestamp::from_nanos(0));
        let attrs = input.attrs.filter(|attrs| attrs.get() != "null");
        let attrs = attrs.map(Attrs::new).transpose().map_err(|e| e.to_string())?;
        let attrs = Attrs::with_all(attrs, &input.unknown).map_err(|e| e.to_string())?;
        if attrs.as_ref().is_some_and(|attrs| attrs.as_str().len() > self.defaults.max_record_bytes) {
            return Err(format!("attrs are larger than {} bytes", self.defaults.max_record_bytes));
        }
        let (level, attrs) = level_of(input.level, attrs);
        let message = match input.raw {
            Some(raw) if !raw.is_empty() => {
                let bytes = base64::prelude::BASE64_STANDARD.decode(raw.as_bytes());
                Message::Bytes(bytes.map_err(|e| format!("raw is no base64: {e}"))?.into())
            }
            _ => input.message,
        };
        let record = Record { ts, level, source, message: "".into(), attrs, raw: None, partial: input.partial };
        let max = self.defaults.max_record_bytes;
        let index = self.next_index;
        let place = self.open_batch(key, job, input.labels);
        let (open, meter) = (&mut self.open[place], &mut self.meter);
        open.note_place(index, meter);
        let is_text = open.push(record, message, own_ts.is_some(), max, meter)?;
        self.not_utf8 += u64::from(!is_text);
        Ok(())
    }

    fn key_of(&mut self, input: &Input<'_>) -> Result<AttemptKey, String> {
        let attempt = input.attempt.map(AttemptNo::try_from).transpose().map_err(|e| e.to_string())?;
        if let Some(key) = &self.defaults.key {
            let other = input.app.as_deref().is_some_and(|app| app != key.app.as_str())
                || input.instance.as_deref().is_some_and(|instance| instance != key.instance.as_str())
                || attempt.is_some_and(|attempt| attempt != key.attempt);
            return if other {
                Err(format!("the record names another attempt than the request, which is for {key}"))
            } else {
                Ok(key.clone())
            };
        }
        let instance = input.instance.as_deref().ok_or("instance is missing")?;
        Ok(AttemptKey {
            app: match input.app.as_deref() {
                Some(app) => repeated(&mut self.names.app, app)?,
                None => self.defaults.app.clone(),
            },
            instance: repeated(&mut self.names.instance, instance)?,
            attempt: attempt.unwrap_or_default(),
        })
    }

    fn open_batch(&mut self, key: AttemptKey, job: Option<Job>, labels: Option<Labels>) -> usize {
        let place = match self.last.filter(|last| self.open[*last].batch.key == key) {
            Some(last) => last,
            None => *self.places.entry(key.clone()).or_insert_with(|| {
                let batch = Batch {
                    key,
                    job: None,
                    labels: Labels::default(),
                    lines: Lines::default(),
                    batch_key: None,
                    at_line: self.defaults.at_line,
                };
                self.meter.add(batch.memory());
                self.open.push(Open {
                    batch,
                    levels: LevelTracker::default(),
                    content: self.defaults.batch_key.is_some().then(Xxh3::new),
                    places: Vec::new(),
                });
                self.open.len() - 1
            }),
        };
        self.last = Some(place);
        let open = &mut self.open[place];
        if open.batch.job.is_none() {
            open.batch.job = job;
        }
        if let Some(labels) = labels.filter(|_| open.batch.labels.is_empty()) {
            open.batch.labels = labels;
        }
        place
    }

    fn finish(self) -> Decoded {
        let defaults = self.defaults;
        let mut places = Vec::with_capacity(self.open.len());
        let batches = self.open.into_iter().map(|open| {
            places.push(open.places);
            let batch_key = defaults.batch_key.as_ref().zip(open.content).map(|(client_key, content)| BatchKey {
                hash: key_hash(&open.batch.key, &defaults.source, client_key),
                content: content.digest().cast_signed(),
            });
            Batch { batch_key, ..open.batch }
        });
        let batches = batches.collect();
        let Meter { room, refused, .. } = self.meter;
        if refused.is_some() {
            return Decoded { refused, ..Decoded::default() };
        }
        let (accepted, rejected, not_utf8) = (self.accepted, self.rejected, self.not_utf8);
        Decoded { batches, places, accepted, rejected, not_utf8, room, refused: None }
    }
}

impl Open {
    fn note_place(&mut self, index: u64, meter: &mut Meter) {
        match self.places.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => {
                meter.add(size_of::<Range<u64>>() as u64);
                self.places.push(index..index + 1);
            }
        }
    }

    /// Answers whether the message is UTF-8.
    fn push(
        &mut self,
        record: Record<'_>,
        message: Message<'_>,
        has_own_ts: bool,
        max_bytes: usize,
        meter: &mut Meter,
    ) -> Result<bool, String> {
        let line = self.batch.lines.len() as u64;
        let effective = self.levels.effective(line, &record.source, record.level);
        match message {
            // What it says is never longer than its JSON.
            Message::Written(json) if json.len() <= max_bytes => {
                self.add(meter, has_own_ts, |lines| lines.push_written(&record, json, effective));
                Ok(true)
            }
            other => {
                let bytes = other.into_bytes().map_err(|error| fault(&error))?;
                let mut is_text = true;
                for record in in_pieces(record, &bytes, max_bytes) {
                    is_text &= record.raw.is_none();
                    self.add(meter, has_own_ts, |lines| lines.push(&record, effective));
                    if meter.refused.is_some() {
                        break;
                    }
                }
                Ok(is_text)
            }
        }
    }

    /// Adds a line, and what it takes to the meter.
    fn add(&mut self, meter: &mut Meter, has_own_ts: bool, push: impl FnOnce(&mut Lines)) {
        let (before, memory) = (self.batch.lines.json().len(), self.batch.lines.memory());
        push(&mut self.batch.lines);
        meter.add(self.batch.lines.memory() - memory);
        if let Some(content) = &mut self.content {
            let json = &self.batch.lines.json()[before..];
            // The time of arrival differs when the batch is sent again.
            content.update(if has_own_ts { json } else { after_ts(json) });
        }
    }
}

/// The JSON of a record behind its first member.
fn after_ts(json: &[u8]) -> &[u8] {
    let end = memchr::memchr(b',', json).unwrap_or(0);
    &json[end..]
}

/// What is wrong with a line that is no record; serde counts within the line, which it calls 1.
fn fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("no record in JSON: {what}, at byte {} of the line", error.column())
}

fn timestamp(ts: Scalar<'_>) -> Result<Timestamp, String> {
    match ts {
        Scalar::Text(text) => Timestamp::parse(&text),
        Scalar::Integer(millis) => Timestamp::from_millis(millis),
        // Up to the microsecond, as exactly as a double can say.
        Scalar::Number(millis) if millis.abs() < 9e12 => {
            Ok(Timestamp::from_nanos((millis * 1e3).round() as i64 * 1_000))
        }
        Scalar::Number(millis) => Timestamp::from_millis(millis as i64),
    }
    .map_err(|e| e.to_string())
}

/// A level that nobody knows is kept in the attrs.
fn level_of<'a>(level: Option<Scalar<'_>>, attrs: Option<Attrs<'a>>) -> (Option<Level>, Option<Attrs<'a>>) {
    let (known, name) = match level {
        None => return (None, attrs),
        Some(Scalar::Text(name)) if name.is_empty() => return (None, attrs),
        Some(Scalar::Text(name)) => (Level::parse(&name), name.into_owned()),
        Some(Scalar::Integer(number)) => (Level::from_number(number), number.to_string()),
        Some(Scalar::Number(number)) => (Level::from_number(number as i64), number.to_string()),
    };
    match known {
        Some(level) => (Some(level), attrs),
        None => (None, Some(Attrs::with(attrs, "level", &name))),
    }
}

/// Separated by a byte that is in no UTF-8 text.
fn key_hash(key: &AttemptKey, source: &str, client_key: &str) -> [u8; 16] {
    let attempt = key.attempt.to_string();
    let parts = [key.app.as_str(), key.instance.as_str(), &attempt, source, client_key];
    xxh3_128(&parts.map(str::as_bytes).join(&0xFF)).to_be_bytes()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
