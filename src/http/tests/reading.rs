//! Records out.

use std::io::Read as _;

use serde_json::json;

use super::*;

const RECORDS: &str = "/api/v1/apps/default/instances/i1/records";

/// Ten records, one a second: INFO at even lines, from 5 on ERROR at odd ones, whose followers have no level.
async fn ten_lines() -> Daemon {
    let daemon = Daemon::start().await;
    let levels = ["INFO", "DEBUG", "INFO", "DEBUG", "INFO", "ERROR", "", "ERROR", "", "WARN"];
    for (at, level) in levels.iter().enumerate() {
        let source = if at % 2 == 0 { "even" } else { "odd" };
        let source = if level.is_empty() { "odd" } else { source };
        let record = json!({"ts": at * 1000, "level": level, "source": source, "message": format!("line {at}")});
        assert_eq!(daemon.post(RECORDS, record.to_string()).await.status, 200);
    }
    daemon
}

/// The line numbers of an answer.
#[track_caller]
fn lines(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["records"].as_array().expect("records").iter().filter_map(|r| r["line"].as_u64()).collect()
}

#[tokio::test]
async fn every_format() {
    let daemon = Daemon::start().await;
    let body = "{\"ts\":1,\"level\":\"INFO\",\"source\":\"w\",\"message\":\"a\"}\n{\"ts\":2,\"message\":\"lo\",\"partial\":true}\n{\"ts\":2,\"message\":\"ng\"}";
    daemon.post(RECORDS, body).await;
    let json = daemon.get(RECORDS).await;
    let page = json.json();
    assert_eq!((&page["app"], &page["instance"], &page["attempt"]), (&json!("default"), &json!("i1"), &json!(1)));
    assert_eq!(
        (&page["state"], &page["attempt_final"], &page["at_end"]),
        (&json!("open"), &json!(false), &json!(true))
    );
    assert_eq!((json.header("x-logtier-state"), json.header("x-logtier-tier")), ("open", "hot"));
    assert_eq!(json.header("x-logtier-next-line"), "3");
    assert_eq!(json.header("x-logtier-next-cursor"), page["next_cursor"]);
    assert_eq!((json.header("cache-control"), json.header("content-type")), ("no-store", "application/json"));
    let ndjson = daemon.send(request("GET", RECORDS, &[("accept", "application/x-ndjson")], "")).await;
    let first = r#"{"line":0,"ts":"1970-01-01T00:00:00.001Z","level":"INFO","source":"w","message":"a"}"#;
    assert_eq!((ndjson.text().lines().next(), ndjson.text().lines().count()), (Some(first), 3));
    let text = daemon.send(request("GET", RECORDS, &[("accept", "text/plain")], "")).await;
    assert_eq!(text.text(), "1970-01-01T00:00:00.001Z INFO [w] a\n1970-01-01T00:00:00.002Z long\n");
    assert_eq!(daemon.get(&format!("{RECORDS}?format=raw")).await.text(), "a\nlong\n");
    assert_eq!(daemon.get(&format!("{RECORDS}?format=xml")).await.problem().0, 400);
}

