//! Hostile requests: every line is taken in or refused, and what is taken in can be read back (see `crate::fuzzing`).

use super::{Defaults, decode_bulk, decode_lines, decode_text};
use crate::fuzzing::fuzz;
use crate::model::{AttemptKey, AttemptNo, Record, Timestamp};

fn defaults(keyed: bool) -> Defaults {
    let key = AttemptKey {
        app: "a".parse().expect("a name"),
        instance: "i".parse().expect("a name"),
        attempt: AttemptNo::FIRST,
    };
    Defaults {
        key: keyed.then_some(key),
        batch_key: Some("k".to_owned()),
        arrived: Some(Timestamp::from_nanos(1_800_000_000_000_000_000)),
        max_record_bytes: 1_000,
        ..Defaults::default()
    }
}

#[test]
fn fuzz_ndjson() {
    let corpus = [
        r#"{"app":"a","instance":"i","attempt":2,"ts":"2026-01-01T00:00:00+01:00","level":"WARN","source":"w","message":"m","attrs":{"a":[1,2.50,{"b":null}]},"labels":{"k":"v"},"job":"j"}"#,
        "{\"instance\":\"i\",\"message\":\"a\\ud800b\\u0000\"}\n{\"instance\":\"i\",\"ts\":1700000000000,\"message\":\"\"}\n",
        r#"[{"message":"m"},{"message":"n","level":17,"raw":"AAEC"}]"#,
        "plain\r\ntext\n\n\u{feff}",
        r#"{"message":{"deep":[[[[[[[[1]]]]]]]]},"attrs":"no"}"#,
    ];
    let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz("ndjson", corpus, |body| {
        let (bulk, keyed) = (defaults(false), defaults(true));
        let decoded = [Ok(decode_bulk(body, &bulk)), decode_lines(body, &keyed), Ok(decode_text(body, &keyed))];
        let mut answer = String::new();
        for decoded in decoded {
            match decoded {
                Err(error) => answer.push_str(&error.to_string()),
                Ok(decoded) => {
                    for batch in &decoded.batches {
                        let lines: Vec<&[u8]> = batch.lines.json().split_inclusive(|byte| *byte == b'\n').collect();
                        assert_eq!(lines.len(), batch.lines.len(), "a record is one line");
                        for line in lines {
                            Record::parse_json(line).expect("what was taken in can be read");
                        }
                    }
                    answer.extend(decoded.rejected.first().map(|rejected| rejected.error.clone()));
                    answer.push_str(if decoded.accepted > 0 { "some " } else { "none " });
                }
            }
        }
        answer
    });
}
