//! Lines that could not be stored, and that nobody will send again: the log itself says that they are missing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attempts::attempt_at;
use super::{InstanceId, Line, LineLevel};
use crate::ingest::{Defaults, decode_bulk};
use crate::model::{App, AttemptKey, Millis};
use crate::protocol::Parts;

/// How often what waits is tried.
const TICK: Duration = Duration::from_secs(1);

/// Gaps of more instances than this are counted and not noted: 2 MB of memory.
const MAX_WAITING: usize = 10_000;

/// Who says it: no worker has such an address.
const SOURCE: &str = "logtier";

/// Lines of one instance that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    id: InstanceId,
    worker: String,
    lines: u64,
    first: Millis,
    last: Millis,
}

impl Gap {
    pub fn new(id: InstanceId, worker: &str, lines: u64, first: Millis, last: Millis) -> Self {
        Self { id, worker: worker.to_owned(), lines, first, last }
    }

    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        (self.first, self.last) = (self.first.min(other.first), self.last.max(other.last));
        if self.worker != other.worker {
            self.worker = "several workers".to_owned();
        }
    }

    /// The record that stands in the log for what is missing.
    fn json(&self) -> Vec<u8> {
        let Self { worker, lines, first, last, .. } = self;
        let words = format!(
            "{lines} lines of {worker}, written from {first} to {last}, are missing here: the database could not \
             store them in time, and PowerJob's workers send a line only once"
        );
        let line = Line {
            ts: last.timestamp(),
            level: Some(LineLevel::Warn),
            source: SOURCE,
            message: words.as_bytes(),
            partial: false,
        };
        let mut json = Vec::new();
        line.record().write_json(&mut json);
        json
    }
}

/// The gaps that wait for the database.
pub struct Gaps {
    parts: Parts,
    app: App,
    waiting: Mutex<HashMap<InstanceId, Gap>>,
}

impl Gaps {
    pub fn new(parts: Parts, app: App) -> Self {
        Self { parts, app, waiting: Mutex::default() }
    }

    pub fn note(&self, gap: Gap) {
        self.parts.metrics.powerjob_lost_lines.inc_by(gap.lines);
        let mut waiting = self.waiting();
        if waiting.len() < MAX_WAITING || waiting.contains_key(&gap.id) {
            waiting.entry(gap.id).and_modify(|known| known.add(&gap)).or_insert(gap);
        }
    }

    /// Writes what waits into the logs, until it is told to stop and once more then.
    pub async fn run(&self, stop: &CancellationToken) {
        // A gap that was tried keeps its key, so that a commit whose answer was lost is not repeated.
        let mut tried: Vec<(Gap, String)> = Vec::new();
        loop {
            let stopping = stop.is_cancelled();
            let new: Vec<Gap> = std::mem::take(&mut *self.waiting()).into_values().collect();
            tried.extend(new.into_iter().map(|gap| (gap, self.parts.clock.new_ulid().to_string())));
            let mut left = Vec::new();
            for (gap, key) in tried {
                if let Err(error) = self.write(&gap, &key).await {
                    tracing::debug!(instance = %gap.id, error, "a gap waits to be noted");
                    left.push((gap, key));
                }
            }
            tried = left;
            if stopping {
                break;
            }
            tokio::select! {
                () = self.parts.clock.sleep(TICK) => {}
                () = stop.cancelled() => {}
            }
        }
        for (gap, _) in tried {
            tracing::warn!(instance = %gap.id, lines = gap.lines, "lines are missing, and their log does not say so");
        }
    }

    async fn write(&self, gap: &Gap, key: &str) -> Result<(), String> {
        let instance = gap.id.instance();
        let (attempt, _) =
            attempt_at(&self.parts.reader, &self.app, &instance, gap.first).await.map_err(|error| error.to_string())?;
        let defaults = Defaults {
            key: Some(AttemptKey { app: self.app.clone(), instance, attempt }),
            batch_key: Some(key.to_owned()),
            max_record_bytes: self.parts.max_record_bytes,
            ..Defaults::default()
        };
        for batch in decode_bulk(&gap.json(), &defaults).batches {
            self.parts.ingest.append(batch).await.map_err(|error| error.to_string())?;
        }
        self.parts.metrics.powerjob_gaps.inc();
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<InstanceId, Gap>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_one_instance_become_one() {
        let id = InstanceId::new(7).expect("an id");
        let mut gap = Gap::new(id, "w:1", 20, Millis::new(5), Millis::new(9));
        gap.add(&Gap::new(id, "w:1", 3, Millis::new(1), Millis::new(2)));
        assert_eq!(gap, Gap::new(id, "w:1", 23, Millis::new(1), Millis::new(9)));
        gap.add(&Gap::new(id, "w:2", 1, Millis::new(1), Millis::new(2)));
        let json = String::from_utf8(gap.json()).expect("text");
        assert!(json.contains("24 lines of several workers, written from 1970-01-01T00:00:00.001Z"), "{json}");
        assert!(json.starts_with(r#"{"ts":"1970-01-01T00:00:00.009Z","level":"WARN","source":"logtier","#), "{json}");
    }
}
