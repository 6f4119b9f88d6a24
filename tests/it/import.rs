//! Logs that PowerJob stored come in once, whatever happens on the way, and PowerJob's tables stay as they are.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use chrono_tz::Tz;
use logtier::model::Record;
use logtier::protocol::powerjob::Renderer;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::mysql::TestDatabase;
use crate::harness::s3::{Flavour, S3Server};
use crate::harness::{Tiers, on_each_pair};

/// By PowerJob's `MySqlSeriesDfsService`, and its own schema.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS powerjob_files (
        `id` BIGINT NOT NULL AUTO_INCREMENT COMMENT 'ID',
        `bucket` VARCHAR ( 255 ) NOT NULL COMMENT '分桶',
        `name` VARCHAR ( 255 ) NOT NULL COMMENT '文件名称',
        `version` VARCHAR ( 255 ) NOT NULL COMMENT '版本',
        `meta` VARCHAR ( 255 ) COMMENT '元数据',
        `length` BIGINT NOT NULL COMMENT '长度',
        `status` INT NOT NULL COMMENT '状态',
        `data` LONGBLOB NOT NULL COMMENT '文件内容',
        `extra` VARCHAR ( 255 ) COMMENT '其他信息',
        `gmt_create` DATETIME NOT NULL COMMENT '创建时间',
        `gmt_modified` DATETIME COMMENT '更新时间',
        PRIMARY KEY ( id ))",
    "CREATE TABLE instance_info (
        `id` bigint NOT NULL AUTO_INCREMENT, `actual_trigger_time` bigint DEFAULT NULL, `app_id` bigint DEFAULT NULL,
        `expected_trigger_time` bigint DEFAULT NULL, `finished_time` bigint DEFAULT NULL,
        `gmt_create` datetime(6) DEFAULT NULL, `gmt_modified` datetime(6) DEFAULT NULL,
        `instance_id` bigint DEFAULT NULL, `instance_params` longtext, `job_id` bigint DEFAULT NULL,
        `job_params` longtext, `last_report_time` bigint DEFAULT NULL, `result` longtext,
        `running_times` bigint DEFAULT NULL, `status` int DEFAULT NULL,
        `task_tracker_address` varchar(255) DEFAULT NULL, `type` int DEFAULT NULL,
        `wf_instance_id` bigint DEFAULT NULL,
        PRIMARY KEY (`id`), KEY `idx01_instance_info` (`job_id`,`status`), KEY `idx02_instance_info` (`app_id`,`status`),
        KEY `idx03_instance_info` (`instance_id`,`status`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
];

const PLACEHOLDER: &[u8] = b"SYSTEM: There is no online log for this job instance.";
/// Made on 2025-07-03 at 10:00 in Shanghai.
const FIRST_ID: i64 = (1_751_508_000_000 - 1_555_776_000_000) << 22;
const LOGS: i64 = 120;

/// A PowerJob's database.
struct PowerJob {
    database: TestDatabase,
    connection: MySqlConnection,
}

/// The instance ids of what is to be imported, and the bytes of each log.
type Truth = BTreeMap<i64, Vec<u8>>;

impl PowerJob {
    async fn new() -> Option<Self> {
        let database = TestDatabase::create()?;
        let mut connection = MySqlConnection::connect(database.url()).await.expect("connect");
        for table in TABLES {
            sqlx::raw_sql(AssertSqlSafe(table)).execute(&mut connection).await.expect("PowerJob's DDL");
        }
        Some(Self { database, connection })
    }

    async fn store(&mut self, bucket: &str, name: &str, data: &[u8]) {
        let statement = "INSERT INTO powerjob_files(bucket, name, version, meta, length, status, data, extra, gmt_create, \
                         gmt_modified) VALUES (?, ?, 'mu', '{}', ?, 1, ?, NULL, '2026-07-01', '2026-07-01')";
        let query = sqlx::query(statement).bind(bucket).bind(name).bind(data.len() as i64).bind(data);
        query.execute(&mut self.connection).await.expect("stored");
    }

