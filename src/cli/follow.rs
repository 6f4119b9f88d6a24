//! `logtier logs -f`: new lines as they are committed.
//!
//! Server-sent events, taken up again with Last-Event-ID after every break, so that no line is
//! missed and none comes twice. Where the daemon has no such call, the reader is polled.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Response, StatusCode};

use super::Session;
use super::client::{ClientError, Patience, shows_progress, without_password};
use super::logs::{Position, Selection, is_never_logged, print_page, unreadable};
use super::pages::{Pager, Start};
use super::record::{Line, Printer};

/// How long a daemon may be away before following gives up.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(300);
/// Longer than several heartbeats: a connection that is silent for so long is dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);
/// How long one poll waits at the daemon, which allows a minute.
const POLL_WAIT_SECS: u64 = 30;
/// Far above `max_record_size`, whose JSON form may be six times as long.
const LONGEST_EVENT: usize = 64 << 20;

/// How a stream of events ended.
enum End {
    /// The attempt is finished.
    Finished,
    /// The connection broke, or the daemon closed it for a reason of its own.
    Broken(ClientError),
}

/// Prints what comes after `position` until the attempt is finished.
pub(super) async fn follow(
    session: &mut Session,
    selection: &Selection,
    mut position: Position,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut selection = selection.clone();
    selection.attempt = selection.attempt.or(position.attempt);
    let mut patience = Patience::new(FOLLOW_PATIENCE);
    let mut last_id = position.attempt.zip(position.next_line.checked_sub(1)).map(|(a, line)| format!("{a}:{line}"));
    loop {
        let mut call = selection.call("/follow").queries(&selection.filters).timeout(None);
        call = call.header(ACCEPT, "text/event-stream");
        if let Some(id) = &last_id {
            call = call.header(HeaderName::from_static("last-event-id"), id.clone());
        }
        let answer = match session.client.send_patiently(&call, &mut patience).await {
            Ok(answer) if answer.status() == StatusCode::NO_CONTENT => return Ok(()),
            Ok(answer) => answer,
            Err(error) if matches!(error.status(), Some(404 | 405 | 501)) => {
                // A line of its own begins at the cursor; without one at the line after the last.
                if let Some(line) = last_id.as_deref().and_then(line_of) {
                    position.next_line = line + 1;
                }
                return poll(session, &selection, position, printer).await;
            }
            Err(error) => return Err(unreadable(error.into(), &selection)),
        };
        let before = last_id.clone();
        match read_events(session, answer, &mut last_id, printer).await? {
            End::Finished => return Ok(()),
            End::Broken(error) => {
                position.cursor = None;
                // A connection that gave something was a good one: patience starts anew.
                if last_id != before {
                    patience.succeeded();
                }
                match patience.failed(&error, session.clock.instant()) {
                    Some(wait) => session.clock.sleep(wait).await,
                    None => return Err(error.into()),
                }
            }
        }
    }
}

fn line_of(id: &str) -> Option<u64> {
    id.rsplit_once(':')?.1.parse().ok()
}

async fn read_events(
    session: &mut Session,
    mut answer: Response,
    last_id: &mut Option<String>,
    printer: &mut Printer,
) -> anyhow::Result<End> {
    let mut events = Events::default();
    loop {
        let broken = |reason: &str| {
            End::Broken(ClientError::Broken { url: without_password(session.client.url()), reason: reason.to_owned() })
        };
        match tokio::time::timeout(LONGEST_SILENCE, answer.chunk()).await {
            Err(_) => return Ok(broken("nothing came for too long")),
            Ok(Err(error)) => return Ok(End::Broken(session.client.failure(&error))),
            Ok(Ok(None)) => return Ok(broken("the daemon closed it")),
            Ok(Ok(Some(chunk))) => events.buffer.extend_from_slice(&chunk),
        }
        if events.buffer.len() > LONGEST_EVENT {
            return Err(session.client.senseless(&"an event is too long").into());
        }
        while let Some(event) = events.next() {
            match event.name.as_str() {
                "record" => {
                    let line: Line<'_> =
                        serde_json::from_str(&event.data).map_err(|error| session.client.senseless(&error))?;
                    printer.print(&mut session.out, &event.data, &line)?;
                    *last_id = event.id.or(last_id.take());
                }
                "end" => {
                    if shows_progress() && session.out.terminal {
                        session.out.flush()?;
                        eprintln!("logtier: finished{}", outcome(&event.data));
                    }
                    return Ok(End::Finished);
                }
                "error" => return Ok(broken(&format!("the daemon said: {}", event.data))),
                _ => {}
            }
        }
        session.out.flush()?;
    }
}

fn outcome(data: &str) -> String {
    let end: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    end.get("outcome").and_then(|outcome| outcome.as_str()).map(|outcome| format!(", {outcome}")).unwrap_or_default()
}

