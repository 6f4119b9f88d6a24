//! Three daemons on MariaDB and S3.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use url::Url;

use super::load::{Load, text_of};
use super::{add, dice, told};
use crate::harness::daemon::{AT_ONCE, runtime};
use crate::harness::process::free_port;
use crate::harness::relay::Relay;
use crate::harness::{ColdStore, Engine, Tiers, block_on_elsewhere, note_skip};

const DAEMONS: usize = 3;
const WRITERS: usize = 6;
const READERS: usize = 2;

/// Everything moves at once, and a dead daemon's lease is soon free.
const SETTINGS: [(&str, &str); 7] = [
    ("LOGTIER_ARCHIVE__SCHEDULE", "* * * * * *"),
    ("LOGTIER_ARCHIVE__MAX_DELAY", "0s"),
    ("LOGTIER_ARCHIVE__PURGE_GRACE", "1s"),
    ("LOGTIER_ARCHIVE__LEASE_TTL", "3s"),
    ("LOGTIER_ARCHIVE__ABANDONED_AFTER", "5s"),
    ("LOGTIER_ARCHIVE__DOOMED_FOR", "5s"),
    ("LOGTIER_LOG__LEVEL", "warn"),
];

#[test]
fn what_was_acknowledged_survives_killed_daemons_and_cut_lines() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::S3) else { return };
    if tiers.s3_server().is_none() {
        return note_skip("the objects of an S3 server outside of this process");
    }
    runtime().block_on(torture(&tiers));
}

async fn torture(tiers: &Tiers) {
    let (long, may_kill_database) = told();
    let cluster = Cluster::start(tiers).await;
    let load = Arc::new(Load::new(cluster.nodes.iter().map(|node| node.url.clone()).collect()));
    let mut clients = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let load = Arc::clone(&load);
        clients.spawn(async move { load.write(writer).await });
    }
    for _ in 0..READERS {
        let load = Arc::clone(&load);
        clients.spawn(async move { load.read().await });
    }
    let mut cluster = cluster;
    let began = Instant::now();
    while began.elapsed() < long {
        cluster.misfortune(&load, may_kill_database).await;
        // A client that found a violation has panicked.
        while let Some(ended) = clients.try_join_next() {
            ended.expect("no violation");
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no violation");
    }
    cluster.settle(&load).await;
    let checked = cluster.check_all(&load, tiers).await;
    load.counts.print(&format!("real processes, {} s", began.elapsed().as_secs()));
    eprintln!("| logs read from every node and from the objects at the end | {checked} |");
    eprintln!("| violations | 0 |");
}

/// One daemon, whose address outlives it.
struct Node {
    port: u16,
    url: String,
    child: Option<Child>,
}

struct Cluster {
    nodes: Vec<Node>,
    env: Vec<(String, String)>,
    folder: PathBuf,
    to_database: Relay,
    to_store: Relay,
    server: Url,
}

impl Cluster {
    async fn start(tiers: &Tiers) -> Cluster {
        logtier::cold::install_crypto_provider();
        let mut env: HashMap<String, String> = tiers.env().into_iter().collect();
        let to_database = relay_in(&mut env, "LOGTIER_HOT__URL").await;
        let to_store = relay_in(&mut env, "LOGTIER_COLD__ENDPOINT").await;
        let settings = AT_ONCE.iter().chain(&SETTINGS).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        env.extend(settings);
        let server: Url = std::env::var("LOGTIER_TEST_MYSQL_URL").expect("there is one").parse().expect("a URL");
        let ports = (0..DAEMONS).map(|_| free_port());
        let nodes = ports.map(|port| Node { port, url: format!("http://127.0.0.1:{port}"), child: None }).collect();
        let (env, folder) = (env.into_iter().collect(), tiers.folder().to_owned());
        let mut cluster = Cluster { nodes, env, folder, to_database, to_store, server };
        for node in 0..DAEMONS {
            cluster.start_node(node);
        }
        cluster.all_ready().await;
        cluster
    }

