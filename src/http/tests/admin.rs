//! What operators ask, and how connections end.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test]
async fn the_status_shows_every_part() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    daemon.finish("i1").await;
    let answer = daemon.get("/api/v1/status").await;
    let status = answer.json();
    assert_eq!((&status["daemon"], &status["cluster_id"]), (&json!("test"), &json!("c1")));
    assert_eq!(status["hot"]["servers"][0]["shards"].as_array().map(Vec::len), Some(usize::from(SHARDS)));
    assert_eq!((&status["hot"]["reachable"], &status["hot"]["chunks"]), (&json!(true), &json!(1)));
    assert_eq!((&status["cold"]["reachable"], &status["cold"]["objects"]), (&json!(true), &json!(0)));
    assert_eq!(status["lag"]["due_attempts"], 1);
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    daemon.api.status.refresh_metrics().await;
    let metrics = daemon.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in
        ["logtier_due_attempts 1", "logtier_records_total 1", "logtier_store_requests_total{kind=\"list\"}", "# EOF"]
    {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
}

#[tokio::test]
async fn a_tier_that_is_away_is_said_so() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    daemon.db.pool().close().await;
    assert_eq!(daemon.get("/healthz").await.status, 200);
    for path in ["/readyz", "/api/v1/apps/default/instances/i1/records", "/api/v1/instances", "/api/v1/apps"] {
        let answer = daemon.get(path).await;
        assert_eq!(answer.problem(), (503, "unavailable".to_owned()), "{path}");
        assert_eq!((&answer.json()["tier"], answer.header("retry-after")), (&json!("hot"), "2"));
        assert!(!answer.text().contains("sqlite") && !answer.text().contains("SELECT"));
    }
    for (path, body) in [
        ("/api/v1/apps/default/instances/i1/records", "{\"message\":\"b\"}"),
        ("/api/v1/records", "{\"instance\":\"i1\",\"message\":\"b\"}"),
        ("/api/v1/apps/default/instances/i1/finish", ""),
    ] {
        let answer = daemon.post(path, body).await;
        assert_eq!(answer.problem(), (503, "unavailable".to_owned()), "{path}");
    }
    let status = daemon.get("/api/v1/status").await.json();
    assert_eq!((&status["hot"]["reachable"], &status["cold"]["reachable"]), (&json!(false), &json!(true)));
    // What is unknown is not nothing.
    for (part, number) in [("hot", "chunks"), ("hot", "bytes"), ("cold", "objects"), ("lag", "due_attempts")] {
        assert!(status[part].get(number).is_some_and(Value::is_null), "{part}.{number}: {status}");
    }
    let metrics = daemon.get("/metrics").await.text();
    assert!(metrics.contains("logtier_errors_total{kind=\"unavailable\"} 7"), "{metrics}");
}

#[tokio::test]
async fn a_daemon_that_stops_is_not_ready() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/readyz").await.text(), "ready\n");
    daemon.api.shutdown.cancel();
    assert_eq!(daemon.get("/readyz").await.problem(), (503, "stopping".to_owned()));
}

#[tokio::test]
async fn unknown_runs_are_not_found() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/api/v1/runs/7").await.problem(), (404, "no-such-run".to_owned()));
    assert_eq!(daemon.get("/api/v1/runs/x").await.problem(), (400, "bad-request".to_owned()));
    assert_eq!(daemon.get("/api/v1/runs").await.json(), json!({"runs": []}));
    for bad in ["dry_run=maybe", "wait=x", "dryrun=1"] {
        assert_eq!(daemon.post(&format!("/api/v1/archive?{bad}"), "").await.problem().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn connections_end_in_time() {
    let daemon = Daemon::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = daemon.api.shutdown.clone();
    let server = serve(listener, daemon.router.clone(), shutdown.clone(), Duration::from_millis(500));
    let clients = async {
        // Idle from the start, idle after an answer, and one in the middle of its body.
        let _fresh = TcpStream::connect(address).await.expect("connected");
        let mut idle = TcpStream::connect(address).await.expect("connected");
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = [0; 4096];
        let length = idle.read(&mut answer).await.expect("an answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
        let mut stuck = TcpStream::connect(address).await.expect("connected");
        let head = b"POST /api/v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
        stuck.write_all(head).await.expect("sent");
        daemon.api.clock.sleep(Duration::from_millis(100)).await;
        shutdown.cancel();
        assert_eq!(idle.read(&mut answer).await.expect("the end"), 0);
        daemon.api.clock.sleep(Duration::from_millis(200)).await;
        stuck
    };
    let started = daemon.api.clock.instant();
    let ((), _stuck) = futures::join!(server, clients);
    assert!(started.elapsed() < Duration::from_secs(5));
}
