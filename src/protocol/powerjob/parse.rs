//! From the bytes of a log file to lines, in bounded memory.

use chrono_tz::Tz;

use super::line::{Header, Line, LineLevel, MAX_HEADER_BYTES};
use crate::model::Timestamp;
use crate::protocol::pieces::Pieces;

/// Takes a file as it comes, in parts of any size.
///
/// A line without a header continues the one before, line break included. Before the first header each line is raw.
#[derive(Debug)]
pub struct Parser {
    zone: Tz,
    /// The part of the current line of the file that has come, until it is known how the line begins.
    begun: Vec<u8>,
    /// Whether the beginning of the file's current line was judged; what else comes of it is text.
    judged: bool,
    /// What the line that is being gathered begins with; a raw line has no level.
    ts: Timestamp,
    level: Option<LineLevel>,
    source: String,
    message: Pieces,
    /// A line is being gathered.
    open: bool,
    /// The file's last byte so far was a line break that belongs to the open line, or to its end.
    ended: bool,
}

impl Parser {
    /// `start` is the time of lines before the first that has one.
    pub fn new(zone: Tz, start: Timestamp) -> Self {
        Self {
            zone,
            begun: Vec::new(),
            judged: false,
            ts: start,
            level: None,
            source: String::new(),
            message: Pieces::default(),
            open: false,
            ended: false,
        }
    }