    fn start_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let path = self.folder.join(format!("daemon-{}.log", node.port));
        let log = std::fs::File::options().create(true).append(true).open(path).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_logtier"));
        command.arg("serve").envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("LOGTIER_SERVER__LISTEN", format!("127.0.0.1:{}", node.port));
        command.env("LOGTIER_DATA_DIR", self.folder.join(format!("data-{}", node.port)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().expect("start logtier"));
    }

    /// Starts again whoever gave up at its start because the database was away, and waits for all.
    async fn all_ready(&mut self) {
        let client = reqwest::Client::new();
        let began = Instant::now();
        loop {
            self.restart_the_fallen();
            let mut ready = 0;
            for node in &self.nodes {
                let answer = client.get(format!("{}/readyz", node.url)).send().await;
                ready += usize::from(answer.is_ok_and(|answer| answer.status().is_success()));
            }
            if ready == DAEMONS {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "not all daemons come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn restart_the_fallen(&mut self) {
        for number in 0..DAEMONS {
            let ended =
                self.nodes[number].child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|s| s.is_some()));
            if ended {
                self.start_node(number);
            }
        }
    }

    /// One of the things that happen in production.
    async fn misfortune(&mut self, load: &Load, may_kill_database: bool) {
        let counts = &load.counts;
        let (fate, long) = (dice(0..100), Duration::from_millis(dice(50..1500)));
        match fate {
            0..70 => {
                let victim = dice(0..DAEMONS as u64) as usize;
                if let Some(mut child) = self.nodes[victim].child.take() {
                    let _ = (child.kill(), child.wait());
                    add(&counts.kills);
                }
            }
            70..80 => {
                self.to_database.cut();
                add(&counts.database_cuts);
                tokio::time::sleep(long).await;
                self.to_database.mend();
            }
            80..85 if may_kill_database => {
                kill_database(&self.server);
                add(&counts.database_kills);
            }
            80..93 => {
                self.to_store.cut();
                add(&counts.store_cuts);
                tokio::time::sleep(long).await;
                self.to_store.mend();
            }
            _ => {
                let relay = if fate % 2 == 0 { &self.to_database } else { &self.to_store };
                relay.slow_down(Duration::from_millis(40));
                add(&counts.slow);
                tokio::time::sleep(long).await;
                relay.slow_down(Duration::ZERO);
            }
        }
        tokio::time::sleep(Duration::from_millis(dice(50..500))).await;
        self.restart_the_fallen();
    }

