//! Clients that send and read, as many at once as asked for.

use std::future::Future;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli::client::{Call, Client};

/// Runs `work` for each list of items, the lists side by side; answers the seconds that each item took.
async fn side_by_side<T, F>(client: &Client, lists: Vec<Vec<T>>, work: fn(Client, T) -> F) -> anyhow::Result<Vec<f64>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for list in lists {
        let client = client.clone();
        clients.spawn(async move {
            let mut seconds = Vec::with_capacity(list.len());
            for item in list {
                let started = client.clock.instant();
                work(client.clone(), item).await?;
                seconds.push(started.elapsed().as_secs_f64());
            }
            anyhow::Ok(seconds)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = clients.join_next().await {
        all.extend(ended.context("a client died")??);
    }
    Ok(all)
}

/// Sends each client's requests one after the other; answers the seconds that each took.
pub(super) async fn send(client: &Client, app: &str, bodies: Vec<Vec<Bytes>>) -> anyhow::Result<Vec<f64>> {
    let calls = bodies.into_iter().map(|of_client| {
        let call = |body| Call::new(Method::POST, "/records").query("app", app).body("application/x-ndjson", body);
        of_client.into_iter().map(call).collect()
    });
    side_by_side(client, calls.collect(), |client, call| async move {
        let answer: Value = client.json(&call).await?;
        let rejected = answer["rejected"].as_array().map_or(0, Vec::len);
        ensure!(rejected == 0, "the daemon took not all records: {}", answer["rejected"]);
        Ok(())
    })
    .await
}

/// Says of all instances that they are over.
pub(super) async fn finish(client: &Client, app: &str, instances: &[String], clients: usize) -> anyhow::Result<()> {
    let calls = (0..clients).map(|number| {
        let of_client = instances.iter().skip(number).step_by(clients);
        let call = |instance: &String| {
            Call::on_instance(Method::POST, app, instance, "/finish").json(&json!({"outcome": "succeeded"}))
        };
        of_client.map(call).collect()
    });
    side_by_side(client, calls.collect(), |client, call| async move {
        client.send(&call).await?;
        Ok(())
    })
    .await?;
    Ok(())
}

/// Runs the archiver until nothing is due.
pub(super) async fn archive(client: &Client) -> anyhow::Result<()> {
    let call = Call::new(Method::POST, "/archive").query("wait", 1);
    let mut report: Value = client.json(&call).await?;
    let run = report["run_id"].clone();
    let run = run.as_str().map_or_else(|| run.to_string(), str::to_owned);
    let call = Call::new(Method::GET, &format!("/runs/{run}")).timeout(None);
    while report["state"].is_null() || report["state"] == "running" {
        client.clock.sleep(std::time::Duration::from_millis(10)).await;
        report = client.json(&call).await?;
    }
    ensure!(report["state"] == "done", "the run of the archiver failed: {}", report["failures"]);
    Ok(())
}

/// The body of an answer, to its last byte; answers its length and the seconds that took.
pub(super) async fn get(client: &Client, call: &Call) -> anyhow::Result<(u64, f64)> {
    let started = client.clock.instant();
    let mut answer = client.send(call).await?;
    let mut bytes = 0;
    while let Some(piece) = answer.chunk().await? {
        bytes += piece.len() as u64;
    }
    Ok((bytes, started.elapsed().as_secs_f64()))
}

/// A page of an instance's first lines.
pub(super) fn page(app: &str, instance: &str) -> Call {
    Call::on_instance(Method::GET, app, instance, "/records").query("limit", 1000)
}

/// The whole log of an instance, as NDJSON.
pub(super) fn download(app: &str, instance: &str) -> Call {
    Call::on_instance(Method::GET, app, instance, "/download").query("format", "ndjson").timeout(None)
}

/// A search for a text in all logs of an app.
pub(super) fn search(app: &str, text: &str) -> Call {
    Call::new(Method::GET, "/search").query("app", app).query("contains", text).timeout(None)
}
