//! One log line and its JSON form.
//!
//! The JSON of a record, `{"ts":…,"level":…,"source":…,"message":…,…}` on one line, is written once,
//! when the record arrives. Chunks hold it as it is; a segment line is an attempt's
//! [`Identity::head`](super::Identity::head) with the record's JSON behind it, less its brace; an
//! answer puts the line number in front in the same way. So nothing between arrival and answer
//! can change a message.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ids::push_json;
use super::{Level, Timestamp};

/// A record that is not the JSON which [`Record::write_json`] writes.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRecord {
    #[error("parse record")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Timestamp(#[from] super::InvalidTimestamp),
    #[error("unknown level \"{0}\"")]
    Level(String),
    #[error("line does not name a \"ts\"")]
    NoTimestamp,
    #[error("attrs must be a JSON object")]
    AttrsNotObject,
    #[error("attrs nest deeper than {MAX_DEPTH} levels")]
    AttrsTooDeep,
}

/// Levels of arrays and objects in attrs. Everything that reads JSON has a bound of its own (jq 256, serde_json
/// 128), and a line beyond it would hide all lines behind it in its object.
const MAX_DEPTH: usize = 64;

/// A JSON object on one line, kept as the text it came in: numbers keep all their digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attrs<'a>(Cow<'a, str>);

impl<'a> Attrs<'a> {
    /// Takes an object's text and drops the white space between its tokens.
    pub fn new(object: &'a RawValue) -> Result<Self, InvalidRecord> {
        match object.get() {
            text if !text.starts_with('{') => Err(InvalidRecord::AttrsNotObject),
            text if is_deeper_than(text, MAX_DEPTH) => Err(InvalidRecord::AttrsTooDeep),
            text => Ok(Self(tidied(text))),
        }
    }

    /// Adds a member, unless the object has one of that name.
    pub fn with(attrs: Option<Self>, name: &str, value: &str) -> Self {
        let mut object = Vec::from(b"{");
        push_json(&mut object, name);
        object.push(b':');
        push_json(&mut object, value);
        match attrs {
            Some(attrs) if attrs.has(name) => return attrs,
            Some(attrs) if attrs.0 != "{}" => {
                object.push(b',');
                object.extend_from_slice(&attrs.0.as_bytes()[1..]);
            }
            _ => object.push(b'}'),
        }
        Self(Cow::Owned(String::from_utf8_lossy(&object).into_owned()))
    }

    /// Adds members, unless the object has one of that name.
    pub fn with_all(attrs: Option<Self>, members: &[(Cow<'_, str>, &RawValue)]) -> Result<Option<Self>, InvalidRecord> {
        if members.is_empty() {
            return Ok(attrs);
        }
        if members.iter().any(|(_, value)| is_deeper_than(value.get(), MAX_DEPTH - 1)) {
            return Err(InvalidRecord::AttrsTooDeep);
        }
        let mut object = Vec::from(attrs.as_ref().map_or("{}", Self::as_str));
        for (name, value) in members {
            if attrs.as_ref().is_some_and(|attrs| attrs.has(name)) {
                continue;
            }
            object.pop();
            if object.len() > 1 {
                object.push(b',');
            }
            push_json(&mut object, name);
            object.push(b':');
            object.extend_from_slice(tidied(value.get()).as_bytes());
            object.push(b'}');
        }
        Ok(Some(Self(Cow::Owned(String::from_utf8_lossy(&object).into_owned()))))
    }

    fn has(&self, name: &str) -> bool {
        serde_json::from_str::<serde_json::Map<_, _>>(&self.0).is_ok_and(|map| map.contains_key(name))
    }

    /// The name of a level that is none of ours, which is kept among the attrs.
    pub fn level_name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            level: String,
        }
        serde_json::from_str::<Named>(&self.0).ok().map(|named| named.level)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_owned(self) -> Attrs<'static> {
        Attrs(Cow::Owned(self.0.into_owned()))
    }
}

/// Whether arrays and objects stand in each other more than `most` times. `json` is sound.
fn is_deeper_than(json: &str, most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > most
    })
}

/// As it is stored: without white space, and such that every reader of JSON takes it.
fn tidied(json: &str) -> Cow<'_, str> {
    let whole = with_whole_characters(json);
    match without_white_space(&whole) {
        Cow::Owned(text) => text.into(),
        Cow::Borrowed(_) => whole,
    }
}