#[tokio::test]
async fn ranges_filters_and_ends() {
    let daemon = ten_lines().await;
    let check = async |query: &str, expected: &[u64]| {
        let answer = daemon.get(&format!("{RECORDS}?{query}")).await;
        assert_eq!(lines(&answer), expected, "{query}");
        answer.json()
    };
    check("from_line=3&to_line=6", &[3, 4, 5]).await;
    check("last=3", &[7, 8, 9]).await;
    check("last=2&reverse=true", &[9, 8]).await;
    check("last=2&level=error", &[7, 8]).await;
    check("reverse=true&limit=3", &[9, 8, 7]).await;
    check("level=error", &[5, 6, 7, 8]).await;
    check("level=error&from_line=6", &[6, 7, 8]).await;
    check("source=even", &[0, 2, 4]).await;
    check("contains=line&contains=7", &[7]).await;
    check("regex=%5Bl%5Dine%20%5B34%5D", &[3, 4]).await;
    check("since=1970-01-01T00:00:08Z", &[8, 9]).await;
    check("since=1970-01-01T08:00:08+08:00&until=9000", &[8]).await;
    check("order=time&limit=2", &[0, 1]).await;
    assert_eq!(check("from_line=20", &[]).await["at_end"], true);
    assert_eq!(check("limit=9", &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await["at_end"], false);
}

#[tokio::test]
async fn a_cursor_goes_through_all_lines_once() {
    let daemon = ten_lines().await;
    for (query, expected) in [("", "0123456789"), ("reverse=true", "9876543210"), ("level=error", "5678")] {
        let (mut seen, mut cursor) = (String::new(), String::new());
        for _ in 0..20 {
            let page = daemon.get(&format!("{RECORDS}?limit=3&{query}{cursor}")).await;
            seen.extend(lines(&page).iter().map(u64::to_string));
            let json = page.json();
            cursor = format!("&cursor={}", json["next_cursor"].as_str().expect("a cursor"));
            if json["at_end"] == true {
                break;
            }
        }
        assert_eq!(seen, expected, "{query}");
    }
}

#[tokio::test]
async fn a_cursor_at_the_end_sees_what_comes_later() {
    let daemon = ten_lines().await;
    let page = daemon.get(RECORDS).await.json();
    daemon.write("i1", "late\n").await;
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    assert_eq!(lines(&daemon.get(&format!("{RECORDS}?cursor={cursor}")).await), [10]);
}

#[tokio::test]
async fn last_goes_on_behind_the_end() {
    let daemon = ten_lines().await;
    let page = daemon.get(&format!("{RECORDS}?last=2")).await.json();
    daemon.write("i1", "more\n").await;
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    assert_eq!(lines(&daemon.get(&format!("{RECORDS}?cursor={cursor}")).await), [10]);
}

#[tokio::test]
async fn waiting_sees_what_comes() {
    let daemon = Daemon::start().await;
    let path = format!("{RECORDS}?wait=20");
    let (waited, ()) = futures::join!(daemon.get(&path), async {
        daemon.api.clock.sleep(Duration::from_millis(100)).await;
        daemon.write("i1", "a\n").await;
    });
    assert_eq!(lines(&waited), [0]);
    let nothing = daemon.get(&format!("{RECORDS}?from_line=1&wait=1")).await;
    assert_eq!(lines(&nothing), [0; 0]);
    // A daemon that stops lets nobody wait.
    daemon.api.shutdown.cancel();
    assert_eq!(lines(&daemon.get(&format!("{RECORDS}?from_line=1&wait=60")).await), [0; 0]);
    assert_eq!(daemon.get("/api/v1/apps/default/instances/i2/records?wait=1").await.problem().0, 404);
}

#[tokio::test]
async fn a_closed_range_can_be_asked_for_again() {
    let daemon = ten_lines().await;
    let path = format!("{RECORDS}?from_line=2&to_line=5");
    let first = daemon.get(&path).await;
    let etag = first.header("etag").to_owned();
    assert_eq!(first.header("cache-control"), "no-cache");
    let again = daemon.send(request("GET", &path, &[("if-none-match", &etag)], "")).await;
    assert_eq!((again.status.as_u16(), again.body.len(), again.header("etag")), (304, 0, etag.as_str()));
    // Another format, a longer range, or the end of the attempt: another answer.
    let other = daemon.send(request("GET", &format!("{path}&format=raw"), &[("if-none-match", &etag)], "")).await;
    assert_eq!(other.status, 200);
    let open = daemon.get(&format!("{RECORDS}?from_line=2&to_line=50")).await;
    assert_eq!((open.header("etag"), open.header("cache-control")), ("", "no-store"));
    daemon.finish("i1").await;
    let finished = daemon.send(request("GET", &path, &[("if-none-match", &etag)], "")).await;
    assert_eq!((finished.status.as_u16(), finished.json()["attempt_final"].clone()), (200, json!(true)));
}

#[tokio::test]
async fn a_download_is_the_whole_log() {
    let daemon = Daemon::start().await;
    let path = "/api/v1/apps/default/instances/i%201";
    let all: String = (0..5_000).map(|at| format!("line {at}\n")).collect();
    daemon.write("i%201", &all).await;
    let raw = daemon.get(&format!("{path}/download?format=raw")).await;
    assert!(raw.text() == all);
    let name = "attachment; filename=\"default-i_1-1.log\"; filename*=UTF-8''default%2Di%201%2D1%2Elog";
    assert_eq!(raw.header("content-disposition"), name);
    let some = daemon.get(&format!("{path}/download?format=raw&from_line=4997&to_line=4999")).await;
    assert_eq!((some.text().as_str(), some.header("x-logtier-next-line")), ("line 4997\nline 4998\n", "4999"));
    let unchanged = [("if-none-match", some.header("etag"))];
    let again =
        daemon.send(request("GET", &format!("{path}/download?format=raw&from_line=4997&to_line=4999"), &unchanged, ""));
    assert_eq!((some.header("cache-control"), again.await.status.as_u16()), ("no-cache", 304));
    assert_eq!((raw.header("etag"), raw.header("cache-control")), ("", "no-store"));
    let ndjson = daemon.get(&format!("{path}/download?format=ndjson&contains=line%2042&to_line=100")).await;
    assert!(ndjson.text().starts_with("{\"app\":\"default\",\"instance\":\"i 1\",\"ts\":"), "{}", ndjson.text());
    assert_eq!(ndjson.text().lines().count(), 1);
    let packed =
        daemon.send(request("GET", &format!("{path}/download?format=raw"), &[("accept-encoding", "zstd")], "")).await;
    assert_eq!(packed.header("content-encoding"), "zstd");
    assert!(zstd::decode_all(&packed.body[..]).expect("zstd") == all.as_bytes());
    daemon.finish("silent").await;
    let empty = daemon.get("/api/v1/apps/default/instances/silent/download").await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
}

#[tokio::test]
async fn a_download_that_fails_never_ends_cleanly() {
    let daemon = Daemon::start().await;
    let all: String = (0..20_000).map(|at| format!("a line of usual length, number {at}\n")).collect();
    daemon.write("i1", &all).await;
    daemon.lose_last_chunk().await;
    let path = "/api/v1/apps/default/instances/i1/download?format=raw";
    let response = daemon.router.clone().oneshot(request("GET", path, &[], "")).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err());
    // What fails before the first byte is an ordinary refusal.
    let problem = daemon.get(&format!("{path}&from_line=19999")).await.problem();
    assert_eq!(problem, (500, "corrupt".to_owned()));
    assert_eq!(daemon.get(&format!("{RECORDS}?last=1")).await.problem(), (500, "corrupt".to_owned()));
}

