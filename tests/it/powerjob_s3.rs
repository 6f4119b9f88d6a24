//! logtier as PowerJob's MinIO: what it stores, and that no answer says "no log" where there is one.
//!
//! These tests use a well-kept S3 client of Rust; `make test-clients` lets the AWS SDKs do the same.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, RetryConfig};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::powerjob::{behind_a_relay, front, instance_id, report, status, until};
use crate::harness::s3::S3Place;
use crate::harness::{ColdStore, Engine, Tiers, note_skip, on_each_pair};

const SETTINGS: [(&str, &str); 5] = [
    ("LOGTIER_PROTOCOL__POWERJOB_S3__LISTEN", "127.0.0.1:0"),
    ("LOGTIER_PROTOCOL__POWERJOB_S3__BUCKET", "pj-bucket"),
    ("LOGTIER_PROTOCOL__POWERJOB_S3__ACCESS_KEY", "pj"),
    ("LOGTIER_PROTOCOL__POWERJOB_S3__SECRET_KEY", "pj-secret"),
    ("LOGTIER_PROTOCOL__POWERJOB_S3__TIMEZONE", "Asia/Shanghai"),
];

const PLACEHOLDER: &str = "SYSTEM: There is no online log for this job instance.";

/// A daemon with both surfaces, and more settings.
async fn start(tiers: &Tiers, more: &[(&str, &str)]) -> Daemon {
    let front = front(None);
    let mut settings: Vec<(&str, &str)> = front.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend(SETTINGS);
    settings.extend(more);
    Daemon::start(tiers, &settings).await
}

fn client_with(daemon: &Daemon, bucket: &str, secret: &str) -> AmazonS3 {
    let place = S3Place {
        endpoint: daemon.surface("powerjob_s3"),
        bucket: bucket.to_owned(),
        prefix: String::new(),
        access_key_id: "pj".to_owned(),
        secret_access_key: secret.to_owned(),
        region: "us-east-1".to_owned(),
        virtual_hosted_style: false,
    };
    let retry = RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    place.client().with_retry(retry).build().expect("a client")
}

fn client(daemon: &Daemon) -> AmazonS3 {
    client_with(daemon, "pj-bucket", "pj-secret")
}

fn log(id: i64) -> Path {
    Path::from(format!("log/oms-{id}.log"))
}

async fn get(client: &AmazonS3, path: &Path) -> Result<Vec<u8>, Error> {
    Ok(client.get(path).await?.bytes().await?.to_vec())
}

/// Stores a file; its ETag must be the MD5 of the file.
async fn put(client: &AmazonS3, path: &Path, body: impl Into<Vec<u8>>) {
    let body: Vec<u8> = body.into();
    let stored = client.put(path, body.clone().into()).await.expect("stored");
    assert_eq!(stored.e_tag, Some(format!("\"{}\"", md5(&body))));
}