    async fn log(&mut self, id: i64, data: &[u8]) {
        self.store("log", &format!("oms-{id}.log"), data).await;
    }

    async fn instance(&mut self, id: i64, status: i32, running_times: i64, finished_time: i64) {
        let statement = "INSERT INTO instance_info(app_id, job_id, instance_id, wf_instance_id, status, running_times, \
                         finished_time) VALUES (1, 42, ?, 7, ?, ?, ?)";
        let query = sqlx::query(statement).bind(id).bind(status).bind(running_times).bind(finished_time);
        query.execute(&mut self.connection).await.expect("stored");
    }

    /// Of both tables; every byte counts.
    async fn checksums(&mut self) -> Vec<i64> {
        let rows: Vec<(String, i64)> = sqlx::query_as("CHECKSUM TABLE powerjob_files, instance_info")
            .fetch_all(&mut self.connection)
            .await
            .expect("checksums");
        rows.into_iter().map(|(_, sum)| sum).collect()
    }

    /// What PowerJob leaves behind in half a year, small.
    async fn fill(&mut self) -> Truth {
        let mut truth = Truth::new();
        for n in 0..LOGS {
            let id = FIRST_ID + (n << 22) * 60_000;
            let log = log_of(n, 3 + n as usize * 7 % 90);
            if n % 10 == 0 {
                self.log(id, &log[..log.len() / 3]).await;
            }
            self.log(id, &log).await;
            if n % 7 == 0 {
                self.log(id, PLACEHOLDER).await;
            }
            let (status, times) = ([5, 5, 4, 10][n as usize % 4], if n % 9 == 8 { 2 } else { 1 });
            if n % 5 != 4 {
                self.instance(id, status, times, 1_751_500_000_000 + n).await;
            }
            truth.insert(id, log);
        }
        // More than is read at once.
        let large = (0..900)
            .flat_map(|n| format!("2025-07-03 10:00:00.{n:03} [w:1] INFO {n} {}\n", "x".repeat(5_000)).into_bytes());
        let large: Vec<u8> = large.collect();
        self.log(FIRST_ID + 1, &large).await;
        truth.insert(FIRST_ID + 1, large);
        self.log(FIRST_ID + 2, b"").await;
        self.log(FIRST_ID + 3, PLACEHOLDER).await;
        self.store("container", "oms-container-1.jar", b"PK\x03\x04 a jar").await;
        self.store("log", "other.txt", b"what is this").await;
        truth
    }
}

/// Lines in Chinese, a stack trace, bytes of GBK, a level that is none; all of them differ.
fn log_of(n: i64, lines: usize) -> Vec<u8> {
    let mut log = Vec::new();
    for line in 0..lines {
        let head =
            format!("2025-07-03 10:{:02}:{:02}.{:03} [10.0.0.{}:27777]", n % 60, line % 60, line * 13 % 1000, n % 5);
        match line % 10 {
            7 => log.extend(
                format!("{head} ERROR 失败 {n}.{line}\njava.lang.Error: {line}\n\tat A.b(A.java:{n})\n").bytes(),
            ),
            8 => {
                log.extend(format!("{head} WARN {line} ").bytes());
                log.extend(encoding_rs::GBK.encode("任务").0.iter());
                log.push(b'\n');
            }
            9 => log.extend(format!("{head} OFF {line}\r\n").bytes()),
            _ => log.extend(format!("{head} INFO 处理 {n}.{line}\n").bytes()),
        }
    }
    log
}