    /// Gives out the lines that are known to be whole.
    pub fn push<E>(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.push_part(&bytes[..at], true, &mut take)?;
            bytes = &bytes[at + 1..];
        }
        if bytes.is_empty() { Ok(()) } else { self.push_part(bytes, false, &mut take) }
    }

    /// Gives out the last line. It is partial where the file did not end with a line break.
    pub fn finish<E>(mut self, mut take: impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        if !self.begun.is_empty() {
            self.judge(&mut take)?;
        }
        let partial = !self.ended;
        self.give(partial, &mut take)
    }

    /// A part of a line of the file, without its line break; `ends` where the break follows.
    fn push_part<E>(
        &mut self,
        part: &[u8],
        ends: bool,
        take: &mut impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.judged {
            self.text(part, take)?;
        } else if self.begun.is_empty() && (ends || part.len() >= MAX_HEADER_BYTES) {
            self.judge_line(part, take)?;
        } else {
            self.begun.extend_from_slice(part);
            if ends || self.begun.len() >= MAX_HEADER_BYTES {
                self.judge(take)?;
            }
        }
        if ends {
            self.ended = true;
            self.judged = false;
        }
        Ok(())
    }

    fn judge<E>(&mut self, take: &mut impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut begun = std::mem::take(&mut self.begun);
        self.judge_line(&begun, take)?;
        begun.clear();
        self.begun = begun;
        Ok(())
    }

    /// The beginning of a line of the file: is it a line of its own, or does it continue the one before?
    fn judge_line<E>(&mut self, line: &[u8], take: &mut impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        self.judged = true;
        if let Some(header) = Header::parse(line, self.zone) {
            self.give(false, take)?;
            (self.ts, self.level) = (header.ts, Some(header.level));
            self.source.clear();
            self.source.push_str(header.source);
            self.open = true;
            self.ended = false;
            return self.text(&line[header.len..], take);
        }
        if self.level.is_none() {
            // Nothing that it could continue.
            self.give(false, take)?;
        } else {
            self.text(b"\n", take)?;
        }
        self.open = true;
        self.ended = false;
        self.text(line, take)
    }

    fn text<E>(&mut self, text: &[u8], take: &mut impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        self.ended = self.ended && text.is_empty();
        let (ts, level, source) = (self.ts, self.level, &self.source);
        self.message.push(text, |message| take(Line { ts, level, source, message, partial: true }))
    }

    /// Gives out the open line, if there is one.
    fn give<E>(&mut self, partial: bool, take: &mut impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        if std::mem::take(&mut self.open) {
            let message = self.message.rest();
            take(Line { ts: self.ts, level: self.level, source: &self.source, message, partial })?;
        }
        self.message.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pieces::PIECE_BYTES;

    /// Each line as `time|LEVEL|source|text`, with `…` where no line break follows.
    fn parsed(file: &[u8], step: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut take = |line: Line<'_>| {
            let (level, message) = (line.level.map_or("", LineLevel::as_str), String::from_utf8_lossy(line.message));
            let end = if line.partial { "…" } else { "" };
            lines.push(format!("{}|{level}|{}|{message}{end}", line.ts, line.source));
            Ok::<_, std::convert::Infallible>(())
        };
        let mut parser = Parser::new(Tz::Asia__Shanghai, Timestamp::from_nanos(0));
        for part in file.chunks(step) {
            let Ok(()) = parser.push(part, &mut take);
        }
        let Ok(()) = parser.finish(&mut take);
        lines
    }

    fn check(file: &str, lines: &[&str]) {
        for step in [1, 7, 10_000] {
            assert_eq!(parsed(file.as_bytes(), step), lines, "{file:?} by {step}");
        }
    }

    #[test]
    fn lines_without_a_header_continue_the_one_before() {
        check(
            "2026-11-22 18:00:00.000 [w:1] INFO start\n\
             2026-11-22 18:00:01.500 [w:2] ERROR it broke\n  at Main.java:7\n\n  at B\r\n\
             2026-11-22 18:00:02.000 [w:1] OFF \n",
            &[
                "2026-11-22T10:00:00.000Z|INFO|w:1|start",
                "2026-11-22T10:00:01.500Z|ERROR|w:2|it broke\n  at Main.java:7\n\n  at B\r",
                "2026-11-22T10:00:02.000Z|OFF|w:1|",
            ],
        );
    }

    #[test]
    fn lines_before_the_first_header_are_raw() {
        check(
            "\nfirst\n2026-11-22 18:00:00.000 [] INFO x\n2026-11-22 18:00:00.000 [w] INFO y\nz\n",
            &[
                "1970-01-01T00:00:00.000Z|||",
                "1970-01-01T00:00:00.000Z|||first",
                "1970-01-01T00:00:00.000Z|||2026-11-22 18:00:00.000 [] INFO x",
                "2026-11-22T10:00:00.000Z|INFO|w|y\nz",
            ],
        );
    }

    #[test]
    fn the_end_is_kept_as_it_is() {
        check("", &[]);
        check("a", &["1970-01-01T00:00:00.000Z|||a…"]);
        check("2026-11-22 18:00:00.000 [w] INFO y\nz", &["2026-11-22T10:00:00.000Z|INFO|w|y\nz…"]);
        check("2026-11-22 18:00:00.000 [w] INFO ", &["2026-11-22T10:00:00.000Z|INFO|w|…"]);
    }

    #[test]
    fn a_line_without_end_goes_in_pieces() {
        let mut file = b"2026-11-22 18:00:00.000 [w] INFO ".to_vec();
        file.extend("é".repeat(PIECE_BYTES).into_bytes());
        file.extend_from_slice(b"\nlast\n");
        for step in [1_000, 300_000, 10_000_000] {
            let mut pieces = Vec::new();
            let mut parser = Parser::new(Tz::UTC, Timestamp::from_nanos(0));
            let mut take = |line: Line<'_>| {
                assert!(line.message.len() <= PIECE_BYTES && std::str::from_utf8(line.message).is_ok());
                pieces.push((line.message.len(), line.partial));
                Ok::<_, std::convert::Infallible>(())
            };
            for part in file.chunks(step) {
                let Ok(()) = parser.push(part, &mut take);
            }
            let Ok(()) = parser.finish(&mut take);
            let (last, others) = pieces.split_last().expect("pieces");
            assert!(!last.1 && others.iter().all(|(_, partial)| *partial) && others.len() >= 2);
            assert_eq!(pieces.iter().map(|(len, _)| len).sum::<usize>(), 2 * PIECE_BYTES + "\nlast".len());
        }
    }
}
