//! Many followers of one log: how late is a line at the last of them?

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli::client::{Call, Client};

/// Lines that are written, one at a time, while all followers listen.
const LINES: u64 = 10;
/// Pause between two lines: longer than a daemon's poll, so that none waits for the one before.
const PAUSE: Duration = Duration::from_millis(300);
/// A follower that has not everything by then never gets it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Seconds from a line's commit to its arrival, for each line and each follower.
pub(super) async fn fan_out(client: &Client, app: &str, followers: usize) -> anyhow::Result<Vec<f64>> {
    let instance = "followed";
    let mut listening = JoinSet::new();
    for _ in 0..followers {
        let client = client.clone();
        let call = Call::on_instance(Method::GET, app, instance, "/follow").header(ACCEPT, "text/event-stream");
        listening.spawn(async move { listen(&client, &call.timeout(Some(DEADLINE))).await });
    }
    let mut committed = Vec::new();
    for line in 0..LINES {
        client.clock.sleep(PAUSE).await;
        let record = Bytes::from(format!("{}\n", json!({"message": format!("line {line}")})));
        let call = Call::on_instance(Method::POST, app, instance, "/records").body("application/x-ndjson", record);
        let _: Value = client.json(&call).await?;
        committed.push(client.clock.instant());
    }
    let finish = Call::on_instance(Method::POST, app, instance, "/finish").json(&json!({"outcome": "succeeded"}));
    client.send(&finish).await?;
    let mut seconds = Vec::new();
    while let Some(arrived) = listening.join_next().await {
        let arrived = arrived.context("a follower died")??;
        ensure!(arrived.len() == committed.len(), "a follower got {} of {LINES} lines", arrived.len());
        let late = arrived.iter().zip(&committed).map(|(arrived, sent)| arrived.saturating_duration_since(*sent));
        seconds.extend(late.map(|late| late.as_secs_f64()));
    }
    Ok(seconds)
}

/// When each `record` event came, until the stream ends.
async fn listen(client: &Client, call: &Call) -> anyhow::Result<Vec<Instant>> {
    let mut answer = client.send(call).await?;
    let (mut arrived, mut rest) = (Vec::new(), Vec::new());
    while let Some(piece) = answer.chunk().await? {
        let now = client.clock.instant();
        rest.extend_from_slice(&piece);
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if line.starts_with(b"event: record") || line.starts_with(b"event:record") {
                arrived.push(now);
            }
        }
    }
    Ok(arrived)
}
