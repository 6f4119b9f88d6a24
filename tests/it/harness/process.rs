//! A daemon as a process of its own, which can really be killed.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Tiers;
use super::daemon::AT_ONCE;

/// A process of `logtier serve`. Killed with this value, if it still runs.
pub struct Process {
    child: Child,
    pub url: String,
    log: PathBuf,
    client: reqwest::Client,
}

/// How long anything may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

impl Process {
    /// Starts a daemon on these tiers and waits until it is ready.
    pub async fn start(tiers: &Tiers, settings: &[(&str, &str)]) -> Process {
        logtier::cold::install_crypto_provider();
        let port = free_port();
        let log = tiers.folder().join(format!("daemon-{port}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_logtier"));
        command.arg("serve").env("LOGTIER_SERVER__LISTEN", format!("127.0.0.1:{port}"));
        command.envs(tiers.env()).envs(AT_ONCE).envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("a log file"));
        let child = command.spawn().expect("start logtier");
        let url = format!("http://127.0.0.1:{port}");
        let mut process = Process { child, url, log, client: reqwest::Client::new() };
        process.wait_until_ready().await;
        process
    }

    async fn wait_until_ready(&mut self) {
        let began = Instant::now();
        loop {
            let ready = self.client.get(format!("{}/readyz", self.url)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let ended = self.child.try_wait().expect("ask for the process");
            assert!(ended.is_none(), "the daemon ended: {}", self.words());
            assert!(began.elapsed() < PATIENCE, "the daemon is not ready: {}", self.words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the daemon said on stderr.
    pub fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the daemon has said this.
    pub async fn wait_for_words(&self, words: &str) {
        let began = Instant::now();
        while !self.words().contains(words) {
            assert!(began.elapsed() < PATIENCE, "the daemon did not say \"{words}\": {}", self.words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("kill the daemon");
        self.child.wait().expect("the daemon is gone");
    }

    /// SIGTERM; it must end by itself and without an error.
    pub fn terminate(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the daemon");
        let status = self.child.wait().expect("the daemon is gone");
        assert!(status.success(), "{status}: {}", self.words());
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        self.probe(&format!("/api/v1{path}")).await
    }

    /// What stands outside of the API.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }

    pub async fn post(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = self.client.post(format!("{}/api/v1{path}", self.url)).header("content-type", content_type);
        let answer = request.body(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }

    pub async fn delete(&self, path: &str) -> (u16, String) {
        let answer = self.client.delete(format!("{}/api/v1{path}", self.url)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }

    /// Archives everything due and waits for the report.
    pub async fn archive(&self) -> Value {
        let (status, report) = self.post("/archive?wait=60", "application/json", "").await;
        assert_eq!(status, 200, "{report}");
        serde_json::from_str(&report).expect("JSON")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon said: {}", self.words());
        }
    }
}

/// Free now; whoever takes it first has it.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
