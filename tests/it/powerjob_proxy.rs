//! PowerJob's live lines, states and console, with and without a PowerJob server behind.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::powerjob::{PowerJobServer, behind_a_relay, front, instance_id, report, status, until};
use crate::harness::{ColdStore, Engine, Tiers, on_each_pair};

const WORKER: &str = "10.0.0.1:27777";

/// A moment of today, by the daemon's clock: lines of a worker are new.
fn now(daemon: &Daemon) -> i64 {
    daemon.clock.now().get()
}

async fn start(tiers: &Tiers, server: Option<&PowerJobServer>, more: &[(&str, &str)]) -> Daemon {
    let front = front(server);
    let mut settings: Vec<(&str, &str)> = front.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend(more);
    Daemon::start(tiers, &settings).await
}

async fn shown(daemon: &Daemon, id: i64) -> serde_json::Value {
    daemon.get(&format!("/apps/powerjob/instances/{id}")).await.json()
}

#[test]
fn lines_and_states_become_a_log_and_all_else_goes_on() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let server = PowerJobServer::start().await;
            let daemon = start(tiers, Some(&server), &[]).await;
            let (id, other, at) = (instance_id(1), instance_id(2), now(&daemon));
            let lines =
                [(id, at, 2, "start"), (other, at, 4, "other"), (id, at + 1, 3, "two\nlines"), (id, at + 2, 99, "")];
            let answer = daemon.worker("reportLog", report(WORKER, &lines)).await.expect(200);
            assert_eq!(answer.body, b"", "a worker expects an empty body");
            let (text, pages) = daemon.page(id, 0).await;
            assert!(text.contains(&format!("[{WORKER}] INFO start\n")) && text.contains("WARN two\nlines\n"), "{text}");
            assert!(text.contains(&format!("[{WORKER}] OFF \n")) && !text.contains("other") && pages == 1, "{text}");
            assert!(text.ends_with("-- logtier: running, 3 lines so far --\n"), "{text}");

            // The state is read on its way, and gets there as it was.
            let running = status(id, 3, at);
            assert_eq!(
                daemon.worker("reportInstanceStatus", running.clone()).await.expect(200).json()["success"],
                true
            );
            until("the job is known", async || shown(&daemon, id).await["job"] == "42").await;
            daemon.worker("reportInstanceStatus", status(id, 5, at)).await.expect(200);
            until("the end is known", async || shown(&daemon, id).await["state"] == "finished").await;
            let attempt = shown(&daemon, id).await;
            assert_eq!((&attempt["outcome"], &attempt["labels"]["appId"]), (&"succeeded".into(), &"1".into()));
            assert_eq!(attempt["labels"]["wfInstanceId"], "7", "{attempt}");
            assert!(daemon.page(id, 0).await.0.contains(", succeeded"), "the console is told");

            // Everything else is PowerJob's own business.
            let client = &daemon.client;
            let request = client.put(format!("{}/teapot?a=%2F&b", daemon.surface("powerjob"))).header("x-mine", "1");
            let answer = daemon.send(request.body("as it is")).await.expect(418);
            assert_eq!((answer.header("x-made-by"), answer.text().as_str()), ("powerjob", "short"));
            daemon.worker("workerHeartbeat", "{}").await.expect(200);
            let seen = server.take_seen();
            let of = |path: &str| seen.iter().filter(|seen| seen.uri.path() == path).collect::<Vec<_>>();
            assert_eq!(of("/server/reportInstanceStatus")[0].body, running.as_bytes());
            assert_eq!(of("/server/workerHeartbeat").len(), 1);
            let teapot = of("/teapot")[0];
            assert_eq!((teapot.uri.query(), teapot.body.as_ref()), (Some("a=%2F&b"), &b"as it is"[..]));
            assert_eq!((teapot.method.as_str(), &teapot.headers["x-mine"]), ("PUT", &"1".parse().unwrap()));
            assert!(of("/server/reportLog").is_empty(), "lines are answered here");
            daemon.stop().await;
        });
    });
}

