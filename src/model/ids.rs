//! Names and numbers that say which log is meant.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name in bytes; the width of the `VARBINARY(255)` columns that hold them.
const MAX_NAME_BYTES: usize = 255;

/// Largest encoded size of an attempt's labels in bytes; the width of the `labels` column.
pub const MAX_LABELS_BYTES: usize = 2048;

/// A name that is empty, too long, or holds a character that a rule name may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("{kind} must not be empty")]
    Empty { kind: &'static str },
    #[error("{kind} has {bytes} bytes, at most {MAX_NAME_BYTES} are allowed")]
    TooLong { kind: &'static str, bytes: usize },
    #[error("{kind} \"{name}\" may only hold letters, digits, '-', '_' and '.'")]
    Character { kind: &'static str, name: String },
    #[error("attempt must be a whole number from 1 to 2147483647")]
    Attempt,
    #[error("labels take {bytes} bytes as JSON, at most {MAX_LABELS_BYTES} are allowed")]
    Labels { bytes: usize },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                match name.len() {
                    0 => Err(InvalidName::Empty { kind: $kind }),
                    1..=MAX_NAME_BYTES => Ok(Self(name.into())),
                    bytes => Err(InvalidName::TooLong { kind: $kind, bytes }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A namespace: a PowerJob app, an Airflow deployment, a team. 1–255 bytes of UTF-8.
    App,
    "app"
);
name_type!(
    /// The definition that is run; a label on the instance. 1–255 bytes of UTF-8.
    Job,
    "job"
);
name_type!(
    /// One run of a job, named by the scheduler's own id. 1–255 bytes of UTF-8.
    Instance,
    "instance"
);
name_type!(
    /// The name of a retention rule. It stands in object keys, so [`RuleName::checked`] allows
    /// only letters, digits, `-`, `_` and `.` in a new one.
    RuleName,
    "rule name"
);

impl Default for App {
    fn default() -> Self {
        Self("default".into())
    }
}

impl RuleName {
    /// A rule name as a configuration may give it: also free of characters that need escaping
    /// in an object key.
    pub fn checked(name: &str) -> Result<Self, InvalidName> {
        let parsed: Self = name.parse()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(plain) || name.starts_with('.') {
            return Err(InvalidName::Character { kind: "rule name", name: name.to_owned() });
        }
        Ok(parsed)
    }
}

/// A run under an instance id, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AttemptNo(u32);

impl AttemptNo {
    pub const FIRST: Self = Self(1);

    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for AttemptNo {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TryFrom<i64> for AttemptNo {
    type Error = InvalidName;

    fn try_from(number: i64) -> Result<Self, InvalidName> {
        match u32::try_from(number) {
            Ok(n) if n >= 1 && n <= i32::MAX as u32 => Ok(Self(n)),
            _ => Err(InvalidName::Attempt),
        }
    }
}

impl FromStr for AttemptNo {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse::<i64>().map_err(|_| InvalidName::Attempt)?.try_into()
    }
}

impl fmt::Display for AttemptNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for AttemptNo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// The catalog's id of an attempt: time-ordered, so that new chunks land at the right edge of
/// the chunk table's B-tree. Made by the writer that creates the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(i64);

impl AttemptId {
    /// 41 bits of milliseconds since 2020 (until 2089) above 22 random bits.
    ///
    /// Two writers may draw the same id; `catalog::reserve` notices, and a fresh one is drawn.
    pub fn at(now: super::Millis, random: u32) -> Self {
        const MILLIS_2020: i64 = 1_577_836_800_000;
        let millis = (now.get() - MILLIS_2020).clamp(0, (1 << 41) - 1);
        Self(millis << 22 | i64::from(random & 0x3F_FFFF))
    }

    /// An id as a table or a segment index holds it.
    pub fn stored(id: i64) -> Self {
        Self(id)
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

/// Which attempt of which instance of which app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    pub app: App,
    pub instance: Instance,
    pub attempt: AttemptNo,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.app, self.instance, self.attempt)
    }
}

/// A small map of an attempt's labels (workflow, run, parent …), at most [`MAX_LABELS_BYTES`] as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, InvalidName> {
        for name in labels.keys() {
            match name.len() {
                0 => return Err(InvalidName::Empty { kind: "label name" }),
                1..=MAX_NAME_BYTES => {}
                bytes => return Err(InvalidName::TooLong { kind: "label name", bytes }),
            }
        }
        let labels = Self(labels);
        match labels.to_json().len() {
            bytes if bytes > MAX_LABELS_BYTES => Err(InvalidName::Labels { bytes }),
            _ => Ok(labels),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The JSON object that tables, segment lines and answers carry; `{}` where there are none.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_else(|_| "{}".to_owned())
    }
}

impl FromStr for Labels {
    type Err = serde_json::Error;

    /// Reads what [`Labels::to_json`] wrote; an empty text is an empty map.
    fn from_str(json: &str) -> Result<Self, serde_json::Error> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(json).map(Self)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What every line of an attempt says of where it belongs: the first half of its NDJSON line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub key: AttemptKey,
    pub job: Option<Job>,
    pub labels: Labels,
}

impl Identity {
    /// `{"app":…,"job":…,"instance":…,"attempt":…,"labels":…,` – a record's tail follows it.
    pub fn head(&self) -> Vec<u8> {
        let mut head = b"{\"app\":".to_vec();
        push_json(&mut head, self.key.app.as_str());
        if let Some(job) = &self.job {
            head.extend_from_slice(b",\"job\":");
            push_json(&mut head, job.as_str());
        }
        head.extend_from_slice(b",\"instance\":");
        push_json(&mut head, self.key.instance.as_str());
        if self.key.attempt != AttemptNo::FIRST {
            head.extend_from_slice(format!(",\"attempt\":{}", self.key.attempt).as_bytes());
        }
        if !self.labels.is_empty() {
            head.extend_from_slice(b",\"labels\":");
            head.extend_from_slice(self.labels.to_json().as_bytes());
        }
        head.push(b',');
        head
    }
}

/// The inside of `text` as a JSON string, as all records are written: one escape for each character
/// that needs one, so that a part of a text is a part of its escaped form.
pub fn json_escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    push_json(&mut out, text);
    out.pop();
    out.drain(..1);
    out
}

/// Whether a JSON value is a string that is escaped as all records are written.
pub fn is_as_written(json: &str) -> bool {
    let Some(mut rest) = json.as_bytes().strip_prefix(b"\"") else { return false };
    // As it is JSON, only its escapes can differ.
    while let Some(at) = memchr::memchr(b'\\', rest) {
        rest = match &rest[at + 1..] {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', rest @ ..]
            | [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', rest @ ..] => rest,
            _ => return false,
        };
    }
    true
}

/// Appends `text` as a JSON string.
pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    // Most texts need no escapes. Without a way out of the loop the compiler looks at many bytes at once.
    let escapes = text.bytes().fold(false, |any, byte| any | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if escapes {
        // A string always serializes, and a Vec always takes it.
        let _ = serde_json::to_writer(out, text);
    } else {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_bounded() {
        assert_eq!("".parse::<App>(), Err(InvalidName::Empty { kind: "app" }));
        assert!("x".repeat(255).parse::<Instance>().is_ok());
        assert_eq!("x".repeat(256).parse::<Instance>(), Err(InvalidName::TooLong { kind: "instance", bytes: 256 }));
        assert!(RuleName::checked("a b").is_err() && RuleName::checked("billing-failed.v2").is_ok());
    }

    #[test]
    fn attempts_count_from_one() {
        for bad in ["0", "-1", "x", "2147483648", "1.5"] {
            assert!(bad.parse::<AttemptNo>().is_err(), "{bad}");
        }
        assert_eq!("7".parse::<AttemptNo>().map(AttemptNo::get), Ok(7));
    }

    #[test]
    fn ids_rise_with_time() {
        let early = AttemptId::at(super::super::Millis::new(1_700_000_000_000), u32::MAX);
        let late = AttemptId::at(super::super::Millis::new(1_700_000_000_001), 0);
        assert!(early < late);
    }

    #[test]
    fn escapes_that_are_not_ours_are_told() {
        for ours in [r#""""#, r#""a\"\\\b\f\n\r\t\u0000\u000b\u001b\u001f é 🚀 / ""#] {
            assert!(is_as_written(ours), "{ours}");
        }
        let others =
            [r#""\/""#, r#""\u001B""#, r#""\u000a""#, r#""\u0008""#, r#""\u0020""#, r#""\u00e9""#, "null", "1", "{}"];
        for other in others {
            assert!(!is_as_written(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_as_written_is_written_so(
            text: String, pieces in prop::collection::vec(r#"[ !#-\[\]-~é]|\\["\\/bfnrt]|\\u00[01][0-9a-fA-F]"#, 0..12),
        ) {
            let mut ours = Vec::new();
            push_json(&mut ours, &text);
            prop_assert!(is_as_written(std::str::from_utf8(&ours).expect("JSON")));
            let json = format!("\"{}\"", pieces.concat());
            let said: String = serde_json::from_str(&json).expect("JSON");
            let mut written = Vec::new();
            push_json(&mut written, &said);
            prop_assert_eq!(is_as_written(&json), written == json.as_bytes());
        }
    }

    #[test]
    fn head_names_only_what_is_there() {
        let key =
            AttemptKey { app: App::default(), instance: "a\"b".parse().expect("valid"), attempt: AttemptNo::FIRST };
        let plain = Identity { key: key.clone(), job: None, labels: Labels::default() };
        assert_eq!(plain.head(), br#"{"app":"default","instance":"a\"b","#);
        let full = Identity {
            key: AttemptKey { attempt: "2".parse().expect("valid"), ..key },
            job: Some("j".parse().expect("valid")),
            labels: r#"{"k":"v"}"#.parse().expect("valid"),
        };
        assert_eq!(full.head(), br#"{"app":"default","job":"j","instance":"a\"b","attempt":2,"labels":{"k":"v"},"#);
    }
}
