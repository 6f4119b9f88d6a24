//! What is sent: the logs of many instances, from a file of records or made up.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// A word that only one record of a corpus holds.
pub(super) const RARE_TOKEN: &str = "q7zx0jw4vkneedle";

/// Logs in memory, as bodies of requests.
pub(super) struct Corpus {
    logs: Vec<Log>,
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// The log of one instance.
pub(super) struct Log {
    pub(super) instance: String,
    pub(super) lines: Vec<String>,
}

/// How the lines are cut into requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) clients: usize,
    /// Lines of a request.
    pub(super) batch: usize,
    /// All instances grow side by side, a request each in turn, instead of one after the other.
    pub(super) interleave: bool,
}

impl Corpus {
    /// Reads NDJSON records as `POST /records` takes them; each must name its instance.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (mut logs, mut places) = (Vec::<Log>::new(), HashMap::<String, usize>::new());
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("read {}", path.display()))?;
            let mut record: Map<String, Value> =
                serde_json::from_str(&line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
            let Some(instance) = record.get("instance").and_then(Value::as_str).map(str::to_owned) else {
                bail!("{}:{} names no instance", path.display(), number + 1);
            };
            // Each round has an app of its own.
            record.remove("app");
            let place = *places.entry(instance.clone()).or_insert_with(|| {
                logs.push(Log { instance, lines: Vec::new() });
                logs.len() - 1
            });
            logs[place].lines.push(Value::Object(record).to_string());
        }
        Self::of(logs)
    }

    /// Logs in the shape of a Java job's: the same every time.
    pub(super) fn generate(attempts: usize, lines: usize) -> anyhow::Result<Self> {
        let mut dice = Dice(0x5EED);
        let logs = (0..attempts).map(|number| made_up_log(&mut dice, number, lines)).collect();
        Self::of(logs)
    }

    fn of(mut logs: Vec<Log>) -> anyhow::Result<Self> {
        let middle = logs.len() / 2;
        let Some(log) = logs.get_mut(middle) else { bail!("there are no records to send") };
        let rare = json!({"instance": log.instance, "message": format!("reached checkpoint {RARE_TOKEN} at last")});
        log.lines.insert(log.lines.len() / 2, rare.to_string());
        let lines = logs.iter().map(|log| log.lines.len() as u64).sum();
        let bytes = logs.iter().flat_map(|log| &log.lines).map(|line| line.len() as u64 + 1).sum();
        Ok(Self { logs, bytes, lines })
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &str> {
        self.logs.iter().map(|log| log.instance.as_str())
    }

    pub(super) fn longest(&self) -> Option<&Log> {
        self.logs.iter().max_by_key(|log| log.lines.len())
    }

    /// The log whose length is nearest to `lines`.
    pub(super) fn nearest_to(&self, lines: usize) -> Option<&Log> {
        self.logs.iter().min_by_key(|log| log.lines.len().abs_diff(lines))
    }

    /// The requests of each client, in order. All lines of an instance go through one client.
    pub(super) fn bodies(&self, shape: Shape) -> Vec<Vec<Bytes>> {
        let clients = shape.clients.min(self.logs.len()).max(1);
        (0..clients).map(|client| self.bodies_of(client, clients, shape)).collect()
    }

    fn bodies_of(&self, client: usize, clients: usize, shape: Shape) -> Vec<Bytes> {
        let logs = || self.logs.iter().skip(client).step_by(clients);
        if !shape.interleave {
            let lines: Vec<&str> = logs().flat_map(|log| &log.lines).map(String::as_str).collect();
            return lines.chunks(shape.batch).map(body).collect();
        }
        let turns = logs().map(|log| log.lines.len().div_ceil(shape.batch)).max().unwrap_or(0);
        let in_turn = (0..turns).flat_map(|turn| logs().filter_map(move |log| log.lines.chunks(shape.batch).nth(turn)));
        in_turn.map(body).collect()
    }
}

fn body(lines: &[impl AsRef<str>]) -> Bytes {
    let mut body = Vec::new();
    for line in lines {
        body.extend_from_slice(line.as_ref().as_bytes());
        body.push(b'\n');
    }
    body.into()
}

/// SplitMix64 (Steele, Lea, Flood 2014): few lines, and the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// 2026-01-01T00:00:00Z.
const FIRST_MILLIS: u64 = 1_767_225_600_000;

fn made_up_log(dice: &mut Dice, number: usize, lines: usize) -> Log {
    // Like PowerJob's ids: 18 digits.
    let instance = format!("{}", 700_000_000_000_000_000u64 + number as u64 * 64);
    let job = format!("job-{:03}", number % 100);
    let mut now = FIRST_MILLIS + dice.below(86_400_000);
    let line = |_| {
        now += dice.below(300);
        let (level, message) = made_up_message(dice);
        let source = format!("worker-{:02}", number % 16);
        json!({"instance": instance, "job": job, "ts": now, "level": level, "source": source, "message": message})
            .to_string()
    };
    Log { lines: (0..lines).map(line).collect(), instance }
}

fn made_up_message(dice: &mut Dice) -> (&'static str, String) {
    let (id, ms) = (dice.below(1 << 40), dice.below(5_000));
    match dice.below(100) {
        0 => {
            let line = dice.below(900);
            let text = format!(
                "java.sql.SQLTimeoutException: order {id:x} after {ms} ms\n\tat com.example.orders.OrderDao.find(OrderDao.java:{line})\n\tat com.example.orders.OrderJob.process(OrderJob.java:{})",
                line / 3
            );
            ("ERROR", text)
        }
        1..=4 => {
            ("WARN", format!("[OrderService] retrying order {id:x}, attempt {} of 5, waiting {ms} ms", dice.below(5)))
        }
        5..=24 => (
            "DEBUG",
            format!(
                "[HttpClient] POST /inventory/{}/reserve -> 200 in {ms} ms, {} bytes",
                id % 10_000,
                dice.below(4_000)
            ),
        ),
        _ => (
            "INFO",
            format!(
                "[OrderJob] processed order {id:x} of customer {} in {ms} ms, {} items",
                id % 50_000,
                dice.below(30)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_one_body_and_in_order() {
        let corpus = Corpus::generate(7, 45).unwrap();
        for interleave in [false, true] {
            let bodies = corpus.bodies(Shape { clients: 3, batch: 20, interleave });
            assert_eq!(bodies.len(), 3);
            let sent: Vec<String> = bodies
                .iter()
                .flatten()
                .flat_map(|body| std::str::from_utf8(body).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            assert_eq!(sent.len() as u64, corpus.lines);
            for log in &corpus.logs {
                let of_log: Vec<&String> = sent.iter().filter(|line| line.contains(&log.instance)).collect();
                assert_eq!(of_log, log.lines.iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_batch_that_is_interleaved_is_of_one_instance() {
        let corpus = Corpus::generate(4, 30).unwrap();
        for body in corpus.bodies(Shape { clients: 2, batch: 10, interleave: true }).iter().flatten() {
            let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["instance"].clone();
            let mut lines = std::str::from_utf8(body).unwrap().lines();
            let first = of(lines.next().unwrap());
            assert!(lines.all(|line| of(line) == first));
        }
    }
}
