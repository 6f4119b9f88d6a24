//! Records as answers carry them, how they are printed, and how this client writes its own.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::output::{BOLD, CYAN, DIM, Out, RED, RESET, YELLOW, rfc3339};
use crate::model::{Level, Timestamp};

/// A record of an answer; what is missing is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(default)]
    pub(super) line: u64,
    #[serde(borrow, default)]
    pub(super) app: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) instance: Cow<'a, str>,
    #[serde(default)]
    pub(super) attempt: Option<u64>,
    #[serde(borrow, default)]
    ts: Cow<'a, str>,
    #[serde(borrow, default)]
    level: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
    #[serde(default)]
    partial: bool,
}

impl Line<'_> {
    /// The message's bytes as they came in.
    pub(super) fn message(&self) -> Cow<'_, [u8]> {
        let raw = self.raw.as_deref().filter(|raw| !raw.is_empty());
        match raw.and_then(|raw| BASE64_STANDARD.decode(raw).ok()) {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(self.message.as_bytes()),
        }
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.ts).ok()
    }

    pub(super) fn level_name(&self) -> Option<&'static str> {
        self.level.as_deref().and_then(Level::parse).map(Level::as_str)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// The messages alone, byte for byte
    #[default]
    Raw,
    /// `time LEVEL [source] message`
    Text,
    /// One JSON object a line, as the daemon gives it
    Ndjson,
}

/// How lines are to look.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) format: Format,
    pub(super) timestamps: bool,
    pub(super) utc: bool,
    pub(super) color: bool,
    /// What to make stand out, where there is color.
    pub(super) highlight: Option<regex::bytes::Regex>,
}

/// Prints lines, and joins the pieces of those that were too long for one record.
#[derive(Debug)]
pub(super) struct Printer {
    look: Look,
    /// The line number and source that go on with a line printed in part.
    goes_on: Option<(u64, String)>,
    /// How many records were printed.
    pub(super) printed: u64,
}

impl Printer {
    pub(super) fn new(look: Look) -> Self {
        Self { look, goes_on: None, printed: 0 }
    }

    /// `json` is the record's own text.
    pub(super) fn print(&mut self, out: &mut Out, json: &str, line: &Line<'_>) -> anyhow::Result<()> {
        self.printed += 1;
        if self.look.format == Format::Ndjson {
            return out.line(json);
        }
        let source = line.source.as_deref().unwrap_or_default();
        let joined = match self.goes_on.take() {
            Some((number, of)) if number == line.line && of == source => true,
            Some(_) => {
                out.write(b"\n")?;
                false
            }
            None => false,
        };
        let level = line.level.as_deref().and_then(Level::parse);
        if !joined {
            out.write(self.prefix(line, level).as_bytes())?;
        }
        self.message(out, &line.message(), level)?;
        if line.partial {
            self.goes_on = Some((line.line + 1, source.to_owned()));
            return Ok(());
        }
        out.write(b"\n")
    }

    /// Ends a line whose last piece did not come.
    pub(super) fn end(&mut self, out: &mut Out) -> anyhow::Result<()> {
        match self.goes_on.take() {
            Some(_) => out.write(b"\n"),
            None => Ok(()),
        }
    }

    /// Between groups of lines that do not touch, as grep does.
    pub(super) fn gap(&mut self, out: &mut Out) -> anyhow::Result<()> {
        self.end(out)?;
        if self.look.format == Format::Ndjson { Ok(()) } else { out.line("--") }
    }

    fn prefix(&self, line: &Line<'_>, level: Option<Level>) -> String {
        let mut prefix = String::new();
        let text = self.look.format == Format::Text;
        if text || self.look.timestamps {
            let ts = Timestamp::parse(&line.ts).map_or_else(|_| line.ts.to_string(), |ts| rfc3339(ts, self.look.utc));
            prefix.push_str(&self.painted(&ts, DIM));
            prefix.push(' ');
        }
        if !text {
            return prefix;
        }
        if let Some(level) = level {
            prefix.push_str(&self.painted(level.as_str(), color_of(level).unwrap_or_default()));
            prefix.push(' ');
        }
        if let Some(source) = line.source.as_deref().filter(|source| !source.is_empty()) {
            prefix.push_str(&self.painted(&format!("[{source}]"), CYAN));
            prefix.push(' ');
        }
        prefix
    }

    fn painted(&self, text: &str, color: &str) -> String {
        if self.look.color && !color.is_empty() { format!("{color}{text}{RESET}") } else { text.to_owned() }
    }

    fn message(&self, out: &mut Out, message: &[u8], level: Option<Level>) -> anyhow::Result<()> {
        // A message with colors of its own keeps them.
        if !self.look.color || memchr::memchr(0x1B, message).is_some() {
            return out.write(message);
        }
        let base = level.and_then(color_of).unwrap_or_default();
        out.write(base.as_bytes())?;
        highlight(out, message, self.look.highlight.as_ref(), base)?;
        if base.is_empty() { Ok(()) } else { out.write(RESET.as_bytes()) }
    }
}