#[test]
fn a_run_after_the_end_is_another_attempt() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, None, &[]).await;
            let (id, at) = (instance_id(1), now(&daemon));
            daemon.worker("reportLog", report(WORKER, &[(id, at, 2, "first")])).await.expect(200);
            // Nothing stands behind: the target of a tee answers for itself.
            let answer = daemon.worker("reportInstanceStatus", status(id, 4, at)).await.expect(200);
            assert_eq!(answer.json()["success"], true);
            until("the end is known", async || shown(&daemon, id).await["outcome"] == "failed").await;
            // A line that was on its way belongs to the run that wrote it.
            daemon.worker("reportLog", report(WORKER, &[(id, at + 1, 2, "late")])).await.expect(200);
            daemon.clock.advance(Duration::from_secs(20));
            let again = now(&daemon);
            daemon.worker("reportLog", report(WORKER, &[(id, again, 2, "second")])).await.expect(200);
            daemon.worker("reportInstanceStatus", status(id, 5, again)).await.expect(200);
            until("the second end is known", async || shown(&daemon, id).await["outcome"] == "succeeded").await;
            assert_eq!(shown(&daemon, id).await["attempts"], serde_json::json!([1, 2]));
            let (text, _) = daemon.page(id, 0).await;
            assert!(text.contains("second") && !text.contains("late") && text.contains("run 2, 1 line"), "{text}");
            let url = format!("log?instanceId={id}&index=0&attempt=1");
            let first = daemon.console(&url).await.json()["data"]["data"].as_str().expect("a text").to_owned();
            assert!(first.contains("first") && first.contains("late") && first.contains(", failed"), "{first}");
            daemon.stop().await;
        });
    });
}

#[test]
fn the_console_reads_pages_and_files_of_both_tiers() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, None, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "1d")]).await;
            let (id, at) = (instance_id(1), now(&daemon));
            let nothing = daemon.page(id, 0).await.0;
            assert!(nothing.contains("no line of this instance is stored so far"), "{nothing}");
            let texts: Vec<String> = (0..250).map(|n| format!("line {n}")).collect();
            let lines: Vec<_> = texts.iter().map(|text| (id, at, 2, text.as_str())).collect();
            daemon.worker("reportLog", report(WORKER, &lines)).await.expect(200);
            daemon.worker("reportInstanceStatus", status(id, 5, at)).await.expect(200);
            until("the end is known", async || shown(&daemon, id).await["state"] == "finished").await;
            let mut files = Vec::new();
            for state in ["finished", "archived"] {
                let (first, pages) = daemon.page(id, 0).await;
                assert_eq!((first.lines().count(), pages), (100, 3), "{first}");
                assert!(first.contains("line 0\n") && first.ends_with("line 99\n"), "{first}");
                let (last, _) = daemon.page(id, 2).await;
                assert_eq!(last.lines().count(), 51, "{last}");
                assert!(last.contains("line 200\n") && last.contains("-- logtier: 250 lines, finished "), "{last}");
                assert_eq!(last.contains("archived"), state == "archived", "{last}");
                let url = daemon.console(&format!("downloadLogUrl?appId=1&instanceId={id}")).await.json();
                let url = url["data"].as_str().expect("a URL").to_owned();
                let file = daemon.send(daemon.client.get(&url)).await.expect(200);
                assert_eq!(file.header("content-disposition"), format!("attachment; filename=\"{id}-stable.log\""));
                assert_eq!(file.text().lines().count(), 250);
                let again = daemon.console(&format!("downloadLog4Console?appId=1&instanceId={id}")).await.expect(200);
                assert_eq!(again.body, file.body);
                files.push(file.body);
                if state == "finished" {
                    daemon.archive().await;
                }
            }
            assert!(files[0] == files[1], "the same bytes from both tiers");
            daemon.clock.advance(Duration::from_secs(2 * 86_400));
            daemon.archive().await;
            let (text, _) = daemon.page(id, 0).await;
            assert!(text.contains("the log of this instance is expired since 20"), "{text}");
            daemon.console(&format!("downloadLog?instanceId={id}")).await.expect(410);
            let wrong = daemon.console("log?appId=1&instanceId=x&index=0").await.expect(200).json();
            assert_eq!(wrong["success"], false, "{wrong}");
            daemon.stop().await;
        });
    });
}

#[test]
fn powerjob_decides_who_may_read() {
    let Some(tiers) = Tiers::new(Engine::Sqlite, ColdStore::Folder) else { return };
    runtime().block_on(async {
        let server = PowerJobServer::start().await;
        let daemon = start(&tiers, Some(&server), &[]).await;
        let id = instance_id(1);
        daemon.worker("reportLog", report(WORKER, &[(id, now(&daemon), 2, "secret")])).await.expect(200);
        assert!(daemon.page(id, 0).await.0.contains("secret"));
        let asked = server.take_seen();
        assert_eq!((asked[0].uri.path(), &asked[0].headers["power_jwt"]), ("/instance/list", &"t".parse().unwrap()));
        server.allow(false);
        for path in ["log", "downloadLogUrl", "downloadLog4Console"] {
            let refused = daemon.console(&format!("{path}?appId=1&instanceId={id}&index=0")).await.expect(200).json();
            assert_eq!((&refused["success"], &refused["code"]), (&false.into(), &"-100".into()), "{path}");
        }
        daemon.stop().await;
    });
}