    /// Everything works again, everything is finished, and the archiver has nothing left to do.
    async fn settle(&mut self, load: &Load) {
        self.all_ready().await;
        let logs = load.logs.lock().unwrap().clone();
        for log in logs.iter().filter(|log| !log.finished.load(Ordering::SeqCst)) {
            load.finish(log).await;
        }
        let began = Instant::now();
        let client = reqwest::Client::new();
        for log in &logs {
            let url = format!("{}/api/v1/apps/t/instances/{}", self.nodes[0].url, log.instance);
            loop {
                let answer = client.get(&url).send().await.expect("an answer");
                let shown: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
                if shown["tiers"]["hot"]["lines"] == 0 {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(300), "{} is not archived: {shown}", log.instance);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Every log from every node, and from the objects that the catalog names for it; answers how many.
    async fn check_all(&self, load: &Load, tiers: &Tiers) -> usize {
        let logs = load.logs.lock().unwrap().clone();
        let bucket = tiers.s3_server().expect("ours").bucket_folder();
        let prefix = self.env.iter().find(|(name, _)| name == "LOGTIER_COLD__URL").expect("a bucket").1.clone();
        let prefix = Url::parse(&prefix).expect("a URL").path().trim_matches('/').to_owned();
        let mut objects = HashMap::new();
        let client = reqwest::Client::new();
        for log in &logs {
            for node in &self.nodes {
                while !load.check(log, &node.url).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let url = format!("{}/api/v1/apps/t/instances/{}", self.nodes[0].url, log.instance);
            let answer = client.get(&url).send().await.expect("an answer").text().await.expect("a body");
            let shown: Value = serde_json::from_str(&answer).expect("JSON");
            let mut from_objects = String::new();
            for key in shown["tiers"]["cold"]["segments"].as_array().expect("objects") {
                let key = key.as_str().expect("a key").to_owned();
                let path = bucket.join(&prefix).join(&key);
                let object = objects.entry(key).or_insert_with(|| messages_of(&path));
                from_objects.extend(object.get(&log.instance).into_iter().flatten().map(|line| format!("{line}\n")));
            }
            let lines = log.lines.load(Ordering::SeqCst);
            assert!(from_objects == text_of(&log.instance, 0..lines), "{} differs in its objects", log.instance);
        }
        logs.len()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = (child.kill(), child.wait());
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = std::fs::read_to_string(self.folder.join(format!("daemon-{}.log", node.port)));
                let log = log.unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(30).collect();
                eprintln!("the last words of {}:\n{}", node.url, last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

/// Puts a relay in front of the server that a setting's URL names.
async fn relay_in(env: &mut HashMap<String, String>, setting: &str) -> Relay {
    let url = env.get_mut(setting).unwrap_or_else(|| panic!("no {setting}"));
    let mut parsed = Url::parse(url).expect("a URL");
    let target = format!("{}:{}", parsed.host_str().expect("a host"), parsed.port().unwrap_or(3306));
    let relay = Relay::start(target).await;
    parsed.set_host(Some("127.0.0.1")).expect("a host");
    parsed.set_port(Some(relay.address.port())).expect("a port");
    *url = parsed.to_string().trim_end_matches('/').to_owned();
    relay
}

/// As `zstdcat OBJECT | jq` shows them: the messages of each instance, in order.
fn messages_of(object: &Path) -> HashMap<String, Vec<String>> {
    let file = std::fs::File::open(object).unwrap_or_else(|error| panic!("{}: {error}", object.display()));
    let text = std::io::read_to_string(zstd::Decoder::new(file).expect("zstd")).expect("text");
    let mut messages: HashMap<String, Vec<String>> = HashMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| record[name].as_str().expect("a text").to_owned();
        messages.entry(text("instance")).or_default().push(text("message"));
    }
    messages
}

/// SIGKILL, and the same program again on the same data.
fn kill_database(server: &Url) {
    let pid_file: String = block_on_elsewhere(async {
        // It may be on its way up from the last time.
        let began = Instant::now();
        let mut connection = loop {
            match MySqlConnection::connect(server.as_str()).await {
                Ok(connection) => break connection,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "connect to MariaDB: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        sqlx::query_scalar("SELECT CAST(@@pid_file AS CHAR)").fetch_one(&mut connection).await.expect("its pid file")
    });
    let pid = std::fs::read_to_string(&pid_file).expect("a pid file").trim().to_owned();
    let words = |name: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{name}")).expect("a process");
        let words = text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    let (command, environment) = (words("cmdline"), words("environ"));
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).expect("a process");
    let number = nix::unistd::Pid::from_raw(pid.parse().expect("a number"));
    nix::sys::signal::kill(number, nix::sys::signal::Signal::SIGKILL).expect("kill MariaDB");
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut again = Command::new(&command[0]);
    again.args(&command[1..]).env_clear().current_dir(folder).stdin(Stdio::null());
    again.stdout(Stdio::null()).stderr(Stdio::null());
    again.envs(environment.iter().filter_map(|variable| variable.split_once('=')));
    let mut child = again.spawn().expect("start MariaDB again");
    // Where `scripts/mariadb.sh stop` looks for it.
    let ours = Path::new(&pid_file).with_file_name("pid");
    if ours.exists() {
        std::fs::write(ours, child.id().to_string()).expect("note its process");
    }
    std::thread::spawn(move || child.wait());
}