/// Writes `text` with what matches in bold red, on top of the color `base`.
pub(super) fn highlight(
    out: &mut Out,
    text: &[u8],
    regex: Option<&regex::bytes::Regex>,
    base: &str,
) -> anyhow::Result<()> {
    let mut at = 0;
    for found in regex.iter().flat_map(|regex| regex.find_iter(text)).filter(|found| !found.is_empty()) {
        out.write(&text[at..found.start()])?;
        out.write(format!("{BOLD}{RED}").as_bytes())?;
        out.write(found.as_bytes())?;
        out.write(format!("{RESET}{base}").as_bytes())?;
        at = found.end();
    }
    out.write(&text[at..])
}

fn color_of(level: Level) -> Option<&'static str> {
    match level {
        Level::Fatal | Level::Error => Some(RED),
        Level::Warn => Some(YELLOW),
        Level::Info => None,
        Level::Debug | Level::Trace => Some(DIM),
    }
}

/// A record that this client writes itself.
pub(super) struct NewRecord<'a> {
    pub(super) ts: Option<Timestamp>,
    pub(super) level: Option<Level>,
    pub(super) source: &'a str,
    pub(super) message: &'a [u8],
    /// The next record goes on with the same line.
    pub(super) partial: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl NewRecord<'_> {
    /// Appends the record as a line of NDJSON. Bytes that are no UTF-8 go in `raw` as base64.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let message = String::from_utf8_lossy(self.message);
        let raw = matches!(message, Cow::Owned(_)).then(|| BASE64_STANDARD.encode(self.message));
        let record = Written {
            ts: self.ts.map(|ts| ts.to_string()),
            level: self.level.map(Level::as_str),
            source: self.source,
            message: &message,
            raw,
            partial: self.partial,
        };
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(&mut *to, &record);
        to.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Memory;
    use super::*;

    fn printed(look: Look, records: &[&str]) -> String {
        let memory = Memory::default();
        let mut out = Out::into(memory.clone());
        let mut printer = Printer::new(look);
        for json in records {
            let line: Line<'_> = serde_json::from_str(json).expect("a record");
            printer.print(&mut out, json, &line).expect("memory takes all");
        }
        printer.end(&mut out).expect("memory takes all");
        memory.text()
    }

    #[test]
    fn raw_gives_the_bytes_back() {
        let records = [
            r#"{"line":0,"ts":"2026-11-22T10:00:00.000Z","message":"a\r"}"#,
            r#"{"line":1,"ts":"2026-11-22T10:00:00.000Z","message":"\ufffd","raw":"/w=="}"#,
            r#"{"line":2,"message":"one ","partial":true}"#,
            r#"{"line":3,"message":"line"}"#,
            r#"{"line":4,"message":"cut","partial":true}"#,
            r#"{"line":9,"level":null,"source":null,"message":"other"}"#,
        ];
        let memory = printed(Look::default(), &records);
        assert_eq!(memory, "a\r\n\u{FFFD}\none line\ncut\nother\n");
    }

    #[test]
    fn text_names_time_level_and_source() {
        let records = [
            r#"{"line":0,"ts":"2026-11-22T10:00:00.000Z","level":"ERROR","source":"w1","message":"boom\n  at x"}"#,
            r#"{"line":1,"ts":"2026-11-22T10:00:00.000001Z","message":"plain"}"#,
        ];
        let look = || Look { format: Format::Text, utc: true, ..Look::default() };
        assert_eq!(
            printed(look(), &records),
            "2026-11-22T10:00:00.000Z ERROR [w1] boom\n  at x\n2026-11-22T10:00:00.000001Z plain\n"
        );
        let highlight = regex::bytes::Regex::new("boo").ok();
        let colored = printed(Look { color: true, highlight, ..Look::default() }, &records);
        assert!(colored.starts_with("\x1b[31m\x1b[1m\x1b[31mboo\x1b[0m\x1b[31mm\n"), "{colored:?}");
        assert!(colored.ends_with("plain\n"));
    }

    #[test]
    fn what_is_written_is_read() {
        for message in [&b"plain \" \\ \n"[..], b"\xFF\xFE caf\xC3\xA9", b""] {
            let mut json = Vec::new();
            NewRecord { ts: None, level: Some(Level::Warn), source: "s", message, partial: true }.write(&mut json);
            assert_eq!(json.iter().filter(|&&b| b == b'\n').count(), 1);
            let line: Line<'_> = serde_json::from_slice(&json).expect("a record");
            assert_eq!(&*line.message(), message);
            assert!(line.partial && line.level.as_deref() == Some("WARN"));
        }
    }
}
