//! Records in.

use serde_json::json;

use super::*;

const RECORDS: &str = "/api/v1/apps/default/instances/i1/records";

#[tokio::test]
async fn lines_are_numbered_in_the_order_they_came() {
    let daemon = Daemon::start().await;
    let body = "{\"ts\":1000,\"level\":\"warning\",\"message\":\"a\"}\n\n{\"ts\":\"1970-01-01T00:00:02Z\",\"message\":\"b\\nc\",\"attrs\":{\"k\": 1}}\n";
    let answer = daemon.post(RECORDS, body).await.json();
    assert_eq!(answer, json!({"attempt":1,"first_line":0,"lines":2,"next_line":2,"accepted":2,"rejected":[]}));
    let array = json!([{"ts": 3000, "message": "d", "level": "odd"}]).to_string();
    let path = format!("{RECORDS}?job=j&source=w1&label.run=7");
    let answer = daemon.send(request("POST", &path, &[("content-type", "application/json")], array)).await.json();
    assert_eq!((&answer["first_line"], &answer["next_line"]), (&json!(2), &json!(3)));
    let page = daemon.get(RECORDS).await.json();
    assert_eq!(
        page["records"],
        json!([
            {"line":0,"ts":"1970-01-01T00:00:01.000Z","level":"WARN","message":"a"},
            {"line":1,"ts":"1970-01-01T00:00:02.000Z","message":"b\nc","attrs":{"k":1}},
            {"line":2,"ts":"1970-01-01T00:00:03.000Z","source":"w1","message":"d","attrs":{"level":"odd"}},
        ])
    );
    let summary = daemon.get("/api/v1/apps/default/instances/i1").await.json();
    assert_eq!((&summary["job"], &summary["labels"]), (&json!("j"), &json!({"run":"7"})));
}

#[tokio::test]
async fn a_bad_line_does_not_sink_the_good_ones() {
    let daemon = Daemon::start().await;
    let answer =
        daemon.post(RECORDS, "{\"message\":\"a\"}\nnonsense\n{\"level\":\"INFO\"}\n{\"message\":\"b\"}\n").await;
    let json = answer.json();
    assert_eq!((answer.status.as_u16(), &json["accepted"], &json["lines"]), (200, &json!(2), &json!(2)));
    let indexes: Vec<_> = json["rejected"].as_array().expect("a list").iter().map(|r| r["index"].clone()).collect();
    assert_eq!(indexes, [json!(1), json!(2)]);
    let nothing_good = daemon.post(RECORDS, "nonsense\n").await.json();
    assert_eq!((&nothing_good["accepted"], &nothing_good["next_line"]), (&json!(0), &Value::Null));
    assert_eq!(daemon.post(RECORDS, "\n\n").await.problem(), (400, "bad-request".to_owned()));
    let text = daemon.api.metrics.encode().expect("text");
    assert!(text.contains("logtier_rejected_records_total 3"), "{text}");
}