#[tokio::test]
async fn a_summary_says_all_that_is_known() {
    let daemon = ten_lines().await;
    daemon.post(&format!("{RECORDS}?attempt=3"), "{\"message\":\"again\"}").await;
    let summary = daemon.get("/api/v1/apps/default/instances/i1?attempt=1").await.json();
    for (member, expected) in [
        ("app", json!("default")),
        ("job", Value::Null),
        ("labels", json!({})),
        ("instance", json!("i1")),
        ("attempt", json!(1)),
        ("attempts", json!([1, 3])),
        ("state", json!("open")),
        ("outcome", Value::Null),
        ("finish_inferred", json!(false)),
        ("lines", json!(10)),
        ("first_ts", json!("1970-01-01T00:00:00.000Z")),
        ("last_ts", json!("1970-01-01T00:00:09.000Z")),
        ("finished_at", Value::Null),
        ("archived_at", Value::Null),
        ("expires_at", Value::Null),
        ("rule", json!("default")),
        ("hold", json!(false)),
    ] {
        assert_eq!(summary[member], expected, "{member}");
    }
    let (bytes, tiers) = (&summary["bytes"], &summary["tiers"]);
    assert_eq!(tiers["hot"], json!({"lines": 10, "bytes": bytes}));
    assert_eq!(tiers["cold"], json!({"lines": 0, "bytes": 0, "segments": []}));
    // On read, no attempt means the newest.
    assert_eq!(daemon.get("/api/v1/instances?instance=i1").await.json()["attempt"], 3);
}