fn md5(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn attempts(daemon: &Daemon, id: i64) -> serde_json::Value {
    daemon.get(&format!("/apps/powerjob/instances/{id}")).await.json()["attempts"].clone()
}

/// A file as PowerJob writes it, of any length; with a line that is no line, and bytes that are no text.
fn file(lines: usize) -> Vec<u8> {
    let mut file = b"no header\n".to_vec();
    for n in 0..lines {
        let line =
            format!("2026-11-22 18:{:02}:{:02}.{:03} [10.0.0.1:27777] INFO line {n}", n / 60 % 60, n % 60, n % 1000);
        file.extend(line.bytes());
        if n % 50 == 7 {
            file.extend_from_slice(b"\r\n\tat Main.java:7\n\xC8\xCE\xCE\xF1");
        }
        file.push(b'\n');
    }
    file
}

#[test]
fn files_become_logs_and_come_back_with_the_same_bytes() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, &[]).await;
            let client = client(&daemon);
            let (small, large, empty) = (instance_id(1), instance_id(2), instance_id(3));
            assert!(matches!(get(&client, &log(small)).await, Err(Error::NotFound { .. })));
            let files =
                [(small, b"2026-11-22 18:00:00.000 [w] WARN one\n".to_vec()), (large, file(20_000)), (empty, vec![])];
            for (id, body) in &files {
                put(&client, &log(*id), body.clone()).await;
            }
            for tier in ["hot", "cold"] {
                for (id, body) in &files {
                    let head = client.head(&log(*id)).await.expect("there");
                    assert_eq!(
                        (head.size, head.e_tag),
                        (body.len() as u64, Some(format!("\"{}\"", md5(body)))),
                        "{tier}"
                    );
                    assert!(get(&client, &log(*id)).await.expect("there") == *body, "{id} from the {tier} tier");
                }
                daemon.archive().await;
            }
            let shown = daemon.get(&format!("/apps/powerjob/instances/{small}")).await.json();
            assert_eq!((&shown["state"], &shown["lines"]), (&"archived".into(), &1.into()), "{shown}");
            let record = daemon.get(&format!("/apps/powerjob/instances/{small}/records")).await.json();
            let record = &record["records"][0];
            assert_eq!((&record["ts"], &record["level"]), (&"2026-11-22T10:00:00.000Z".into(), &"WARN".into()));
            daemon.stop().await;
        });
    });
}

#[test]
fn a_placeholder_replaces_nothing_and_a_second_file_is_a_second_attempt() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, &[]).await;
            let client = client(&daemon);
            let (id, silent) = (instance_id(1), instance_id(2));
            put(&client, &log(silent), PLACEHOLDER).await;
            assert!(matches!(get(&client, &log(silent)).await, Err(Error::NotFound { .. })), "a placeholder is no log");
            let (first, second) = (file(300), file(200));
            put(&client, &log(id), first.clone()).await;
            put(&client, &log(id), PLACEHOLDER).await;
            put(&client, &log(id), first.clone()).await;
            assert!(get(&client, &log(id)).await.expect("there") == first);
            assert_eq!(attempts(&daemon, id).await, serde_json::json!([1]));
            let third = [&first[..], b"2026-11-22 19:00:00.000 [w] INFO more\n"].concat();
            for (number, body) in [(2, &third), (2, &third), (2, &first)] {
                put(&client, &log(id), body.clone()).await;
                assert_eq!(attempts(&daemon, id).await.as_array().map(Vec::len), Some(number));
            }
            assert!(
                get(&client, &log(id)).await.expect("there") == third,
                "the file of an earlier run changes nothing"
            );
            // A part of what is stored is nothing new either.
            put(&client, &log(id), second).await;
            assert_eq!(attempts(&daemon, id).await, serde_json::json!([1, 2]));
            let metrics = daemon.app.metrics.encode().expect("metrics");
            assert!(metrics.contains("logtier_powerjob_placeholders_total 2"), "{metrics}");
            daemon.stop().await;
        });
    });
}

#[test]
fn live_lines_and_their_file_meet() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, &[]).await;
            let client = client(&daemon);
            let at = daemon.clock.now().get();
            let (id, worker) = (instance_id(1), "10.0.0.1:27777");
            // Two workers, out of order; PowerJob sorts its file by time and lost nothing.
            let texts: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
            for n in (0..40).filter(|n| *n != 20 && *n != 39).rev() {
                let lines = [(id, at + n, 2, texts[n as usize].as_str())];
                daemon.worker("reportLog", report(worker, &lines)).await.expect(200);
            }
            assert!(
                matches!(get(&client, &log(id)).await, Err(Error::Generic { .. })),
                "a growing log is not given out"
            );
            daemon.worker("reportInstanceStatus", status(id, 5, at)).await.expect(200);
            until("the end is known", async || {
                daemon.get(&format!("/apps/powerjob/instances/{id}")).await.json()["state"] == "finished"
            })
            .await;
            let live = get(&client, &log(id)).await.expect("there");
            let lines_of = |bytes: &[u8]| {
                let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            // The file without the two lines that never came: nothing new.
            put(&client, &log(id), lines_of(&live).join("\n") + "\n").await;
            assert!(get(&client, &log(id)).await.expect("there") == live);
            // With them: they, and only they, are stored.
            let line = |n: i64| {
                let time = chrono::DateTime::from_timestamp_millis(at + n).expect("a time");
                let time = time.with_timezone(&chrono_tz::Asia::Shanghai).format("%Y-%m-%d %H:%M:%S%.3f");
                format!("{time} [{worker}] INFO {}\n", texts[n as usize])
            };
            let whole: String = (0..40).map(line).collect();
            put(&client, &log(id), whole.clone()).await;
            let stored = get(&client, &log(id)).await.expect("there");
            assert_eq!(lines_of(&stored), lines_of(whole.as_bytes()), "every line once");
            assert_eq!(attempts(&daemon, id).await, serde_json::json!([1]));
            daemon.stop().await;
        });
    });
}