fn command(tiers: &Tiers, daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logtier"));
    command.args(["--url", &daemon.url(""), "--app", "powerjob", "import"]).args(words);
    command.env("XDG_STATE_HOME", tiers.folder().join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs an import to its end; its report.
async fn import(tiers: &Tiers, daemon: &Daemon, words: &[&str]) -> String {
    let mut command = command(tiers, daemon, words);
    let output: Output =
        tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Every log is stored with every line once: rendered again, it has the bytes that it had.
async fn check_logs(daemon: &Daemon, truth: &Truth) {
    for (id, log) in truth {
        let path = format!("/apps/powerjob/instances/{id}/download?format=ndjson");
        let stored = daemon.get(&path).await.expect(200);
        let (mut renderer, mut file) = (Renderer::new(Tz::Asia__Shanghai), Vec::new());
        for line in stored.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            renderer.render(&Record::parse_json(line).expect("a record"), &mut file);
        }
        assert!(
            file == *log,
            "{id}: {}\n--- is not ---\n{}",
            String::from_utf8_lossy(&file),
            String::from_utf8_lossy(log)
        );
    }
}

async fn check_facts(daemon: &Daemon) {
    let of = async |n: i64| {
        let id = FIRST_ID + (n << 22) * 60_000;
        daemon.get(&format!("/apps/powerjob/instances/{id}")).await.expect(200).json()
    };
    let failed = of(2).await;
    assert_eq!(
        (failed["outcome"].as_str(), failed["job"].as_str(), failed["attempt"].as_u64(), failed["state"].as_str()),
        (Some("failed"), Some("42"), Some(1), Some("finished"))
    );
    assert_eq!(failed["labels"], serde_json::json!({"appId": "1", "wfInstanceId": "7"}));
    assert_eq!(failed["finished_at"], "2025-07-02T23:46:40.002Z");
    assert_eq!(of(8).await["attempt"], 2);
    let unknown = of(4).await;
    assert_eq!((unknown["outcome"].as_str(), unknown["job"].as_str()), (None, None));
    assert_eq!(unknown["finished_at"], unknown["last_ts"]);
    let absent = daemon.get(&format!("/apps/powerjob/instances/{}", FIRST_ID + 3)).await;
    assert_eq!(absent.status, 404, "a placeholder is no log");
}

/// Kills an import that has done some of its work.
async fn import_and_kill(tiers: &Tiers, daemon: &Daemon, words: &[&str]) {
    let mut child = command(tiers, daemon, words).spawn().expect("it runs");
    let began = std::time::Instant::now();
    loop {
        let list = daemon.get("/apps/powerjob/instances?limit=40").await.expect(200).json();
        if list["instances"].as_array().map_or(0, Vec::len) >= 40 {
            break;
        }
        assert!(child.try_wait().expect("asked").is_none(), "it ended before it could be killed");
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is imported: {list}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
}

#[test]
fn powerjobs_table_comes_in_once() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let Some(mut powerjob) = PowerJob::new().await else { return };
            let truth = powerjob.fill().await;
            let before = powerjob.checksums().await;
            let daemon = Daemon::start(tiers, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "forever")]).await;
            let source = powerjob.database.url().to_owned();
            let words = ["powerjob", "--from", &source];

            let dry = import(tiers, &daemon, &[&words[..], &["--dry-run"]].concat()).await;
            assert!(dry.contains("would import 121 files"), "{dry}");
            let mut other_zone = command(tiers, &daemon, &[&words[..], &["--timezone", "UTC"]].concat());
            let refused = other_zone.output().expect("it runs");
            assert!(String::from_utf8_lossy(&refused.stderr).contains("8h 0m later"), "{refused:?}");
            import_and_kill(tiers, &daemon, &words).await;
            let report = import(tiers, &daemon, &words).await;
            for line in [
                "        19  a placeholder",
                "        12  an older copy",
                "         1  empty",
                "         1  not in the log bucket",
                "         1  the name is not that of a log",
            ] {
                assert!(report.contains(line), "{line} is not in\n{report}");
            }
            check_logs(&daemon, &truth).await;
            check_facts(&daemon).await;

            let report = import(tiers, &daemon, &words).await;
            assert!(
                report.contains("imported 0 files, 0 lines") && report.contains("       121  were imported before"),
                "{report}"
            );
            daemon.archive().await;
            let report = import(tiers, &daemon, &[&words[..], &["--again"]].concat()).await;
            assert!(report.contains("       121  were there already, line by line"), "{report}");
            check_logs(&daemon, &truth).await;
            assert_eq!(powerjob.checksums().await, before, "PowerJob's tables were written to");
            daemon.stop().await;
        });
    });
}

