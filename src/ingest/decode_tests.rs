use proptest::prelude::*;

use super::*;

fn defaults() -> Defaults {
    Defaults { arrived: Some(Timestamp::from_nanos(5_000_000)), max_record_bytes: 1 << 20, ..Defaults::default() }
}

fn for_attempt(instance: &str) -> Defaults {
    let key =
        AttemptKey { app: App::default(), instance: instance.parse().expect("a name"), attempt: AttemptNo::FIRST };
    Defaults { key: Some(key), ..defaults() }
}

fn json_of(decoded: &Decoded) -> Vec<String> {
    decoded.batches.iter().map(|batch| String::from_utf8_lossy(batch.lines.json()).into_owned()).collect()
}

#[test]
fn a_bad_line_does_not_sink_the_good_ones() {
    let body = br#"{"instance":"1","message":"a"}
not json

{"message":"nowhere"}
{"instance":"2","ts":"2026-01-01T00:00:00Z","level":"warning","source":"w","message":"b","attrs":{"k": 1}}
{"instance":"1","ts":1000,"level":"NOTE","message":"c"}
{"instance":"1","ts":"soon","message":"d"}
{"instance":"1"}
"#;
    let decoded = decode_bulk(body, &defaults());
    assert_eq!(decoded.accepted, 3);
    assert_eq!(
        json_of(&decoded),
        [
            "{\"ts\":\"1970-01-01T00:00:00.005Z\",\"message\":\"a\"}\n\
             {\"ts\":\"1970-01-01T00:00:01.000Z\",\"message\":\"c\",\"attrs\":{\"level\":\"NOTE\"}}\n",
            "{\"ts\":\"2026-01-01T00:00:00.000Z\",\"level\":\"WARN\",\"source\":\"w\",\"message\":\"b\",\"attrs\":{\"k\":1}}\n",
        ]
    );
    let errors: Vec<(u64, &str)> = decoded.rejected.iter().map(|r| (r.index, r.error.as_str())).collect();
    assert_eq!(errors[0], (1, "no record in JSON: expected ident, at byte 2 of the line"));
    assert_eq!(errors[1], (2, "instance is missing"));
    assert!(errors[2].1.starts_with("ts \"soon\" is neither"), "{errors:?}");
    assert_eq!((errors[2].0, errors[3].0), (5, 6));
    assert!(errors[3].1.contains("missing field `message`"), "{errors:?}");
}

