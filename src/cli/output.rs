//! Writing to stdout, and how numbers and times look to people.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat, Utc};

use crate::model::Timestamp;

pub(super) const RESET: &str = "\x1b[0m";
pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const DIM: &str = "\x1b[2m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const MAGENTA: &str = "\x1b[35m";
pub(super) const CYAN: &str = "\x1b[36m";

/// Whoever reads our stdout went away; the quiet end of `logtier logs … | head`.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub(super) struct OutputClosed;

/// Buffered stdout, or what stands for it in a test.
pub(super) struct Out {
    to: Box<dyn Write>,
    pub(super) terminal: bool,
}

impl Out {
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { to: Box::new(BufWriter::with_capacity(64 << 10, io::stdout())), terminal }
    }

    #[cfg(test)]
    pub(super) fn into(to: impl Write + 'static) -> Self {
        Self { to: Box::new(to), terminal: false }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.to.write_all(bytes).map_err(failed)
    }

    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.to.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => anyhow::Error::new(error).context("write to stdout"),
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    pub(super) fn on(self, out: &Out) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => out.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One of several: `1 line`, `2 lines`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// `1536` as `1.5 KiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut size, mut unit) = (n as f64 / 1024.0, 0);
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// The two largest units of a span: `3d 4h`, `5m 2s`, `250ms`.
pub(super) fn span(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{secs}s"),
        60..3_600 => format!("{}m {}s", secs / 60, secs % 60),
        3_600..86_400 => format!("{}h {}m", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{}d {}h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// RFC 3339 in the local zone, or in UTC, with as many digits as the moment has.
pub(super) fn rfc3339(ts: Timestamp, utc: bool) -> String {
    if utc {
        return ts.to_string();
    }
    let digits = match ts.nanos() {
        n if n % 1_000_000 == 0 => SecondsFormat::Millis,
        n if n % 1_000 == 0 => SecondsFormat::Micros,
        _ => SecondsFormat::Nanos,
    };
    DateTime::<Utc>::from_timestamp_nanos(ts.nanos()).with_timezone(&Local).to_rfc3339_opts(digits, false)
}

/// `2026-11-22 10:00:00` in the local zone; what cannot be read stays as it is.
pub(super) fn local_time(text: &str) -> String {
    match Timestamp::parse(text) {
        Ok(ts) => DateTime::<Utc>::from_timestamp_nanos(ts.nanos())
            .with_timezone(&Local)
            .format("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 1 << 20, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 MiB", "5.0 GiB"]);
        assert_eq!([1, 2].map(|n| count(n, "line")), ["1 line", "2 lines"]);
        let spans = [250, 5_000, 302_000, 3_660_000, 273_600_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["250ms", "5s", "5m 2s", "1h 1m", "3d 4h"]);
    }
}