#[tokio::test]
async fn bulk_serves_many_attempts_at_once() {
    let daemon = Daemon::start().await;
    let body = "{\"instance\":\"a\",\"message\":\"1\"}\n{\"app\":\"x\",\"instance\":\"b\",\"attempt\":2,\"message\":\"2\"}\n\
                {\"message\":\"no instance\"}\n{\"instance\":\"a\",\"message\":\"3\"}\n";
    let answer = daemon.post("/api/v1/records", body).await.json();
    assert_eq!(
        answer["batches"],
        json!([
            {"app":"default","instance":"a","attempt":1,"first_line":0,"lines":2,"next_line":2},
            {"app":"x","instance":"b","attempt":2,"first_line":0,"lines":1,"next_line":1},
        ])
    );
    assert_eq!((&answer["accepted"], &answer["rejected"][0]["index"]), (&json!(3), &json!(2)));
    assert_eq!(daemon.post("/api/v1/records", "").await.problem(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn bulk_rejects_the_lines_of_a_gone_attempt_alone() {
    let daemon = Daemon::start().await;
    daemon.write("old", "x\n").await;
    daemon.force_state(3, 5).await;
    let body = "{\"instance\":\"old\",\"message\":\"1\"}\n{\"instance\":\"new\",\"message\":\"2\"}\n{\"instance\":\"old\",\"message\":\"3\"}\n";
    let answer = daemon.post("/api/v1/records", body).await;
    let json = answer.json();
    assert_eq!((answer.status.as_u16(), &json["accepted"]), (200, &json!(1)));
    let indexes: Vec<_> = json["rejected"].as_array().expect("a list").iter().map(|r| r["index"].clone()).collect();
    assert_eq!(indexes, [json!(0), json!(2)]);
    let only_gone = daemon.post("/api/v1/records", "{\"instance\":\"old\",\"message\":\"1\"}").await;
    assert_eq!(only_gone.problem(), (410, "gone".to_owned()));
}

#[tokio::test]
async fn at_line_appends_there_or_not_at_all() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\nb\n").await;
    let conflict = daemon.post(&format!("{RECORDS}?at_line=1"), "{\"message\":\"c\"}").await;
    assert_eq!(conflict.problem(), (409, "not-next-line".to_owned()));
    assert_eq!(conflict.json()["next_line"], 2);
    let answer = daemon.post(&format!("{RECORDS}?at_line=2"), "{\"message\":\"c\"}").await.json();
    assert_eq!(answer["first_line"], 2);
}

#[tokio::test]
async fn a_key_makes_sending_again_safe() {
    let daemon = Daemon::start().await;
    let send =
        async |body: &'static str| daemon.send(request("POST", RECORDS, &[("idempotency-key", "k1")], body)).await;
    let first = send("{\"message\":\"a\"}").await.json();
    let second = send("{\"message\":\"a\"}").await.json();
    assert_eq!((&first["first_line"], &first["repeated"]), (&json!(0), &Value::Null));
    assert_eq!(
        (&second["first_line"], &second["next_line"], &second["repeated"]),
        (&json!(0), &json!(1), &json!(true))
    );
    assert_eq!(send("{\"message\":\"b\"}").await.problem(), (422, "key-reused".to_owned()));
    let bulk = async |body: &'static str| {
        daemon.send(request("POST", "/api/v1/records", &[("idempotency-key", "k2")], body)).await
    };
    assert_eq!(bulk("{\"instance\":\"i1\",\"message\":\"a\"}").await.status, 200);
    let reused = bulk("{\"instance\":\"i1\",\"message\":\"b\"}\n{\"instance\":\"i2\",\"message\":\"c\"}").await;
    assert_eq!(reused.problem(), (422, "key-reused".to_owned()));
    assert_eq!(reused.json()["committed"][0]["instance"], "i2");
    let page = daemon.get(RECORDS).await.json();
    assert_eq!(page["records"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn text_and_charsets() {
    let daemon = Daemon::start().await;
    let gbk = [&b"\xc4\xe3\xba\xc3"[..], b"\r\n\xff\xff\n"].concat();
    let headers = [("content-type", "text/plain; charset=GBK")];
    let answer = daemon.send(request("POST", RECORDS, &headers, gbk)).await;
    assert_eq!(answer.json()["lines"], 2, "{}", answer.text());
    let raw = daemon.get(&format!("{RECORDS}?format=raw")).await;
    assert_eq!(raw.body, ["你好\r\n".as_bytes(), b"\xff\xff\n"].concat());
    for bad in ["charset=utf-16", "charset=klingon"] {
        assert_eq!(daemon.post(&format!("{RECORDS}?{bad}"), "x").await.problem().0, 400, "{bad}");
    }
    let image = daemon.send(request("POST", RECORDS, &[("content-type", "image/png")], "x")).await;
    assert_eq!(image.problem(), (415, "unsupported".to_owned()));
}

#[tokio::test]
async fn another_job_is_a_warning_and_no_lost_line() {
    let daemon = Daemon::start().await;
    daemon.post(&format!("{RECORDS}?job=one"), "{\"message\":\"a\"}").await;
    let answer = daemon.post(&format!("{RECORDS}?job=two"), "{\"message\":\"b\"}").await.json();
    assert_eq!(answer["next_line"], 2);
    assert!(answer["warnings"][0].as_str().is_some_and(|text| text.contains("another job")), "{answer}");
    let finished = daemon.post("/api/v1/apps/default/instances/i1/finish", "{\"job\":\"two\"}").await.json();
    assert_eq!((&finished["job"], finished["warnings"].as_array().map(Vec::len)), (&json!("one"), Some(1)));
    // The same of labels; those that are the same are no news.
    for (query, warnings) in
        [("label.a=1", None), ("label.a=1", None), ("label.b=2", Some(1)), ("job=two&label.a=2", Some(2))]
    {
        let answer = daemon.post(&format!("{RECORDS}?{query}"), "{\"message\":\"c\"}").await.json();
        assert_eq!(answer["warnings"].as_array().map(Vec::len), warnings, "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_body_without_one_record_is_no_success() {
    let daemon = Daemon::start().await;
    // As `curl -d hello` sends it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for path in [RECORDS, "/api/v1/records"] {
        let answer = daemon.send(request("POST", path, &form, "hello\n{\"message\":1}")).await;
        assert_eq!(answer.problem(), (400, "bad-request".to_owned()), "{path}");
        assert_eq!(answer.json()["rejected"].as_array().map(Vec::len), Some(2), "{path}");
        assert_eq!(answer.json()["accepted"], 0);
    }
    for odd in ["text/plain", "application/xml"] {
        let answer = daemon.send(request("POST", "/api/v1/records", &[("content-type", odd)], "hello")).await;
        assert_eq!(answer.problem(), (415, "unsupported".to_owned()), "{odd}");
    }
}

#[tokio::test]
async fn declare_then_finish() {
    let daemon = Daemon::start().await;
    let path = "/api/v1/apps/default/instances/i9";
    let body = r#"{"job":"j","labels":{"k":"v"},"started_at":"2026-01-01T00:00:00Z"}"#;
    let declared = daemon.send(request("PUT", path, &[], body)).await.json();
    assert_eq!(
        (&declared["state"], &declared["lines"], &declared["created_at"]),
        (&json!("open"), &json!(0), &json!("2026-01-01T00:00:00.000Z"))
    );
    let finish = async |body: &'static str| daemon.post(&format!("{path}/finish"), body).await;
    let other_lines = finish(r#"{"outcome":"failed","lines":3}"#).await;
    assert_eq!(other_lines.problem(), (409, "other-lines".to_owned()));
    let json = other_lines.json();
    assert_eq!((&json["stored_lines"], &json["claimed_lines"]), (&json!(0), &json!(3)));
    assert_eq!(daemon.get(path).await.json()["state"], "open");
    for _ in 0..2 {
        let finished = finish(r#"{"outcome":"failed","lines":0}"#).await.json();
        assert_eq!((&finished["state"], &finished["outcome"]), (&json!("finished"), &json!("failed")));
    }
    let other = finish(r#"{"outcome":"succeeded"}"#).await;
    assert_eq!((other.problem(), &other.json()["outcome"]), ((409, "other-outcome".to_owned()), &json!("failed")));
    for bad in [r#"{"outcome":"odd"}"#, r#"{"out":"failed"}"#, "[", r#"{"attempt":0}"#, r#"{"finished_at":"then"}"#] {
        assert_eq!(finish(bad).await.problem(), (400, "bad-request".to_owned()), "{bad}");
    }
    // One that was over long ago; a clock ahead of ours does not make it over tomorrow.
    for (instance, at, is_past) in [("old", "2026-01-02T00:00:00Z", true), ("ahead", "2126-01-02T00:00:00Z", false)] {
        let path = format!("/api/v1/apps/default/instances/{instance}/finish");
        let finished = daemon.post(&path, format!(r#"{{"finished_at":"{at}"}}"#)).await.json();
        assert_eq!(finished["finished_at"] == "2026-01-02T00:00:00.000Z", is_past, "{finished}");
        assert!(finished["finished_at"].as_str() < Some("2126"), "{finished}");
    }
    // A silent instance, by the form for names with slashes.
    let silent = daemon.post("/api/v1/instances/finish?app=a/b&instance=c%2Fd", "{}").await.json();
    assert_eq!(
        (&silent["app"], &silent["instance"], &silent["state"]),
        (&json!("a/b"), &json!("c/d"), &json!("finished"))
    );
    // It may be a slip, unless the client counted.
    assert_eq!(silent["warnings"].as_array().map(Vec::len), Some(1), "{silent}");
    let counted = daemon.post("/api/v1/instances/finish?app=a/b&instance=c%2Fd", r#"{"lines":0}"#).await.json();
    assert!(counted.get("warnings").is_none(), "{counted}");
    assert_eq!(daemon.get("/api/v1/apps/a%2Fb/instances/c%2Fd").await.json()["lines"], 0);
}

#[tokio::test]
async fn nothing_is_written_to_what_is_gone() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    for (state, word, member) in [(3, "expired", "expired_at"), (4, "deleted", "deleted_at")] {
        daemon.force_state(state, 1_000).await;
        let path = "/api/v1/apps/default/instances/i1";
        let answers = [
            daemon.post(RECORDS, "{\"message\":\"b\"}").await,
            daemon.post(&format!("{path}/finish"), "").await,
            daemon.send(request("PUT", path, &[], "")).await,
            daemon.get(path).await,
            daemon.get(RECORDS).await,
            daemon.get(&format!("{path}/download")).await,
            daemon.get(&format!("{path}/follow")).await,
        ];
        for answer in answers {
            assert_eq!(answer.problem(), (410, "gone".to_owned()));
            let json = answer.json();
            assert_eq!((&json["state"], &json[member]), (&json!(word), &json!("1970-01-01T00:00:01.000Z")));
        }
    }
}