#[test]
fn members_that_nobody_knows_become_attributes() {
    let body = "\u{FEFF}{\"instance\":\"1\",\"line\":9,\"message\":\"a\",\"user\":\"bob\",\"attrs\":{\"k\":1},\"k\":2,\"deep\": {\"a\": [1, 2.50]}}
{\"instance\":\"1\",\"trace\":null,\"message\":\"b\",\"level\":\"odd\",\"ts\":1000.5}";
    let decoded = decode_bulk(body.as_bytes(), &defaults());
    assert_eq!(
        json_of(&decoded),
        [concat!(
            r#"{"ts":"1970-01-01T00:00:00.005Z","message":"a","attrs":{"k":1,"user":"bob","deep":{"a":[1,2.50]}}}"#,
            "\n",
            r#"{"ts":"1970-01-01T00:00:01.000500Z","message":"b","attrs":{"level":"odd","trace":null}}"#,
            "\n"
        )]
    );
}

#[test]
fn bytes_that_are_no_utf8_are_kept() {
    let decoded = decode_bulk(b"{\"instance\":\"1\",\"message\":\"a\xFFb\"}", &defaults());
    assert_eq!(decoded.not_utf8, 1);
    assert_eq!(
        json_of(&decoded),
        ["{\"ts\":\"1970-01-01T00:00:00.005Z\",\"message\":\"a\u{FFFD}b\",\"raw\":\"Yf9i\"}\n"]
    );
    // What was read back can be sent again.
    let again = decode_bulk(br#"{"instance":"1","message":"a\ufffdb","raw":"Yf9i"}"#, &defaults());
    assert_eq!(json_of(&again), json_of(&decoded));
}

#[test]
fn text_keeps_every_byte_but_the_newline() {
    let decoded = decode_text(b"a\r\n\nb\x00", &for_attempt("1"));
    let messages: Vec<String> = json_of(&decoded)[0]
        .lines()
        .map(|line| Record::parse_json(line.as_bytes()).expect("own JSON").message.into_owned())
        .collect();
    assert_eq!(messages, ["a\r", "", "b\0"]);
    let lines_in = |body: &[u8]| decode_text(body, &for_attempt("1")).accepted;
    assert_eq!([lines_in(b""), lines_in(b"\n"), lines_in(b"\n\n"), lines_in(b"a")], [0, 1, 2, 1]);
}

#[test]
fn a_charset_is_honoured_and_its_errors_are_kept() {
    let gbk = encoding_rs::Encoding::for_label(b"gbk");
    let decoded = decode_text(b"\xC4\xE3\xBA\xC3\n\x81", &Defaults { charset: gbk, ..for_attempt("1") });
    let text = &json_of(&decoded)[0];
    assert!(text.contains("你好") && text.contains("\"raw\":\"gQ==\""), "{text}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_body() {
    for body in ["\u{FEFF}{\"message\":\"a\"}", "\u{FEFF}[{\"message\":\"a\"}]"] {
        let decoded = decode_lines(body.as_bytes(), &for_attempt("i")).expect("records");
        assert_eq!((decoded.accepted, decoded.rejected.len()), (1, 0), "{body}");
    }
}

#[test]
fn an_array_is_understood_and_another_attempt_refused() {
    let body = br#"[{"message":"a"},{"instance":"2","message":"b"},{"instance":"1","attempt":1,"message":"c"}]"#;
    let decoded = decode_lines(body, &for_attempt("1")).expect("an array");
    assert_eq!((decoded.accepted, decoded.rejected.len()), (2, 1));
    assert!(decode_lines(b"[{", &for_attempt("1")).is_err());
}

#[test]
fn the_time_of_arrival_does_not_change_what_a_key_stands_for() {
    let key = |body: &[u8], arrived: i64, client_key: &str| {
        let defaults = Defaults {
            arrived: Some(Timestamp::from_nanos(arrived)),
            batch_key: Some(client_key.to_owned()),
            ..defaults()
        };
        decode_bulk(body, &defaults).batches[0].batch_key.expect("a key")
    };
    let body = br#"{"instance":"1","message":"a"}"#;
    assert_eq!(key(body, 1, "k"), key(body, 2, "k"));
    assert_ne!(key(body, 1, "k").hash, key(body, 1, "l").hash);
    assert_ne!(key(body, 1, "k").content, key(br#"{"instance":"1","message":"b"}"#, 1, "k").content);
}

proptest! {
    #[test]
    fn a_message_is_the_same_however_it_is_escaped(message: String, of: prop::sample::Index) {
        let written = serde_json::to_string(&message).expect("JSON");
        let units: Vec<String> = message.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let line = |message: &str| format!("{{\"instance\":\"1\",\"ts\":1,\"message\":{message}}}\n");
        let decoded = decode_bulk([line(&written), line(&format!("\"{}\"", units.concat()))].concat().as_bytes(), &defaults());
        let lines = json_of(&decoded).concat();
        let (first, second) = lines.split_at(lines.len() / 2);
        prop_assert_eq!(first, second);
        prop_assert!(first.ends_with(&format!("\"message\":{written}}}\n")), "{}", first);
        // What JSON would refuse is taken as it is: a tab that is not escaped, and bytes that are no text.
        let at = of.index(written.len() - 1) + 1;
        if written.is_char_boundary(at) && !written[..at].ends_with('\\') && !written[..at].contains("\\u") {
            for odd in [&b"\t"[..], b"\xFF"] {
                let (before, after) = written.as_bytes().split_at(at);
                let body = [b"{\"instance\":\"1\",\"message\":", before, odd, after, b"}"].concat();
                prop_assert_eq!(decode_bulk(&body, &defaults()).accepted, u64::from(at < written.len()));
            }
        }
    }

    #[test]
    fn hostile_bodies_do_not_panic(body: Vec<u8>) {
        decode_bulk(&body, &defaults());
        decode_text(&body, &for_attempt("1"));
        let _ = decode_lines(&body, &for_attempt("1"));
    }
}

#[test]
fn decoding_stops_where_the_room_ends() {
    let budget = Budget::new(1 << 20);
    let bounded = |instance| Defaults { budget: Some(budget.clone()), ..for_attempt(instance) };
    // One message that is escaped to six times its bytes; many attempts; many bad lines; many turns.
    let turns: String = (0..40_000).map(|n| format!("{{\"instance\":\"{}\",\"message\":\"\"}}\n", n % 2)).collect();
    let attempts: String = (0..2_000).map(|n| format!("{{\"instance\":\"{n}\",\"message\":\"\"}}\n")).collect();
    let bulk = Defaults { budget: Some(budget.clone()), ..defaults() };
    for (what, decoded) in [
        ("message", decode_text(&vec![1; 300_000], &Defaults { max_record_bytes: 64 << 10, ..bounded("i") })),
        ("attempts", decode_bulk(attempts.as_bytes(), &bulk)),
        ("rejected", decode_bulk("{}\n".repeat(100_000).as_bytes(), &bulk)),
        ("turns", decode_bulk(turns.as_bytes(), &bulk)),
    ] {
        assert_eq!(decoded.refused, Some(NoRoom::TooLarge { limit: 1 << 20 }), "{what}");
        assert!(decoded.batches.is_empty() && decoded.rejected.is_empty() && decoded.accepted == 0, "{what}");
        assert_eq!(budget.taken_bytes(), 0, "{what}");
    }
    let some = decode_text(&vec![b'\n'; 1_000], &bounded("i"));
    let memory = some.batches[0].memory();
    assert!(some.refused.is_none() && budget.taken_bytes() >= memory && budget.taken_bytes() < memory + (64 << 10));
}