#[test]
fn files_that_are_no_logs_stay_files() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "1d")]).await;
            let client = client(&daemon);
            let jar = Path::from("container/oms-1.jar");
            assert!(matches!(client.head(&jar).await, Err(Error::NotFound { .. })));
            let bodies = [vec![], vec![7; 300_000], (0..=255u8).cycle().take(9 << 20).collect::<Vec<u8>>()];
            for body in &bodies {
                put(&client, &jar, body.clone()).await;
                assert_eq!(client.head(&jar).await.expect("there").size, body.len() as u64);
                assert!(get(&client, &jar).await.expect("there") == *body);
            }
            daemon.archive().await;
            daemon.clock.advance(Duration::from_secs(30 * 86_400));
            daemon.archive().await;
            assert!(get(&client, &jar).await.expect("still there") == bodies[2], "no retention touches it");
            let apps = daemon.get("/apps").await.json();
            assert!(!apps.to_string().contains("powerjob"), "a jar is no log: {apps}");
            daemon.stop().await;
        });
    });
}

#[test]
fn strangers_are_refused() {
    let Some(tiers) = Tiers::new(Engine::Sqlite, ColdStore::Folder) else { return };
    runtime().block_on(async {
        let daemon = start(&tiers, &[("LOGTIER_PROTOCOL__POWERJOB_S3__MAX_FILE_SIZE", "1MiB")]).await;
        put(&client(&daemon), &log(instance_id(1)), file(3)).await;
        let wrong = client_with(&daemon, "pj-bucket", "other-secret");
        for result in
            [wrong.put(&log(instance_id(2)), "x".into()).await.err(), wrong.get(&log(instance_id(1))).await.err()]
        {
            assert!(matches!(result, Some(Error::PermissionDenied { .. })), "{result:?}");
        }
        let nobody =
            daemon.send(daemon.client.get(format!("{}/pj-bucket/log/oms-1.log", daemon.surface("powerjob_s3"))));
        nobody.await.expect(403);
        let elsewhere = client_with(&daemon, "other-bucket", "pj-secret");
        assert!(elsewhere.put(&log(instance_id(2)), "x".into()).await.is_err());
        let large = client(&daemon).put(&log(instance_id(2)), vec![b'x'; (1 << 20) + 1].into()).await;
        assert!(large.is_err(), "{large:?}");
        assert!(matches!(get(&client(&daemon), &log(instance_id(2))).await, Err(Error::NotFound { .. })));
        daemon.stop().await;
    });
}