/// Writes a `mongodump` of GridFS with chunks of 1,000 bytes, the last chunk of each log first.
fn write_dump(folder: &std::path::Path, logs: &Truth) {
    let (mut files, mut chunks) = (Vec::new(), Vec::new());
    for (n, (id, log)) in logs.iter().enumerate() {
        let mut object_id = [0; 12];
        object_id[4..].copy_from_slice(&id.to_be_bytes());
        let object_id = bson::oid::ObjectId::from_bytes(object_id);
        let uploaded_at = bson::DateTime::from_millis(1_751_500_000_000 + n as i64);
        files.push(bson::doc! {
            "_id": object_id, "filename": format!("oms-{id}.log"), "length": log.len() as i64, "chunkSize": 1_000_i32,
            "uploadDate": uploaded_at,
        });
        for (n, data) in log.chunks(1_000).enumerate().collect::<Vec<_>>().into_iter().rev() {
            let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: data.to_vec() };
            chunks.push(bson::doc! { "files_id": object_id, "n": n as i32, "data": data });
        }
    }
    for (name, documents) in [("log.files.bson", files), ("log.chunks.bson", chunks)] {
        let bytes: Vec<u8> = documents.iter().flat_map(|document| document.to_vec().expect("BSON")).collect();
        std::fs::write(folder.join(name), bytes).expect("written");
    }
}

fn small_truth() -> Truth {
    (0..12).map(|n| (FIRST_ID + (n << 22) * 60_000, log_of(n, 5 + n as usize * 9))).collect()
}

/// The same logs from a dump, a bucket and a folder: the first brings them, the others find them there.
#[test]
fn every_storage_of_powerjob_leads_to_the_same_log() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let truth = small_truth();
            let daemon = Daemon::start(tiers, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "forever")]).await;
            // Live lines came first, in another order than the file has them.
            let (live, _) = truth.iter().next().expect("a log");
            let records = [
                "2025-07-03T02:00:02.026Z\",\"message\":\"处理 0.2",
                "2025-07-03T02:00:00.000Z\",\"message\":\"处理 0.0",
            ];
            let records = records
                .map(|record| format!("{{\"ts\":\"{record}\",\"level\":\"INFO\",\"source\":\"10.0.0.0:27777\"}}\n"));
            daemon.post(&format!("/apps/powerjob/instances/{live}/records"), records.concat()).await.expect(200);

            let dump = tempfile::tempdir().expect("a folder");
            write_dump(dump.path(), &truth);
            let report = import(tiers, &daemon, &["powerjob", "--from", &dump.path().display().to_string()]).await;
            assert!(report.contains("imported 12 files") && report.contains("there in part: 2 lines kept"), "{report}");
            let others: Truth = truth.clone().into_iter().skip(1).collect();
            check_logs(&daemon, &others).await;
            let raw = daemon.get(&format!("/apps/powerjob/instances/{live}/download?format=raw")).await.expect(200);
            let mut lines: Vec<String> = raw.text().lines().map(str::to_owned).collect();
            lines.sort();
            assert_eq!(lines, ["处理 0.0", "处理 0.1", "处理 0.2", "处理 0.3", "处理 0.4"]);

            let server = S3Server::start(Flavour::S3);
            let place = server.place();
            std::fs::create_dir_all(server.bucket_folder().join("log")).expect("made");
            std::fs::create_dir_all(server.bucket_folder().join("container")).expect("made");
            std::fs::write(server.bucket_folder().join("container/x.jar"), b"PK").expect("written");
            let folder = tempfile::tempdir().expect("a folder");
            for (id, log) in &truth {
                std::fs::write(server.bucket_folder().join(format!("log/oms-{id}.log")), log).expect("written");
                std::fs::write(folder.path().join(format!("{id}-stable.log")), log).expect("written");
            }
            std::fs::write(server.bucket_folder().join("log/oms-5.log"), PLACEHOLDER).expect("written");
            let bucket = format!("s3://{}/log/", place.bucket);
            let words = ["powerjob", "--from", &bucket, "--endpoint", &place.endpoint, "--region", &place.region];
            let mut command = command(tiers, &daemon, &words);
            command
                .env("AWS_ACCESS_KEY_ID", &place.access_key_id)
                .env("AWS_SECRET_ACCESS_KEY", &place.secret_access_key);
            let output =
                tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends");
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                report.contains("        12  were there already") && report.contains("1  a placeholder"),
                "{output:?}"
            );

            let report =
                import(tiers, &daemon, &["files", &folder.path().display().to_string(), "--preset", "powerjob"]).await;
            assert!(report.contains("        12  were there already"), "{report}");
            check_logs(&daemon, &others).await;
            daemon.stop().await;
        });
    });
}

