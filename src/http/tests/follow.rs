//! A log as it grows.

use futures::StreamExt;

use super::*;

const FOLLOW: &str = "/api/v1/apps/default/instances/i1/follow";

/// Events of one connection as they come.
struct Events {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Events {
    async fn open(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> Self {
        let response = daemon.router.clone().oneshot(request("GET", path, headers, "")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Reads until the text is there; false when the stream ended or broke before.
    async fn until(&mut self, wanted: &str) -> bool {
        while !self.text.contains(wanted) {
            match self.body.next().await {
                Some(Ok(piece)) => self.text.push_str(&String::from_utf8_lossy(&piece)),
                _ => return false,
            }
        }
        true
    }

    fn ids(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
    }
}

#[tokio::test]
async fn lines_come_as_they_are_written_until_the_end() {
    let daemon = Daemon::start().await;
    // Before anything is known of the id.
    let mut events = Events::open(&daemon, FOLLOW, &[]).await;
    assert!(events.until("retry: 2000").await);
    daemon.write("i1", "a\nb\n").await;
    assert!(events.until("id: 1:1").await);
    assert!(events.text.contains("event: record\nid: 1:0\ndata: {\"line\":0,\"ts\":"), "{}", events.text);
    daemon.write("i1", "c\n").await;
    assert!(events.until("id: 1:2").await);
    daemon.finish("i1").await;
    assert!(events.until("event: end\nid: 1:2\n").await && !events.until("never").await);
    assert_eq!(events.ids(), ["1:0", "1:1", "1:2", "1:2"]);
    let after_end = daemon.send(request("GET", FOLLOW, &[("last-event-id", "1:2")], "")).await;
    assert_eq!((after_end.status.as_u16(), after_end.body.len()), (204, 0));
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_was() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\nb\nc\nd\n").await;
    daemon.finish("i1").await;
    let check = async |path: &str, headers: &[(&str, &str)], expected: &[&str]| {
        let mut events = Events::open(&daemon, path, headers).await;
        assert!(events.until("event: end").await && !events.until("never").await);
        assert_eq!(events.ids(), expected, "{path}");
    };
    check(FOLLOW, &[("last-event-id", "1:1")], &["1:2", "1:3", "1:3"]).await;
    check(&format!("{FOLLOW}?last=1"), &[], &["1:3", "1:3"]).await;
    check(&format!("{FOLLOW}?from_line=2&attempt=1"), &[], &["1:2", "1:3", "1:3"]).await;
    for bad in ["x", "0:1", "1:x"] {
        let answer = daemon.send(request("GET", FOLLOW, &[("last-event-id", bad)], "")).await;
        assert_eq!(answer.problem().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_silent_log_ends_once() {
    let daemon = Daemon::start().await;
    daemon.finish("i1").await;
    let mut events = Events::open(&daemon, FOLLOW, &[]).await;
    assert!(events.until("event: end\nid: 1:\n").await);
    let again = daemon.send(request("GET", FOLLOW, &[("last-event-id", "1:")], "")).await;
    assert_eq!(again.status, 204);
}

#[tokio::test]
async fn all_followers_of_an_attempt_share_one_look() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(Events::open(&daemon, FOLLOW, &[]).await);
    }
    for events in &mut all {
        assert!(events.until("id: 1:0").await);
    }
    assert_eq!(
        (daemon.api.tasks.len(), daemon.get("/api/v1/status").await.json()["followed_attempts"].clone()),
        (1, 1.into())
    );
    // Without followers the task ends.
    drop(all);
    for _ in 0..50 {
        daemon.api.clock.sleep(Duration::from_millis(100)).await;
        if daemon.api.tasks.is_empty() {
            return;
        }
    }
    panic!("the task did not end");
}

#[tokio::test]
async fn a_daemon_that_stops_breaks_the_stream() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    let mut events = Events::open(&daemon, FOLLOW, &[]).await;
    assert!(events.until("id: 1:0").await);
    daemon.api.shutdown.cancel();
    let mut broke = false;
    while let Some(piece) = events.body.next().await {
        broke |= piece.is_err();
    }
    assert!(broke, "ended cleanly, without an end event");
}
