//! What is refused: too much, unknown, unauthorized.

use std::io::Write as _;

use super::*;

const RECORDS: &str = "/api/v1/apps/default/instances/i1/records";

#[tokio::test]
async fn what_is_not_known_is_refused() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    let typo = daemon.get(&format!("{RECORDS}?form_line=5")).await;
    assert_eq!(typo.problem(), (400, "bad-request".to_owned()));
    assert!(
        typo.json()["detail"].as_str().is_some_and(|text| text.contains("form_line") && text.contains("from_line"))
    );
    let long = "x".repeat(256);
    for (path, status, kind) in [
        ("/api/v1/apps/default/instances/none", 404, "never-logged"),
        ("/api/v1/apps/default/instances/none/records", 404, "never-logged"),
        ("/api/v1/apps/default/instances/none/download", 404, "never-logged"),
        ("/api/v1/apps/default/instances/i1?attempt=2", 404, "never-logged"),
        ("/api/v1/apps/default/instances/i1?attempt=0", 400, "bad-request"),
        ("/api/v1/apps/default/instances/%FF", 400, "bad-request"),
        (&format!("/api/v1/apps/default/instances/{long}"), 400, "bad-request"),
        ("/api/v1/instances/records?app=default", 400, "bad-request"),
        ("/api/v1/instances/records?instance=", 400, "bad-request"),
        ("/api/v1/apps/default/instances/i1/records?app=x", 400, "bad-request"),
        ("/api/v1/status?x", 400, "bad-request"),
        ("/api/v1/nothing", 404, "no-such-route"),
        ("/", 404, "no-such-route"),
        ("/api/v1/archive", 405, "method-not-allowed"),
    ] {
        assert_eq!(daemon.get(path).await.problem(), (status, kind.to_owned()), "{path}");
    }
    assert_eq!(daemon.get("/api/v1/apps/default/instances/none").await.json()["state"], "never_logged");
    for tail in ["", "/records", "/download"] {
        let answer = daemon.get(&format!("/api/v1/apps/default/instances/i1{tail}?attempt=2")).await.json();
        assert_eq!(
            (&answer["attempts"], &answer["state"]),
            (&serde_json::json!([1]), &"never_logged".into()),
            "{tail}"
        );
    }
    assert_eq!(daemon.get("/api/v1/archive").await.header("allow"), "POST");
    for (query, key) in [("at_line=x", "k"), ("attempt=x", "k"), ("lable.x=y", "k"), ("", "")] {
        let answer =
            daemon.send(request("POST", &format!("{RECORDS}?{query}"), &[("idempotency-key", key)], "{}")).await;
        assert_eq!(answer.problem().0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_request_id_comes_back() {
    let daemon = Daemon::start().await;
    let given = daemon.send(request("GET", "/healthz", &[("x-request-id", "abc-1")], "")).await;
    assert_eq!((given.header("x-request-id"), given.text().as_str()), ("abc-1", "ok\n"));
    let made = daemon.send(request("GET", "/healthz", &[("x-request-id", "not plain")], "")).await;
    assert_eq!(made.header("x-request-id").len(), 26);
}

#[tokio::test]
async fn packed_bodies_are_taken() {
    let daemon = Daemon::start().await;
    let body = b"{\"message\":\"a\"}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).expect("packed");
    let gzip = gzip.finish().expect("packed");
    let zstd = zstd::encode_all(&body[..], 1).expect("packed");
    for (encoding, body) in [("gzip", gzip.clone()), ("zstd", zstd.clone()), ("identity", body.to_vec())] {
        let answer = daemon.send(request("POST", RECORDS, &[("content-encoding", encoding)], body)).await;
        assert_eq!((answer.status.as_u16(), answer.json()["lines"].clone()), (200, 1.into()), "{encoding}");
    }
    for (encoding, body) in [("gzip", &gzip[..gzip.len() - 9]), ("zstd", &zstd[..zstd.len() - 3]), ("gzip", b"no")] {
        let answer = daemon.send(request("POST", RECORDS, &[("content-encoding", encoding)], body.to_vec())).await;
        assert_eq!(answer.problem(), (400, "bad-request".to_owned()), "{encoding}");
    }
    let odd = daemon.send(request("POST", RECORDS, &[("content-encoding", "br")], "x")).await;
    assert_eq!(odd.problem(), (415, "unsupported".to_owned()));
}

#[tokio::test]
async fn a_body_that_unpacks_to_too_much_is_refused() {
    let daemon = Daemon::with(|settings| settings.max_body_bytes = 100_000).await;
    let zeros = vec![b' '; 50_000_000];
    let bomb = zstd::encode_all(&zeros[..], 3).expect("packed");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).expect("packed");
    let gzip = gzip.finish().expect("packed");
    assert!(bomb.len() < 100_000 && gzip.len() < 100_000);
    for (encoding, body) in [("zstd", bomb), ("gzip", gzip), ("identity", zeros)] {
        let answer = daemon.send(request("POST", RECORDS, &[("content-encoding", encoding)], body)).await;
        assert_eq!(answer.problem(), (413, "too-large".to_owned()), "{encoding}");
    }
    // A frame that wants a window of 1 GiB.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(30).expect("a window");
    encoder.write_all(b"{\"message\":\"a\"}").expect("packed");
    let wide = encoder.finish().expect("packed");
    let answer = daemon.send(request("POST", RECORDS, &[("content-encoding", "zstd")], wide)).await;
    assert_eq!(answer.problem(), (400, "bad-request".to_owned()));
    // A length that is announced is enough, the body is not read.
    let announced = [("content-length", "100001"), ("expect", "100-continue")];
    let unread = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(daemon.send(request("POST", RECORDS, &announced, unread)).await.problem().0, 413);
}

#[tokio::test]
async fn bodies_share_one_budget() {
    let daemon = Daemon::with(|settings| {
        settings.max_body_bytes = 64 * 1024;
        settings.body_budget_bytes = 64 * 1024;
    })
    .await;
    // One client that has sent most of its body and holds on to the rest.
    let (mut sender, receiver) = futures::channel::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    sender.try_send(Ok(vec![b' '; 60_000].into())).expect("room");
    let first = daemon.send(request("POST", RECORDS, &[], Body::from_stream(receiver)));
    let second = async {
        daemon.api.clock.sleep(Duration::from_millis(100)).await;
        let answer = daemon.post(RECORDS, vec![b' '; 30_000]).await;
        drop(sender);
        answer
    };
    let (first, second) = futures::join!(first, second);
    assert_eq!((second.problem(), second.header("retry-after")), ((503, "busy".to_owned()), "1"));
    assert_eq!(first.problem().0, 400);
    assert_eq!(daemon.post(RECORDS, "{\"message\":\"room again\"}").await.status, 200);
}

#[tokio::test]
async fn few_bytes_that_become_many_records_are_refused_while_they_are_decoded() {
    let daemon = Daemon::with(|settings| settings.max_body_bytes = 8 << 20).await;
    let newlines = vec![b'\n'; 2_000_000];
    let array = format!("[{}0]", "0,".repeat(1_000_000));
    for (kind, body) in [("text/plain", newlines), ("application/json", array.into_bytes())] {
        let answer = daemon.send(request("POST", RECORDS, &[("content-type", kind)], body)).await;
        assert_eq!(answer.problem(), (413, "too-large".to_owned()), "{kind}");
        assert_eq!(answer.json()["limit"], 64 << 20, "{kind}");
        assert_eq!(daemon.api.ingest.queued_bytes(), 0, "{kind}");
    }
    assert_eq!(daemon.get("/api/v1/apps/default/instances/i1").await.status, 404);
    // Others have the room: that passes.
    let budget = daemon.api.ingest.budget();
    let mut taken = crate::ingest::Room::default();
    budget.grow(&mut taken, (64 << 20) - (64 << 10)).expect("free");
    let lines = |n: usize| request("POST", RECORDS, &[("content-type", "text/plain")], vec![b'\n'; n]);
    let busy = daemon.send(lines(2_000)).await;
    assert_eq!((busy.problem(), busy.header("retry-after")), ((503, "busy".to_owned()), "1"));
    assert_eq!(daemon.send(lines(10)).await.status, 200);
    drop(taken);
    assert_eq!(daemon.send(lines(2_000)).await.json()["lines"], 2_000);
    assert_eq!(daemon.api.ingest.queued_bytes(), 0);
}

#[tokio::test]
async fn a_token_is_needed_where_one_is_set() {
    let daemon = Daemon::with(|settings| settings.token = Some(Token::new("s3cret"))).await;
    for path in ["/api/v1/status", "/metrics", "/api/v1/nothing", "/nothing"] {
        let answer = daemon.get(path).await;
        assert_eq!(answer.problem(), (401, "unauthorized".to_owned()), "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"logtier\"");
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
            let answer = daemon.send(request("GET", path, &[("authorization", wrong)], "")).await;
            assert_eq!(answer.status, 401, "{wrong}");
        }
    }
    for path in ["/api/v1/status", "/metrics"] {
        assert_eq!(daemon.send(request("GET", path, &[("authorization", "bearer s3cret")], "")).await.status, 200);
    }
    assert_eq!(
        (daemon.get("/healthz").await.status, daemon.get("/readyz").await.status),
        (StatusCode::OK, StatusCode::OK)
    );
    assert!(!format!("{:?}", daemon.api.settings).contains("s3cret"));
}