#[test]
fn lines_that_cannot_be_stored_are_refused_and_leave_a_gap_that_is_seen() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let (relay, url) = behind_a_relay(&tiers).await;
        let server = PowerJobServer::start().await;
        let daemon = start(&tiers, Some(&server), &[("LOGTIER_HOT__URL", &url)]).await;
        let (id, at) = (instance_id(1), now(&daemon));
        daemon.worker("reportLog", report(WORKER, &[(id, at, 2, "before")])).await.expect(200);
        relay.cut();
        let began = Instant::now();
        let lines = [(id, at + 1, 2, "lost"), (id, at + 2, 2, "lost too")];
        daemon.worker("reportLog", report(WORKER, &lines)).await.expect(503);
        assert!(began.elapsed() < Duration::from_millis(4_500), "the worker waited {:?}", began.elapsed());
        // PowerJob hears of the end at once; the log will when the database is back.
        let began = Instant::now();
        daemon.worker("reportInstanceStatus", status(id, 5, at)).await.expect(200);
        daemon.worker("workerHeartbeat", "{}").await.expect(200);
        assert!(began.elapsed() < Duration::from_secs(1), "a forward waited {:?}", began.elapsed());
        let error = daemon.console(&format!("log?instanceId={id}&index=0")).await.expect(200).json();
        assert_eq!(error["success"], false, "unavailable is not empty: {error}");
        relay.mend();
        until("the end is known", async || shown(&daemon, id).await["outcome"] == "succeeded").await;
        until("the gap is noted", async || daemon.page(id, 0).await.0.contains("2 lines of 10.0.0.1:27777")).await;
        let (text, _) = daemon.page(id, 0).await;
        assert!(
            text.contains("[logtier] WARN") && text.contains("are missing here") && !text.contains("lost"),
            "{text}"
        );
        let metrics = daemon.app.metrics.encode().expect("metrics");
        assert!(metrics.contains("logtier_powerjob_lost_lines_total 2") && metrics.contains("powerjob_gaps_total 1"));
        daemon.stop().await;
    });
}

#[test]
fn workers_go_on_while_the_database_restarts() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let (relay, url) = behind_a_relay(&tiers).await;
        let server = PowerJobServer::start().await;
        let daemon = start(&tiers, Some(&server), &[("LOGTIER_HOT__URL", &url)]).await;
        let at = now(&daemon);
        let began = Instant::now();
        let workers = (0..50).map(|worker| {
            let daemon = &daemon;
            async move {
                let (id, address) = (instance_id(worker), format!("10.0.0.{worker}:27777"));
                let (mut acknowledged, mut slowest) = (Vec::new(), Duration::ZERO);
                for n in 0.. {
                    let text = format!("{worker}.{n}");
                    let answer = daemon.worker("reportLog", report(&address, &[(id, at + n, 2, &text)])).await;
                    if answer.status == 200 {
                        acknowledged.push(text);
                    }
                    let sent = Instant::now();
                    daemon.worker("workerHeartbeat", "{}").await.expect(200);
                    slowest = slowest.max(sent.elapsed());
                    if began.elapsed() > Duration::from_millis(2_500) {
                        break;
                    }
                }
                (id, acknowledged, slowest)
            }
        });
        let restart = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            relay.cut();
            tokio::time::sleep(Duration::from_millis(700)).await;
            relay.mend();
        };
        let (done, ()) = futures::join!(join_all(workers), restart);
        let slowest = done.iter().map(|(_, _, slowest)| *slowest).max().expect("workers");
        assert!(slowest < Duration::from_secs(1), "a heartbeat took {slowest:?}");
        let mut lines = 0;
        for (id, acknowledged, _) in done {
            let raw =
                daemon.get(&format!("/apps/powerjob/instances/{id}/download?format=raw")).await.expect(200).text();
            let stored: Vec<&str> = raw.lines().collect();
            for text in &acknowledged {
                let times = stored.iter().filter(|line| *line == text).count();
                assert_eq!(times, 1, "{text} was acknowledged and is there {times} times");
            }
            lines += acknowledged.len();
        }
        eprintln!("{lines} lines acknowledged, slowest heartbeat {slowest:?}");
        assert!(lines > 100, "{lines}");
        daemon.stop().await;
    });
}