#[tokio::test]
async fn a_search_that_fails_never_ends_cleanly() {
    let daemon = Daemon::start().await;
    let all: String = (0..20_000).map(|at| format!("a line of usual length, number {at}\n")).collect();
    daemon.write("i1", &all).await;
    daemon.lose_last_chunk().await;
    let path = "/api/v1/search?contains=length&limit=100000";
    let response = daemon.router.clone().oneshot(request("GET", path, &[], "")).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err());
}

#[tokio::test]
async fn answers_are_packed_as_the_client_likes() {
    let daemon = ten_lines().await;
    let plain = daemon.get(RECORDS).await;
    for (accepted, encoding) in [("gzip", "gzip"), ("zstd", "zstd"), ("br", ""), ("identity", "")] {
        let packed = daemon.send(request("GET", RECORDS, &[("accept-encoding", accepted)], "")).await;
        assert_eq!(packed.header("content-encoding"), encoding);
        let mut body = Vec::new();
        match encoding {
            "gzip" => drop(flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut body).expect("gzip")),
            "zstd" => body = zstd::decode_all(&packed.body[..]).expect("zstd"),
            _ => body = packed.body.to_vec(),
        }
        assert!(body == plain.body, "{accepted}");
        assert!(packed.headers.get_all("vary").iter().any(|value| value == "accept-encoding"));
    }
}

#[tokio::test]
async fn a_finished_attempt_says_when_its_rule_ends_it() {
    let day = Duration::from_secs(86_400);
    let ends = Rule { cold_for: Age::For(day), ..rules().iter().next().expect("a rule").clone() };
    let daemon = Daemon::with(|settings| settings.rules = Arc::new(RuleSet::new(Vec::new(), ends))).await;
    daemon.write("i1", "a\n").await;
    let path = "/api/v1/apps/default/instances/i1";
    assert_eq!(daemon.get(path).await.json()["expires_at"], Value::Null);
    daemon.finish("i1").await;
    let summary = daemon.get(path).await.json();
    let moment = |name: &str| summary[name].as_str().expect("a time").parse::<chrono::DateTime<chrono::Utc>>();
    let (finished, expires) = (moment("finished_at").expect("a time"), moment("expires_at").expect("a time"));
    assert_eq!((expires - finished).to_std(), Ok(day));
}

