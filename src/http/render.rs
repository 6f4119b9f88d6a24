//! Records as clients want to see them: JSON, NDJSON, text, or the messages alone.

use axum::http::{HeaderMap, header};

use super::Problem;
use super::params::{Params, invalid};
use crate::model::{Identity, InvalidRecord, Record};

/// How an answer shows records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
    Ndjson,
    Text,
    Raw,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Text | Self::Raw => "text/plain; charset=utf-8",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Text => "text",
            Self::Raw => "raw",
        }
    }

    /// `format=` where it is given, one of `allowed`.
    pub fn take(params: &mut Params, allowed: &[Self]) -> Result<Option<Self>, Problem> {
        let Some(name) = params.take("format")? else { return Ok(None) };
        let found = allowed.iter().copied().find(|format| format.as_str() == name);
        let names = || allowed.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| invalid("format", &name, format!("it must be one of {}", names())))
    }

    /// The best of what `Accept` names; JSON where it names nothing that we have.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next()? {
                "application/x-ndjson" | "application/jsonl" => Self::Ndjson,
                "text/plain" => Self::Text,
                "application/json" | "*/*" | "application/*" => Self::Json,
                _ => return None,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
            Some((format, quality.unwrap_or(1.0)))
        });
        // The first of the best, as the client ordered them.
        let best = ranges.reduce(|best, range| if range.1 > best.1 { range } else { best });
        best.map_or(Self::Json, |(format, _)| format)
    }
}

/// Writes records one after another.
pub struct Renderer {
    format: Format,
    /// What an NDJSON line begins with: a line number where there is none.
    head: Option<Vec<u8>>,
    /// After a piece of a longer line: the number that the next piece would have.
    open: Option<u64>,
    pub out: Vec<u8>,
}

impl Renderer {
    /// Records with their line numbers.
    pub fn numbered(format: Format) -> Self {
        Self { format, head: None, open: None, out: Vec::new() }
    }

    /// NDJSON lines that say which attempt they belong to, as a segment's lines do.
    pub fn identified(format: Format, identity: &Identity) -> Self {
        Self { format, head: Some(identity.head()), open: None, out: Vec::new() }
    }

    pub fn push(&mut self, line: u64, json: &[u8]) -> Result<(), InvalidRecord> {
        match self.format {
            Format::Json | Format::Ndjson => {
                match &self.head {
                    Some(head) => self.out.extend_from_slice(head),
                    None => self.out.extend_from_slice(format!("{{\"line\":{line},").as_bytes()),
                }
                self.out.extend_from_slice(json.get(1..).unwrap_or_default());
                self.out.push(if self.format == Format::Json { b',' } else { b'\n' });
            }
            Format::Text | Format::Raw => self.push_text(line, &Record::parse_json(json)?),
        }
        Ok(())
    }

    /// Pieces of one line are joined; the piece that ends it is followed by the newline.
    fn push_text(&mut self, line: u64, record: &Record<'_>) {
        let goes_on = self.open == Some(line);
        if self.open.is_some() && !goes_on {
            self.out.push(b'\n');
        }
        if self.format == Format::Text && !goes_on {
            self.out.extend_from_slice(record.ts.to_string().as_bytes());
            if let Some(level) = record.level {
                self.out.push(b' ');
                self.out.extend_from_slice(level.as_str().as_bytes());
            }
            if !record.source.is_empty() {
                self.out.extend_from_slice(format!(" [{}]", record.source).as_bytes());
            }
            self.out.push(b' ');
        }
        match self.format {
            Format::Raw => self.out.extend_from_slice(&record.message_bytes()),
            _ => self.out.extend_from_slice(record.message.as_bytes()),
        }
        self.open = record.partial.then_some(line + 1);
        if !record.partial {
            self.out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(format: Format, records: &[(u64, &str)]) -> String {
        let mut renderer = Renderer::numbered(format);
        for (line, json) in records {
            renderer.push(*line, json.as_bytes()).expect("a record");
        }
        String::from_utf8(renderer.out).expect("UTF-8")
    }

    const RECORDS: [(u64, &str); 4] = [
        (0, r#"{"ts":"1970-01-01T00:00:00.001Z","level":"INFO","source":"w1","message":"a"}"#),
        (1, r#"{"ts":"1970-01-01T00:00:00.002Z","message":"lo","partial":true}"#),
        (2, r#"{"ts":"1970-01-01T00:00:00.002Z","message":"ng"}"#),
        (3, r#"{"ts":"1970-01-01T00:00:00.003Z","message":"\ufffd","raw":"/w=="}"#),
    ];

    #[test]
    fn text_joins_pieces_and_leaves_out_what_is_not_there() {
        assert_eq!(
            render(Format::Text, &RECORDS),
            "1970-01-01T00:00:00.001Z INFO [w1] a\n1970-01-01T00:00:00.002Z long\n1970-01-01T00:00:00.003Z \u{fffd}\n"
        );
        assert_eq!(render(Format::Raw, &RECORDS[..3]), "a\nlong\n");
        // The filter took the second piece.
        assert_eq!(render(Format::Raw, &[RECORDS[1], (5, RECORDS[0].1)]), "lo\na\n");
    }

    #[test]
    fn raw_gives_the_bytes_that_came() {
        let mut renderer = Renderer::numbered(Format::Raw);
        renderer.push(3, RECORDS[3].1.as_bytes()).expect("a record");
        assert_eq!(renderer.out, b"\xff\n");
    }

    #[test]
    fn the_best_accepted_format_wins() {
        let accepted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            Format::accepted(&headers)
        };
        assert_eq!(accepted("text/plain"), Format::Text);
        assert_eq!(accepted("text/html, */*;q=0.1"), Format::Json);
        assert_eq!(accepted("text/plain;q=0.5, application/x-ndjson"), Format::Ndjson);
        assert_eq!(accepted("image/png"), Format::Json);
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Json);
    }
}