/// An escape of half a character (a surrogate without its other) is no text: jq refuses it, and all lines behind
/// it with it. U+FFFD stands for it then, as in messages. `json` is sound.
fn with_whole_characters(json: &str) -> Cow<'_, str> {
    let surrogate = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        let unit = u16::from_str_radix(digits, 16).ok()?;
        (0xD800..0xE000).contains(&unit).then_some(unit)
    };
    let (mut whole, mut at) = (Cow::Borrowed(json), 0);
    while let Some(found) = memchr::memchr(b'\\', &json.as_bytes()[at..]) {
        at += found;
        at += match (surrogate(at), surrogate(at + 6)) {
            (Some(..0xDC00), Some(0xDC00..)) => 12,
            (Some(_), _) => {
                whole.to_mut().replace_range(at..at + 6, "\\ufffd");
                6
            }
            // An escape is two bytes at the least, the second of which may be another backslash.
            (None, _) => 2,
        };
    }
    whole
}

/// White space outside of strings carries nothing in JSON, and a newline would break the line.
fn without_white_space(json: &str) -> Cow<'_, str> {
    if !json.bytes().any(|b| b.is_ascii_whitespace()) {
        return Cow::Borrowed(json);
    }
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        if in_string {
            (in_string, escaped) = (c != '"' || escaped, c == '\\' && !escaped);
            return true;
        }
        in_string = c == '"';
        !c.is_ascii_whitespace()
    });
    Cow::Owned(kept.collect())
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub ts: Timestamp,
    pub level: Option<Level>,
    /// The worker that wrote it; empty where nobody said.
    pub source: Cow<'a, str>,
    pub message: Cow<'a, str>,
    pub attrs: Option<Attrs<'a>>,
    /// The message's bytes in base64, where they are no UTF-8; `message` then shows them with U+FFFD.
    pub raw: Option<Cow<'a, str>>,
    /// The next record goes on with the same line, which was too long for one record.
    pub partial: bool,
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow, default)]
    level: Cow<'a, str>,
    #[serde(borrow, default)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    attrs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    raw: Cow<'a, str>,
    #[serde(default)]
    partial: bool,
}

impl<'a> Record<'a> {
    /// Appends the record's JSON, without a newline.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_with(out, |out| push_json(out, &self.message));
    }

    /// The same with another message, which is a JSON string [as we write them](super::is_as_written).
    pub fn write_json_around(&self, message: &str, out: &mut Vec<u8>) {
        self.write_with(out, |out| out.extend_from_slice(message.as_bytes()));
    }

    fn write_with(&self, out: &mut Vec<u8>, write_message: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(b"{\"ts\":\"");
        self.ts.push_text(out);
        out.push(b'"');
        if let Some(level) = self.level {
            out.extend_from_slice(b",\"level\":\"");
            out.extend_from_slice(level.as_str().as_bytes());
            out.push(b'"');
        }
        if !self.source.is_empty() {
            out.extend_from_slice(b",\"source\":");
            push_json(out, &self.source);
        }
        out.extend_from_slice(b",\"message\":");
        write_message(out);
        if let Some(attrs) = &self.attrs {
            out.extend_from_slice(b",\"attrs\":");
            out.extend_from_slice(attrs.as_str().as_bytes());
        }
        if let Some(raw) = &self.raw {
            out.extend_from_slice(b",\"raw\":");
            push_json(out, raw);
        }
        if self.partial {
            out.extend_from_slice(b",\"partial\":true");
        }
        out.push(b'}');
    }

    /// Reads what [`Record::write_json`] wrote; a whole segment line is understood too.
    pub fn parse_json(json: &'a [u8]) -> Result<Self, InvalidRecord> {
        let stored: Stored<'a> = serde_json::from_slice(json)?;
        Ok(Self {
            ts: Timestamp::parse(&stored.ts)?,
            level: match &*stored.level {
                "" => None,
                name => Some(Level::parse(name).ok_or_else(|| InvalidRecord::Level(name.to_owned()))?),
            },
            source: stored.source,
            message: stored.message,
            attrs: stored.attrs.map(Attrs::new).transpose()?,
            raw: (!stored.raw.is_empty()).then_some(stored.raw),
            partial: stored.partial,
        })
    }

    /// The message's bytes as they came: those of `raw` where the message is no UTF-8.
    pub fn message_bytes(&self) -> Cow<'_, [u8]> {
        use base64::Engine as _;
        let decoded = self.raw.as_ref().and_then(|raw| base64::prelude::BASE64_STANDARD.decode(raw.as_bytes()).ok());
        decoded.map_or(Cow::Borrowed(self.message.as_bytes()), Cow::Owned)
    }
}