/// The fallback: asks the reader again and again, which waits for lines.
async fn poll(
    session: &mut Session,
    selection: &Selection,
    position: Position,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut pager = Pager::new(selection, Start::Waiting { from: position.next_line, secs: POLL_WAIT_SECS });
    pager.cursor = position.cursor;
    loop {
        match pager.next(session).await {
            Ok(Some(page)) => {
                print_page(session, &page, printer)?;
                if page.attempt_final {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let error = anyhow::Error::from(error);
                if printer.printed > 0 || !is_never_logged(&error) {
                    return Err(unreadable(error, selection));
                }
                session.clock.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    id: Option<String>,
    data: String,
}

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
struct Events {
    buffer: BytesMut,
    event: Event,
}

impl Events {
    /// The next event that has data; heartbeats and other comments are passed over.
    fn next(&mut self) -> Option<Event> {
        loop {
            let at = memchr::memchr(b'\n', &self.buffer)?;
            let line = self.buffer.split_to(at + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if event.data.is_empty() && event.name.is_empty() {
                    continue;
                }
                return Some(event);
            }
            let text = String::from_utf8_lossy(line);
            let (field, value) = text.split_once(':').unwrap_or((&text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "id" => self.event.id = Some(value.to_owned()),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::testing::{Answer, Server};
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_bytes_are() {
        let stream =
            b": hello\n\nevent: record\r\nid: 1:5\r\ndata: {\"a\":1}\r\n\r\nretry: 5\n\nevent:end\ndata:{}\ndata:x\n\n";
        for step in 1..stream.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for part in stream.chunks(step) {
                events.buffer.extend_from_slice(part);
                while let Some(event) = events.next() {
                    seen.push(event);
                }
            }
            let record = Event { name: "record".into(), id: Some("1:5".into()), data: "{\"a\":1}".into() };
            let end = Event { name: "end".into(), id: None, data: "{}\nx".into() };
            assert_eq!(seen, [record, end], "{step}");
        }
    }

    fn first_page(line: u64) -> Answer {
        let record = serde_json::json!({"line": line, "message": format!("m{line}")});
        let page = serde_json::json!({"attempt": 1, "attempt_final": false, "records": [record],
            "next_cursor": "c", "at_end": true});
        Answer::json(200, &page)
    }

    #[tokio::test]
    async fn a_broken_stream_is_taken_up_where_it_ended() {
        let server = Server::start([
            first_page(0),
            Answer::events("event: record\nid: 1:1\ndata: {\"line\":1,\"message\":\"m1\"}\n\n: beat\n\nevent: rec"),
            Answer::problem(503, "restarting").header("retry-after", "0"),
            Answer::events(
                "event: record\nid: 1:2\ndata: {\"line\":2,\"message\":\"m2\"}\n\nevent: end\ndata: {\"outcome\":\"failed\"}\n\n",
            ),
        ])
        .await;
        let (exit, stdout) = server.run("logs run-1 -f --level info").await;
        assert_eq!((exit.expect("followed"), stdout.as_str()), (Exit::Done, "m0\nm1\nm2\n"));
        let seen = server.seen();
        assert_eq!(seen[1].target, "/api/v1/apps/default/instances/run-1/follow?attempt=1&level=INFO");
        let ids: Vec<_> = seen.iter().map(|request| request.header("last-event-id")).collect();
        assert_eq!(ids, ["", "1:0", "1:1", "1:1"]);
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_yet_is_waited_for() {
        let server = Server::start([
            Answer::problem(404, "never logged"),
            Answer::events("event: record\nid: 1:0\ndata: {\"line\":0,\"message\":\"m0\"}\n\n"),
            Answer::status(204),
        ])
        .await;
        assert_eq!(server.run("logs run-1 -f").await.1, "m0\n");
        assert_eq!(server.seen()[2].header("last-event-id"), "1:0");
    }

    #[tokio::test]
    async fn without_events_the_reader_is_polled() {
        let last = serde_json::json!({"attempt": 1, "attempt_final": true, "records": [{"line": 1, "message": "m1"}],
            "next_cursor": "d", "at_end": true});
        let server = Server::start([first_page(0), Answer::status(501), Answer::json(200, &last)]).await;
        assert_eq!(server.run("logs run-1 -f").await.1, "m0\nm1\n");
        assert!(server.seen()[2].target.ends_with("?attempt=1&limit=10000&wait=30&cursor=c"));
    }
    #[tokio::test]
    async fn only_what_is_new_means_none_of_the_old() {
        let server = Server::start([
            first_page(7),
            Answer::events("event: record\nid: 1:8\ndata: {\"line\":8,\"message\":\"m8\"}\n\nevent: end\n\n"),
        ])
        .await;
        assert_eq!(server.run("logs run-1 -f -n 0").await.1, "m8\n");
        assert_eq!(server.seen()[1].header("last-event-id"), "1:7");
    }
}