#[tokio::test]
async fn lists_are_newest_first_and_paged() {
    let daemon = Daemon::start().await;
    for (app, instance, job) in [("a", "1", "j1"), ("a", "2", "j2"), ("b", "3", "j1"), ("a", "4", "j1")] {
        let path = format!("/api/v1/apps/{app}/instances/{instance}/records?job={job}&label.n={instance}");
        daemon.post(&path, "{\"message\":\"x\"}").await;
        daemon.api.clock.sleep(Duration::from_millis(2)).await;
    }
    daemon.post("/api/v1/apps/a/instances/2/finish", "{\"outcome\":\"failed\"}").await;
    let list = async |query: &str| {
        let json = daemon.get(&format!("/api/v1/{query}")).await.json();
        let names = json["instances"].as_array().expect("a list").iter().filter_map(|one| one["instance"].as_str());
        (names.collect::<String>(), json["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(list("instances").await, ("4321".to_owned(), None));
    assert_eq!(list("apps/a/instances").await.0, "421");
    assert_eq!(list("instances?job=j1").await.0, "431");
    assert_eq!(list("apps/a/instances?label.n=2").await.0, "2");
    assert_eq!(list("instances?outcome=failed").await.0, "2");
    assert_eq!(list("instances?state=finished").await.0, "2");
    assert_eq!(list("instances?until=2000-01-01T00:00:00Z").await.0, "");
    let (first, cursor) = list("instances?limit=3").await;
    let (rest, end) = list(&format!("instances?limit=3&cursor={}", cursor.expect("more"))).await;
    assert_eq!((first.as_str(), rest.as_str(), end), ("432", "1", None));
    assert_eq!(daemon.get("/api/v1/apps").await.json(), json!({"apps": ["a", "b"], "next_cursor": null}));
    assert_eq!(daemon.get("/api/v1/apps/a/jobs").await.json()["jobs"], json!(["j1", "j2"]));
    let page = daemon.get("/api/v1/apps?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().expect("more");
    assert_eq!(daemon.get(&format!("/api/v1/apps?cursor={cursor}")).await.json()["apps"], json!(["b"]));
    for bad in ["state=odd", "outcome=odd", "limit=1001", "cursor=x", "job="] {
        assert_eq!(daemon.get(&format!("/api/v1/instances?{bad}")).await.problem().0, 400, "{bad}");
    }
    // One that is deleted takes no place on a page.
    assert_eq!(daemon.send(request("DELETE", "/api/v1/apps/a/instances/4", &[], "")).await.status, 204);
    assert_eq!(list("instances?limit=2").await.0, "32");
    daemon.force_state(4, 1).await;
    assert_eq!(list("instances").await.0, "");
    assert_eq!(list("instances?state=deleted").await.0, "4321");
}

/// What a test knows of an attempt.
struct Known {
    app: &'static str,
    instance: String,
    job: String,
    label: String,
    outcome: Option<&'static str>,
}

#[tokio::test]
async fn lists_count_what_there_is() {
    let daemon = Daemon::start().await;
    let mut known = Vec::new();
    for n in 0..90_usize {
        let app = ["a", "b", "c"][n % 3];
        let (job, label) = (format!("j{}", n % 7), format!("l{}", n % 5));
        let outcome = [None, Some("succeeded"), Some("failed")][n / 3 % 3];
        let path = format!("/api/v1/apps/{app}/instances/i{n}");
        let body = json!({"job": job, "labels": {"k": label}}).to_string();
        assert_eq!(daemon.send(request("PUT", &path, &[], body)).await.status, 200);
        if let Some(outcome) = outcome {
            daemon.post(&format!("{path}/finish"), json!({"outcome": outcome}).to_string()).await;
        }
        known.push(Known { app, instance: format!("i{n}"), job, label, outcome });
        daemon.api.clock.sleep(Duration::from_millis(1)).await;
    }
    known.reverse();
    let check = async |path: &str, is_listed: &dyn Fn(&Known) -> bool| {
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = daemon.get(&format!("/api/v1/{path}limit=7{cursor}")).await.json();
            let names = page["instances"].as_array().unwrap_or_else(|| panic!("{path}: {page}")).iter();
            listed.extend(names.map(|one| one["instance"].as_str().expect("a name").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let expected: Vec<&str> = known.iter().filter(|one| is_listed(one)).map(|one| one.instance.as_str()).collect();
        assert!(!expected.is_empty());
        assert_eq!(listed, expected, "{path}");
    };
    check("instances?", &|_| true).await;
    check("apps/b/instances?", &|one| one.app == "b").await;
    check("instances?job=j3&", &|one| one.job == "j3").await;
    check("apps/a/instances?job=j3&label.k=l2&", &|one| one.app == "a" && one.job == "j3" && one.label == "l2").await;
    check("instances?outcome=failed&", &|one| one.outcome == Some("failed")).await;
    check("instances?state=open&app=c&", &|one| one.outcome.is_none() && one.app == "c").await;
    check("instances?state=finished&label.k=l0&", &|one| one.outcome.is_some() && one.label == "l0").await;
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    while jobs.len() < 7 {
        let page = daemon.get(&format!("/api/v1/apps/a/jobs?limit=3{cursor}")).await.json();
        jobs.extend(page["jobs"].as_array().expect("names").iter().filter_map(|job| job.as_str().map(str::to_owned)));
        cursor = format!("&cursor={}", page["next_cursor"].as_str().unwrap_or("none"));
    }
    assert_eq!(jobs, (0..7).map(|n| format!("j{n}")).collect::<Vec<_>>());
}