/// Trees of files as schedulers leave them; a file that grew is completed.
#[test]
fn trees_of_files_come_in_by_their_paths() {
    on_each_pair(|tiers| {
        runtime().block_on(async {
            let daemon = Daemon::start(tiers, &[("LOGTIER_RETENTION__DEFAULT__COLD_FOR", "forever")]).await;
            let tree = tempfile::tempdir().expect("a folder");
            let write = |path: &str, text: &str| {
                let path = tree.path().join(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(&path, text).expect("written");
                let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_740_000_000);
                std::fs::File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(long_ago))
                    .expect("set");
            };
            let airflow = "dag_id=etl/run_id=manual__2025-01-02T03:04:05+00:00/task_id=load/attempt=2.log";
            write(&format!("air/{airflow}"), "[2025-01-02T03:05:00.123+0000] {t.py:1} ERROR - no\n  Traceback\n");
            write("air/dag_id=etl/README", "x");
            write("xxl/2025-01-02/4711.log", "2025-01-02 10:00:00 [a#b]-[1]-[t] one\n");
            write("xxl/gluesource/1.sh", "x");
            let dir = |name: &str| tree.path().join(name).display().to_string();

            let report = import(tiers, &daemon, &["files", &dir("air"), "--preset", "airflow"]).await;
            assert!(
                report.contains("imported 1 file, 2 lines") && report.contains("not that of a log: dag_id=etl/README"),
                "{report}"
            );
            let instance = "etl/manual__2025-01-02T03:04:05%2B00:00/load";
            let shown =
                daemon.get(&format!("/instances?app=powerjob&instance={instance}&attempt=2")).await.expect(200).json();
            let of = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(
                (of("job"), of("created_at"), of("finished_at")),
                ("etl.load".to_owned(), "2025-01-02T03:05:00.123Z".to_owned(), "2025-01-02T03:05:00.123Z".to_owned())
            );
            let raw = daemon
                .get(&format!("/instances/download?app=powerjob&instance={instance}&format=raw&level=error"))
                .await;
            assert_eq!(raw.expect(200).text(), "[2025-01-02T03:05:00.123+0000] {t.py:1} ERROR - no\n  Traceback\n");

            for text in ["2025-01-02 10:00:00 [a#b]-[1]-[t] one\n", "2025-01-02 10:00:00 [a#b]-[1]-[t] one\ntwo\n"] {
                write("xxl/2025-01-02/4711.log", text);
                let report = import(tiers, &daemon, &["files", &dir("xxl"), "--preset", "xxl-job"]).await;
                assert!(report.contains("imported 1 file, 1 line,"), "{report}");
                let raw = daemon.get("/apps/powerjob/instances/4711/download?format=raw").await.expect(200);
                assert_eq!(raw.text(), text);
            }
            let report = import(tiers, &daemon, &["files", &dir("xxl"), "--pattern", "{date}/{instance}.log"]).await;
            assert!(report.contains("         1  were imported before"), "{report}");
            daemon.stop().await;
        });
    });
}
