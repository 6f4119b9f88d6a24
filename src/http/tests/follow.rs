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
async fn followers_may_filter() {
    let daemon = Daemon::start().await;
    let records =
        "{\"message\":\"a\",\"level\":\"INFO\"}\n{\"message\":\"b\",\"level\":\"ERROR\"}\n{\"message\":\"  at\"}";
    let path = "/api/v1/apps/default/instances/i1/records";
    daemon.post(path, records).await;
    let mut errors = Events::open(&daemon, &format!("{FOLLOW}?level=error"), &[]).await;
    let mut found = Events::open(&daemon, &format!("{FOLLOW}?contains=new&from_line=1"), &[]).await;
    assert!(errors.until("id: 1:2").await);
    daemon.post(path, "{\"message\":\"  more\"}\n{\"message\":\"new\",\"level\":\"INFO\"}").await;
    assert!(errors.until("id: 1:3").await && found.until("id: 1:4").await);
    daemon.finish("i1").await;
    // The end names the last line, shown or not, so that who has it is told so.
    assert!(errors.until("event: end\nid: 1:4\n").await && found.until("event: end").await);
    assert_eq!((errors.ids(), found.ids()), (vec!["1:1", "1:2", "1:3", "1:4"], vec!["1:4", "1:4"]));
}

#[tokio::test]
async fn silence_is_no_end() {
    let daemon = Daemon::start().await;
    daemon.write("i1", "a\n").await;
    daemon.force_state(2, 0).await;
    let mut events = Events::open(&daemon, FOLLOW, &[("last-event-id", "1:0")]).await;
    assert!(events.until("retry: 2000").await);
    daemon.write("i1", "b\n").await;
    assert!(events.until("id: 1:1").await);
    assert!(!events.text.contains("event: end"), "{}", events.text);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_told_why_it_is_let_go() {
    let daemon = Daemon::with(|settings| settings.follow_stall = Duration::from_millis(200)).await;
    daemon.write("i1", "a\n").await;
    let mut events = Events::open(&daemon, FOLLOW, &[]).await;
    assert!(events.until("id: 1:0").await);
    // Waiting for lines is no fault of the client.
    let written = async {
        daemon.api.clock.sleep(Duration::from_millis(400)).await;
        daemon.write("i1", "b\n").await;
    };
    assert!(futures::join!(events.until("id: 1:1"), written).0);
    daemon.api.clock.sleep(Duration::from_millis(300)).await;
    assert!(events.until("event: error\ndata: {").await && events.text.contains("\"reason\":\"slow\""));
    assert!(matches!(events.body.next().await, Some(Err(_))), "ended cleanly");
    assert!(daemon.get("/metrics").await.text().contains("logtier_errors_total{kind=\"slow_follower\"} 1"));
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