/// Where in a segment line the record's own members begin: the offset of `"ts"`.
///
/// Looks at the top level only, so that a label called `ts` does not deceive it.
pub fn tail_start(line: &[u8]) -> Result<usize, InvalidRecord> {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < line.len() {
        match line[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                if depth == 1 && line[at..].starts_with(b"\"ts\":") {
                    return Ok(at);
                }
                at += string_len(&line[at..]);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Err(InvalidRecord::NoTimestamp)
}

/// The length of the JSON string that `text` starts with, quotes included.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        record.write_json(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn plain(message: &str) -> Record<'_> {
        Record {
            ts: Timestamp::from_nanos(1_000_000),
            level: None,
            source: "".into(),
            message: message.into(),
            attrs: None,
            raw: None,
            partial: false,
        }
    }

    #[test]
    fn members_that_are_not_there_are_not_written() {
        assert_eq!(json(&plain("a\nb\0")), r#"{"ts":"1970-01-01T00:00:00.001Z","message":"a\nb\u0000"}"#);
    }

    #[test]
    fn attrs_that_no_reader_of_json_would_follow_are_refused() {
        let nested = |levels: usize| format!("{{\"a[\\\"[\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let attrs = |json: String| Attrs::new(&RawValue::from_string(json).expect("JSON")).map(drop);
        assert!(attrs(nested(MAX_DEPTH - 1)).is_ok());
        assert!(matches!(attrs(nested(MAX_DEPTH)), Err(InvalidRecord::AttrsTooDeep)));
        let deep = RawValue::from_string("[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH)).expect("JSON");
        assert!(Attrs::with_all(None, &[("x".into(), &deep)]).is_err());
    }

    #[test]
    fn half_a_character_in_attrs_does_not_reach_a_reader() {
        for (sent, stored) in [
            (r#"{"x":"\ud800"}"#, r#"{"x":"\ufffd"}"#),
            (r#"{"x": "\uDC00\uD83D\uDE80\uD83D"}"#, r#"{"x":"\ufffd\uD83D\uDE80\ufffd"}"#),
            (r#"{"\ud800\ud800":["\\ud800","\\\udfff \n"]}"#, r#"{"\ufffd\ufffd":["\\ud800","\\\ufffd \n"]}"#),
            (r#"{"x":"\u00e9é🚀\\"}"#, r#"{"x":"\u00e9é🚀\\"}"#),
        ] {
            let object = serde_json::from_str(sent).expect("JSON");
            let attrs = Attrs::new(object).expect("an object");
            assert_eq!(attrs.as_str(), stored);
            serde_json::from_str::<serde_json::Value>(attrs.as_str()).expect("JSON that strict readers take");
        }
    }

    #[test]
    fn attrs_lose_only_white_space() {
        let raw: &RawValue =
            serde_json::from_str("{ \"a b\" : \"c \\\" d\\\\\" ,\n \"n\": 12345678901234567890123 }").expect("JSON");
        let attrs = Attrs::new(raw).expect("an object");
        assert_eq!(attrs.as_str(), r#"{"a b":"c \" d\\","n":12345678901234567890123}"#);
        let number: &RawValue = serde_json::from_str("1").expect("JSON");
        assert!(Attrs::new(number).is_err());
    }

    #[test]
    fn an_unknown_level_joins_the_attrs_but_replaces_nothing() {
        assert_eq!(Attrs::with(None, "level", "NOTE").as_str(), r#"{"level":"NOTE"}"#);
        let with = |object: &str| {
            let raw: &RawValue = serde_json::from_str(object).expect("JSON");
            Attrs::with(Some(Attrs::new(raw).expect("an object")), "level", "NOTE").as_str().to_owned()
        };
        assert_eq!(with("{}"), r#"{"level":"NOTE"}"#);
        assert_eq!(with(r#"{"a":1}"#), r#"{"level":"NOTE","a":1}"#);
        assert_eq!(with(r#"{"level":7}"#), r#"{"level":7}"#);
    }

    #[test]
    fn a_label_called_ts_does_not_deceive() {
        let line = br#"{"app":"\"ts\":","labels":{"ts":"x"},"ts":"1970-01-01T00:00:00.001Z","message":"m"}"#;
        let start = tail_start(line).expect("found");
        assert!(line[start..].starts_with(br#""ts":"1970"#));
        assert!(tail_start(br#"{"app":"ts"}"#).is_err());
        assert!(tail_start(b"\"\\").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            nanos: i64, level in 0usize..7, source: String, message: String, raw: Option<Vec<u8>>, partial: bool,
        ) {
            use base64::Engine as _;
            let raw = raw.filter(|raw| !raw.is_empty());
            let record = Record {
                ts: Timestamp::from_nanos(nanos),
                level: Level::ALL.get(level).copied(),
                source: source.into(),
                message: message.into(),
                attrs: None,
                raw: raw.map(|raw| base64::prelude::BASE64_STANDARD.encode(raw).into()),
                partial,
            };
            let text = json(&record);
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(Record::parse_json(text.as_bytes()).expect("own JSON"), record);
        }
    }
}