#[test]
fn without_a_database_nobody_is_told_that_there_is_no_log() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    runtime().block_on(async {
        let (relay, url) = behind_a_relay(&tiers).await;
        let daemon = start(&tiers, &[("LOGTIER_HOT__URL", &url)]).await;
        let client = Arc::new(client(&daemon));
        let (id, new) = (instance_id(1), instance_id(2));
        let body = file(60_000);
        put(&client, &log(id), body.clone()).await;

        // In the middle of a download: it breaks, and does not end early.
        let mut stream = client.get(&log(id)).await.expect("there").into_stream();
        let first = futures::StreamExt::next(&mut stream).await.expect("a piece").expect("bytes");
        relay.cut();
        let (mut got, mut broke) = (first.len(), false);
        while let Some(piece) = futures::StreamExt::next(&mut stream).await {
            match piece {
                Ok(piece) => got += piece.len(),
                Err(_) => {
                    broke = true;
                    break;
                }
            }
        }
        assert!(broke || got == body.len(), "a download of {} bytes ended after {got} as if it were whole", body.len());

        for path in [log(id), log(new)] {
            for error in [client.head(&path).await.err(), client.get(&path).await.err()] {
                assert!(matches!(error, Some(Error::Generic { .. })), "the connection is closed: {error:?}");
            }
        }
        // The same in the middle of an upload; sent again later it is there once.
        let upload = client.put(&log(new), body.clone().into()).await;
        assert!(upload.is_err());
        relay.mend();
        assert!(matches!(get(&client, &log(new)).await, Err(Error::NotFound { .. })));
        let sending = tokio::spawn({
            let (client, body) = (Arc::clone(&client), body.clone());
            async move { client.put(&log(new), body.into()).await }
        });
        until("some lines are stored", async || {
            daemon.get(&format!("/apps/powerjob/instances/{new}")).await.json()["lines"].as_u64() > Some(0)
        })
        .await;
        relay.cut();
        let cut_off = sending.await.expect("no panic").is_err();
        relay.mend();
        if cut_off {
            let half = get(&client, &log(new)).await;
            assert!(matches!(half, Err(Error::Generic { .. })), "half a file is given to nobody");
        }
        put(&client, &log(new), body.clone()).await;
        assert!(get(&client, &log(new)).await.expect("there") == body);
        assert_eq!(
            attempts(&daemon, new).await,
            serde_json::json!([1]),
            "the second upload went on where the first broke off"
        );
        daemon.stop().await;
    });
}

/// The program, and the jars that the SDK for Java is made of.
fn java(clients: &std::path::Path) -> (std::path::PathBuf, std::ffi::OsString) {
    let java = clients.join("java");
    let folders = [java.clone(), java.join("usr/share/java")];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let files = files.map(|file| file.expect("an entry").path());
    let jars = files.filter(|file| file.extension().is_some_and(|ending| ending == "jar"));
    (java.join("usr/lib/jvm/java-17-openjdk-amd64/bin/java"), std::env::join_paths(jars).expect("a class path"))
}

#[test]
fn clients_of_other_languages_find_what_powerjob_needs() {
    let Some(clients) = std::env::var_os("LOGTIER_TEST_CLIENTS").map(std::path::PathBuf::from) else {
        note_skip("the AWS SDKs for Python, JavaScript and Java, which `make test-clients` fetches");
        return;
    };
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = start(tiers, &[]).await;
            let endpoint = daemon.surface("powerjob_s3");
            let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
            let (java, jars) = java(&clients);
            let programs = [
                (clients.join("venv/bin/python"), "powerjob_s3.py"),
                ("node".into(), "powerjob_s3.mjs"),
                (java, "PowerjobS3.java"),
            ];
            for (program, script) in programs {
                if script.ends_with(".java") && !program.exists() {
                    note_skip("the AWS SDK for Java, which could not be fetched");
                    continue;
                }
                let mut command = tokio::process::Command::new(program);
                command.env("CLASSPATH", &jars).arg(scripts.join(script)).args([
                    endpoint.as_str(),
                    "pj-bucket",
                    "pj",
                    "pj-secret",
                ]);
                let output = command.env("NODE_PATH", clients.join("node_modules")).output().await.expect("a program");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{script}: {said}");
                eprint!("{}", String::from_utf8_lossy(&output.stdout));
            }
            daemon.stop().await;
        });
    });
}
