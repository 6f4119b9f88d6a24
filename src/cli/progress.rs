//! How far long work is: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::client::shows_progress;
use super::output::{number, span};
use crate::audit::{Phase, Progress};
use crate::clock::Clock;

/// How often the line on a terminal changes.
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// How often a line is written elsewhere: few enough for a log of hours.
const ELSEWHERE: Duration = Duration::from_secs(30);

/// Runs `work` and shows its progress on stderr.
pub(super) async fn watch<T>(clock: &Clock, progress: &Progress, work: impl Future<Output = T>) -> T {
    let is_terminal = shows_progress();
    let pause = if is_terminal { ON_TERMINAL } else { ELSEWHERE };
    let mut shown = Shown { phase: progress.phase(), since: clock.instant() };
    futures::pin_mut!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                if is_terminal {
                    clear_line();
                }
                return done;
            }
            () = clock.sleep(pause) => {
                let text = shown.text(clock, progress);
                if is_terminal {
                    eprint!("\r\x1b[K{text}");
                    let _ = std::io::stderr().flush();
                } else {
                    eprintln!("{text}");
                }
            }
        }
    }
}

/// Takes the progress away, so that something else can be written.
pub(super) fn clear_line() {
    if shows_progress() {
        eprint!("\r\x1b[K");
    }
}

/// The phase that is shown, and since when.
struct Shown {
    phase: Phase,
    since: Instant,
}

impl Shown {
    fn text(&mut self, clock: &Clock, progress: &Progress) -> String {
        let phase = progress.phase();
        if phase != self.phase {
            (self.phase, self.since) = (phase, clock.instant());
        }
        let (done, items) = progress.so_far();
        line(phase, done, items, clock.instant() - self.since)
    }
}

/// `reading objects: 120 objects, 14%, 23/s, 5m 2s left`.
fn line(phase: Phase, done: u64, items: u64, since: Duration) -> String {
    let mut text = format!("{}: {} {}", phase.name, number(items), phase.unit);
    let share = if phase.total == 0 { 0.0 } else { (done as f64 / phase.total as f64).min(1.0) };
    if share > 0.0 {
        text += &format!(", {:.0}%", 100.0 * share);
    }
    let seconds = since.as_secs_f64();
    if items > 0 && seconds >= 0.1 {
        text += &format!(", {}/s", number((items as f64 / seconds).round() as u64));
    }
    if share > 0.0 {
        text += &format!(", {} left", span(Duration::from_secs_f64((seconds / share - seconds).max(0.0).ceil())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_told_where_they_are_known() {
        let phase = |total| Phase { name: "reading objects", unit: "objects", total };
        let ten = Duration::from_secs(10);
        assert_eq!(line(phase(1_000), 250, 1_200, ten), "reading objects: 1,200 objects, 25%, 120/s, 30s left");
        assert_eq!(line(phase(0), 0, 5_000, ten), "reading objects: 5,000 objects, 500/s");
        assert_eq!(line(phase(10), 0, 0, Duration::ZERO), "reading objects: 0 objects");
    }
}
