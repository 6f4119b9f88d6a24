//! Whole logs, from both tiers, as clients of every kind get them.

use std::time::Duration;

use reqwest::header::ACCEPT_ENCODING;

use crate::harness::daemon::{Answer, Daemon, runtime};
use crate::harness::logs::{append, finish, numbered};
use crate::harness::on_each_pair;

const PATH: &str = "/apps/a/instances/i";

async fn download(daemon: &Daemon, query: &str, encoding: &str) -> Answer {
    let url = daemon.url(&format!("/api/v1{PATH}/download?format=ndjson{query}"));
    daemon.send(daemon.client.get(url).header(ACCEPT_ENCODING, encoding)).await.expect(200)
}

/// What a client that takes zstd decompresses is what another one gets, wherever the lines are.
#[test]
fn zstd_clients_get_the_same_lines() {
    on_each_pair(|tiers| runtime().block_on(check(tiers)));
}

async fn check(tiers: &crate::harness::Tiers) {
    let daemon = Daemon::start(tiers, &[("LOGTIER_COLD__FRAME_SIZE", "64KiB")]).await;
    for neighbour in ["before", "i", "z"] {
        append(&daemon.app, neighbour, &numbered(neighbour, 0..8_000)).await;
        finish(&daemon.app, &daemon.clock, neighbour).await;
    }
    let hot = download(&daemon, "", "identity").await.body;
    daemon.archive().await;
    // Purged, so that every line comes from the bucket; then some more in the hot tier.
    daemon.clock.advance(Duration::from_secs(3_600));
    daemon.archive().await;
    let cold = download(&daemon, "", "identity").await;
    assert!(cold.body == hot && cold.header("content-encoding").is_empty(), "the move changed the lines");
    append(&daemon.app, "i", &numbered("late", 0..100)).await;
    for query in
        ["", "&from_line=3", "&from_line=1234&to_line=6789", "&from_line=7990", "&from_line=8050", "&level=error"]
    {
        let plain = download(&daemon, query, "identity").await;
        let zstd = download(&daemon, query, "gzip, zstd").await;
        let decoded = zstd::decode_all(&zstd.body[..]).expect("zstd");
        assert!(decoded == plain.body, "{query}: {} bytes, {} expected", decoded.len(), plain.body.len());
        assert_eq!(zstd.header("content-encoding"), "zstd", "{query}");
    }
    let whole = download(&daemon, "", "zstd").await.body;
    assert!(whole.len() < hot.len() / 4, "{} of {} bytes", whole.len(), hot.len());
    assert!(download(&daemon, "", "zstd;q=0").await.header("content-encoding").is_empty());

    // A job that is told late is in every line, also in those that moved before.
    let late = r#"{"job":"late"}"#;
    daemon.send(daemon.client.put(daemon.url(&format!("/api/v1{PATH}"))).body(late)).await.expect(200);
    let (plain, zstd) = (download(&daemon, "", "identity").await.body, download(&daemon, "", "zstd").await.body);
    assert!(zstd::decode_all(&zstd[..]).expect("zstd") == plain);
    let told = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let with_job = told.filter(|line| String::from_utf8_lossy(line).contains(r#""job":"late""#)).count();
    assert_eq!(with_job, 8_100);
    daemon.stop().await;
}
