//! One record as clients write it, before it is checked.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::{Labels, is_as_written};

/// The members of a record; those that nobody knows are kept as attributes.
#[derive(Default)]
pub(super) struct Input<'a> {
    pub(super) app: Option<Cow<'a, str>>,
    pub(super) job: Option<Cow<'a, str>>,
    pub(super) instance: Option<Cow<'a, str>>,
    pub(super) attempt: Option<i64>,
    pub(super) ts: Option<Scalar<'a>>,
    pub(super) level: Option<Scalar<'a>>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) message: Message<'a>,
    pub(super) attrs: Option<&'a RawValue>,
    pub(super) labels: Option<Labels>,
    pub(super) raw: Option<Cow<'a, str>>,
    pub(super) partial: bool,
    pub(super) unknown: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// A text that is borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a record says.
pub(super) enum Message<'a> {
    /// A JSON string that is escaped as we would write it: it is copied, and never taken apart.
    Written(&'a str),
    Bytes(Cow<'a, [u8]>),
}

impl Default for Message<'_> {
    fn default() -> Self {
        Self::Bytes(Cow::Borrowed(b""))
    }
}

impl<'a> Message<'a> {
    pub(super) fn into_bytes(self) -> serde_json::Result<Cow<'a, [u8]>> {
        match self {
            Self::Written(json) => Ok(serde_json::from_str::<MessageBytes<'a>>(json)?.0),
            Self::Bytes(bytes) => Ok(bytes),
        }
    }
}

impl<'a> Input<'a> {
    /// Reads a line. One that is no JSON in the strict sense is looked at again: in a message, bytes that are no UTF-8
    /// and control characters that are not escaped are taken as they are.
    pub(super) fn parse(line: &'a [u8]) -> serde_json::Result<Self> {
        // Text is known to be text once, not string by string.
        let strict = std::str::from_utf8(line)
            .ok()
            .map(|text| Self::read(serde_json::Deserializer::from_str(text), InputVisitor { is_strict: true }));
        match strict {
            Some(Ok(input)) => Ok(input),
            _ => Self::read(serde_json::Deserializer::from_slice(line), InputVisitor { is_strict: false }),
        }
    }

    fn read<R: serde_json::de::Read<'a>>(
        mut json: serde_json::Deserializer<R>,
        visitor: InputVisitor,
    ) -> serde_json::Result<Self> {
        let input = json.deserialize_map(visitor)?;
        json.end()?;
        Ok(input)
    }
}

struct InputVisitor {
    is_strict: bool,
}

impl InputVisitor {
    fn message<'de, M: MapAccess<'de>>(&self, members: &mut M) -> Result<Message<'de>, M::Error> {
        if !self.is_strict {
            return Ok(Message::Bytes(members.next_value::<MessageBytes<'de>>()?.0));
        }
        let json = Message::Written(members.next_value::<&'de RawValue>()?.get());
        match json {
            Message::Written(written) if is_as_written(written) => Ok(json),
            other => other.into_bytes().map(Message::Bytes).map_err(M::Error::custom),
        }
    }
}

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record, {\"message\": …}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let mut input = Input::default();
        let mut message = None;
        while let Some(Text(name)) = members.next_key()? {
            let text = |members: &mut M| Ok(members.next_value::<Option<Text<'de>>>()?.map(|Text(text)| text));
            match &*name {
                "app" => input.app = text(&mut members)?,
                "job" => input.job = text(&mut members)?,
                "instance" => input.instance = text(&mut members)?,
                "attempt" => input.attempt = members.next_value()?,
                "ts" => input.ts = members.next_value()?,
                "level" => input.level = members.next_value()?,
                "source" => input.source = text(&mut members)?,
                "message" => message = Some(self.message(&mut members)?),
                "attrs" => input.attrs = members.next_value()?,
                "labels" => input.labels = members.next_value()?,
                "raw" => input.raw = text(&mut members)?,
                "partial" => input.partial = members.next_value::<Option<bool>>()?.unwrap_or(false),
                // What was read can be sent again, and gets a number of its own.
                "line" => drop(members.next_value::<IgnoredAny>()?),
                _ => input.unknown.push((name, members.next_value()?)),
            }
        }
        input.message = message.ok_or_else(|| M::Error::missing_field("message"))?;
        Ok(input)
    }
}

/// A string or a number.
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Integer(i64),
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.to_owned().into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Integer(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                i64::try_from(number).map(Scalar::Integer).map_err(|_| E::custom("number is too large"))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A JSON string whose bytes need not be UTF-8.
pub struct MessageBytes<'a>(Cow<'a, [u8]>);

impl MessageBytes<'_> {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MessageBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = MessageBytes<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(MessageBytes(bytes.into()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(MessageBytes(bytes.to_owned().into()))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(MessageBytes(text.as_bytes().into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MessageBytes(text.as_bytes().to_owned().into()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}
