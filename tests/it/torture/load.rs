//! Clients that write numbered lines until they are acknowledged, and clients that read them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Counts, add, dice};

/// One instance: its lines are `{instance} {number}`.
pub struct Log {
    pub instance: String,
    /// Lines that were acknowledged.
    pub lines: AtomicU64,
    pub finished: AtomicBool,
}

/// All clients of one run.
pub struct Load {
    client: reqwest::Client,
    /// Addresses of the daemons, up or down.
    urls: Vec<String>,
    pub logs: Mutex<Vec<Arc<Log>>>,
    pub counts: Counts,
    /// No new instances from now on.
    pub stop: AtomicBool,
}

impl Load {
    pub fn new(urls: Vec<String>) -> Load {
        // A daemon that was killed keeps nobody waiting; a database that is away answers within 5 s.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let (logs, counts, stop) = (Mutex::default(), Counts::default(), AtomicBool::new(false));
        Load { client, urls, logs, counts, stop }
    }

    fn any_url(&self) -> &str {
        &self.urls[dice(0..self.urls.len() as u64) as usize]
    }

    /// Writes instance after instance until it is told to stop.
    pub async fn write(&self, writer: usize) {
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let instance = format!("w{writer}-{number}");
            let log = Arc::new(Log { instance, lines: AtomicU64::new(0), finished: AtomicBool::new(false) });
            self.logs.lock().unwrap().push(Arc::clone(&log));
            let batches = dice(1..12);
            for batch in 0..batches {
                self.append(&log, batch).await;
            }
            // Some stay open.
            if dice(0..10) > 0 {
                self.finish(&log).await;
            }
        }
    }

    async fn append(&self, log: &Log, batch: u64) {
        let first = log.lines.load(Ordering::SeqCst);
        let count = if dice(0..20) == 0 { 2000 } else { dice(1..60) };
        let body = text_of(&log.instance, first..first + count);
        let path = format!("/api/v1/apps/t/instances/{}/records?job=torture", log.instance);
        let key = format!("{}-{batch}", log.instance);
        let answer = self.until_done(&path, Some(&key), "text/plain", body).await;
        let next_line = answer["next_line"].as_u64();
        assert_eq!(next_line, Some(first + count), "{}: {answer}", log.instance);
        log.lines.store(first + count, Ordering::SeqCst);
        add(&self.counts.batches);
        self.counts.lines.fetch_add(count, Ordering::Relaxed);
    }

    pub async fn finish(&self, log: &Log) {
        let path = format!("/api/v1/apps/t/instances/{}/finish", log.instance);
        self.until_done(&path, None, "application/json", "{\"outcome\":\"succeeded\"}".to_owned()).await;
        log.finished.store(true, Ordering::SeqCst);
    }

    /// Sends it to one daemon after the other until one says 200. Anything but that and "not now" is a violation.
    async fn until_done(&self, path: &str, key: Option<&str>, kind: &str, body: String) -> serde_json::Value {
        loop {
            let url = format!("{}{path}", self.any_url());
            let request = self.client.post(url).header("content-type", kind).body(body.clone());
            let request = if let Some(key) = key { request.header("idempotency-key", key) } else { request };
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                match (status, answer.text().await) {
                    (200, Ok(text)) => return serde_json::from_str(&text).expect("JSON"),
                    (200 | 503, _) => {}
                    (status, text) => panic!("{path}: {status} {text:?}"),
                }
            }
            add(&self.counts.retries);
            tokio::time::sleep(Duration::from_millis(dice(10..100))).await;
        }
    }

    /// Reads logs that are written, moved and purged meanwhile, until it is told to stop.
    pub async fn read(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let log = {
                let logs = self.logs.lock().unwrap();
                (!logs.is_empty()).then(|| Arc::clone(&logs[dice(0..logs.len() as u64) as usize]))
            };
            if let Some(log) = log.filter(|log| log.lines.load(Ordering::SeqCst) > 0) {
                self.check(&log, self.any_url()).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads a whole log. What comes whole must hold all that was acknowledged before, in order, and once.
    pub async fn check(&self, log: &Log, url: &str) -> bool {
        let acknowledged = log.lines.load(Ordering::SeqCst);
        let url = format!("{url}/api/v1/apps/t/instances/{}/download?format=raw", log.instance);
        let Ok(answer) = self.client.get(url).send().await else {
            add(&self.counts.unavailable);
            return false;
        };
        let status = answer.status().as_u16();
        let Ok(text) = answer.text().await else {
            // Broken off, which is not an end.
            add(&self.counts.unavailable);
            return false;
        };
        if status == 503 {
            add(&self.counts.unavailable);
            return false;
        }
        assert_eq!(status, 200, "{}: {text}", log.instance);
        let found = text.lines().count() as u64;
        assert!(found >= acknowledged, "{}: {found} lines of {acknowledged}", log.instance);
        assert!(text == text_of(&log.instance, 0..found), "{}: {found} lines, and other ones", log.instance);
        add(&self.counts.reads);
        true
    }
}

pub fn text_of(instance: &str, lines: std::ops::Range<u64>) -> String {
    lines.map(|number| format!("{instance} {number}\n")).collect()
}
