//! How far an import is, on stderr: redrawn on a terminal, a plain line now and then elsewhere.

use std::time::{Duration, Instant};

use crate::cli::client::shows_progress;
use crate::cli::output::{bytes, count, number, span};
use crate::clock::Clock;

/// Between two drawings on a terminal, and between two lines elsewhere.
const DRAW_EVERY: Duration = Duration::from_millis(250);
const SAY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Progress {
    clock: Clock,
    terminal: bool,
    started: Instant,
    shown: Instant,
    drawn: bool,
    /// How many logs there are, if that is known.
    total: Option<u64>,
    logs: u64,
    bytes: u64,
}

impl Progress {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.instant();
        let (terminal, total) = (shows_progress(), None);
        Self { clock, terminal, started: now, shown: now, drawn: false, total, logs: 0, bytes: 0 }
    }

    pub(super) fn expect(&mut self, total: u64) {
        self.total = Some(total);
    }

    pub(super) fn log_done(&mut self) {
        self.logs += 1;
        self.show();
    }

    pub(super) fn read(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.show();
    }

    fn show(&mut self) {
        let now = self.clock.instant();
        if now.duration_since(self.shown) < if self.terminal { DRAW_EVERY } else { SAY_EVERY } {
            return;
        }
        self.shown = now;
        let line = self.line(now);
        if self.terminal {
            self.drawn = true;
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    fn line(&self, now: Instant) -> String {
        let elapsed = now.duration_since(self.started);
        let logs = match self.total {
            Some(total) => format!("{} of {}", number(self.logs), count(total, "file")),
            None => count(self.logs, "file"),
        };
        let rate = (self.bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        format!("{logs}, {} read, {}/s, {}", bytes(self.bytes), bytes(rate), span(elapsed))
    }

    /// Leaves a clean line for what is said next.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}
