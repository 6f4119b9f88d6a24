//! From records back to the bytes of a log file.

use std::io::Write as _;

use chrono::DateTime;
use chrono_tz::Tz;

use crate::model::{Attrs, Record, Timestamp};

/// Renders records one after the other, as PowerJob's server writes them into a file.
#[derive(Debug)]
pub struct Renderer {
    zone: Tz,
    /// The record before was a piece, which the next one goes on with.
    goes_on: bool,
}

impl Renderer {
    pub fn new(zone: Tz) -> Self {
        Self { zone, goes_on: false }
    }

    /// Appends a record with its line break, unless it is a piece.
    pub fn render(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        if !self.goes_on && !record.source.is_empty() {
            self.header(record, out);
        }
        out.extend_from_slice(&record.message_bytes());
        self.goes_on = record.partial;
        if !record.partial {
            out.push(b'\n');
        }
    }

    fn header(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let level = match record.level {
            Some(level) => level.as_str().to_owned(),
            None => record.attrs.as_ref().and_then(Attrs::level_name).unwrap_or_else(|| "UNKNOWN".to_owned()),
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{} [{}] {level} ", self.time(record.ts), record.source);
    }

    fn time(&self, ts: Timestamp) -> impl std::fmt::Display {
        DateTime::from_timestamp_nanos(ts.nanos()).with_timezone(&self.zone).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::{Line, Parser};
    use super::*;

    /// What a file looks like after it was stored as records.
    fn again(file: &[u8], zone: Tz, step: usize) -> Vec<u8> {
        let (mut out, mut renderer) = (Vec::new(), Renderer::new(zone));
        let mut take = |line: Line<'_>| {
            let mut json = Vec::new();
            line.record().write_json(&mut json);
            renderer.render(&Record::parse_json(&json).expect("own JSON"), &mut out);
            Ok::<_, Infallible>(())
        };
        let mut parser = Parser::new(zone, Timestamp::from_nanos(1));
        for part in file.chunks(step) {
            let Ok(()) = parser.push(part, &mut take);
        }
        let Ok(()) = parser.finish(&mut take);
        out
    }

    #[test]
    fn a_file_comes_back_with_the_same_bytes() {
        let gbk = encoding_rs::GBK.encode("任务开始").0.into_owned();
        let mut file = b"2026-11-22 18:00:00.001 [10.0.0.1:27777] INFO ".to_vec();
        file.extend(&gbk);
        file.extend_from_slice(b"\r\n\n2026-03-29 02:30:00.000 [w] OFF x\n2026-10-25 02:30:00.999 [w] UNKNOWN \nend");
        for zone in [Tz::Asia__Shanghai, Tz::Europe__Berlin, Tz::UTC] {
            assert_eq!(again(&file, zone, 5), file, "{zone}");
        }
        let large = [&b"2026-11-22 18:00:00.001 [w] WARN "[..], &vec![b'x'; 600_000], b"\ny\n"].concat();
        assert!(again(&large, Tz::UTC, 4096) == large);
    }

    #[test]
    fn records_of_other_origin_are_rendered_too() {
        let record = Record {
            ts: Timestamp::from_nanos(1_999_999),
            level: None,
            source: "w".into(),
            message: "m".into(),
            attrs: None,
            raw: None,
            partial: false,
        };
        let mut out = Vec::new();
        Renderer::new(Tz::UTC).render(&record, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "1970-01-01 00:00:00.001 [w] UNKNOWN m\n");
    }

    /// Bytes that are likely to look almost like lines.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"2026-11-22 18:00:00.001 [10.0.0.1:27777] INFO ".to_vec()),
            Just(b"2026-03-29 02:30:00.000 [w] ERROR text".to_vec()),
            Just(b"2026-11-22 18:00:00.001 [] WARN ".to_vec()),
            Just(b"2026-13-22 18:00:00.001 [w] OFF ".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b" UNKNOWN ".to_vec()),
            any::<Vec<u8>>(),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_file_comes_back_with_the_same_bytes(file in pieces(), step in 1usize..50) {
            for zone in [Tz::Asia__Shanghai, Tz::Europe__Berlin] {
                prop_assert_eq!(&again(&file, zone, step), &file);
            }
        }
    }
}
