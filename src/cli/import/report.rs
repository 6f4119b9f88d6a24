//! What an import did, and what it left out and why.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cli::Exit;
use crate::cli::output::{bytes, count, number, span};

/// How many logs are named for each reason; the rest is counted.
const SHOWN_NAMES: usize = 3;

/// Why something that was found is not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skip {
    OtherBucket,
    NotALog,
    Compressed,
    Placeholder,
    OlderCopy,
    Later,
    Empty,
    Vanished,
    Gone,
    TooLarge,
}

impl Skip {
    fn why(self) -> &'static str {
        match self {
            Self::OtherBucket => "not in the log bucket (containers' jars), not touched",
            Self::NotALog => "the name is not that of a log",
            Self::Compressed => "compressed; unpack it beside its place and import again",
            Self::Placeholder => "a placeholder that says that there is no log",
            Self::OlderCopy => "an older copy of a log that is there again",
            Self::Later => "stored while the import ran; the next import takes it",
            Self::Empty => "empty",
            Self::Vanished => "deleted at the source while the import ran; the next import finds what replaced it",
            Self::Gone => "logtier's retention ended, or someone deleted it there",
            Self::TooLarge => "logtier has too many lines of it to compare; delete it there to import it anew",
        }
    }

    /// Whether the user has lost something by it.
    fn is_a_loss(self) -> bool {
        matches!(self, Self::TooLarge | Self::Compressed)
    }
}

/// What became of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// So many lines are new; so many more were there.
    Lines {
        new: u64,
        known: u64,
        other_outcome: bool,
    },
    AlreadyThere,
    /// By an earlier import, says the journal.
    Before,
    /// Were it not a dry run.
    Would,
    Skipped(Skip),
}

#[derive(Debug)]
pub(super) struct Report {
    started: Instant,
    imported: u64,
    completed: u64,
    already_there: u64,
    before: u64,
    would: u64,
    lines: u64,
    known_lines: u64,
    bytes: u64,
    other_outcome: Named,
    skipped: BTreeMap<Skip, Named>,
}

/// How many, and which the first were.
#[derive(Debug, Default)]
struct Named {
    number: u64,
    names: Vec<String>,
}

impl Named {
    fn add(&mut self, name: &str) {
        self.number += 1;
        if self.names.len() < SHOWN_NAMES {
            self.names.push(name.to_owned());
        }
    }

    fn line(&self, why: &str) -> String {
        let more = if self.number as usize > self.names.len() { ", …" } else { "" };
        format!("{:>10}  {why}: {}{more}", number(self.number), self.names.join(", "))
    }
}

impl Report {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            imported: 0,
            completed: 0,
            already_there: 0,
            before: 0,
            would: 0,
            lines: 0,
            known_lines: 0,
            bytes: 0,
            other_outcome: Named::default(),
            skipped: BTreeMap::new(),
        }
    }

    pub(super) fn skipped(&mut self, name: &str, why: Skip) {
        self.skipped.entry(why).or_default().add(name);
    }

    pub(super) fn brought(&mut self, name: &str, bytes: u64, brought: Brought) {
        match brought {
            Brought::Lines { new, known, other_outcome } => {
                let files = if known == 0 { &mut self.imported } else { &mut self.completed };
                *files += 1;
                self.lines += new;
                self.known_lines += known;
                self.bytes += bytes;
                if other_outcome {
                    self.other_outcome.add(name);
                }
            }
            Brought::AlreadyThere => self.already_there += 1,
            Brought::Before => self.before += 1,
            Brought::Would => {
                self.would += 1;
                self.bytes += bytes;
            }
            Brought::Skipped(why) => self.skipped(name, why),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.skipped.keys().any(|why| why.is_a_loss()) { Exit::Flawed } else { Exit::Done }
    }

    /// The whole report, a fact a line.
    pub(super) fn lines(&self, now: Instant) -> Vec<String> {
        let elapsed = now.duration_since(self.started);
        let mut lines = Vec::new();
        if self.would > 0 {
            lines.push(format!("would import {}, {}", count(self.would, "file"), bytes(self.bytes)));
        }
        if self.imported + self.completed > 0 || self.would == 0 {
            let seconds = elapsed.as_secs_f64().max(0.001);
            lines.push(format!(
                "imported {}, {}, {} in {} ({:.0} files/s, {}/s)",
                count(self.imported + self.completed, "file"),
                count(self.lines, "line"),
                bytes(self.bytes),
                span(elapsed),
                (self.imported + self.completed) as f64 / seconds,
                bytes((self.bytes as f64 / seconds) as u64),
            ));
        }
        let others = [
            (self.completed, format!("of them were there in part: {} kept", count(self.known_lines, "line"))),
            (self.already_there, "were there already, line by line".to_owned()),
            (self.before, "were imported before; --again looks at them again".to_owned()),
        ];
        lines.extend(others.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{:>10}  {what}", number(n))));
        if self.other_outcome.number > 0 {
            lines.push(self.other_outcome.line("are finished with another outcome in logtier, which stays"));
        }
        if !self.skipped.is_empty() {
            lines.push("skipped:".to_owned());
            lines.extend(self.skipped.iter().map(|(why, named)| named.line(why.why())));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_that_was_found_is_in_the_report() {
        let started = crate::clock::Clock::default().instant();
        let mut report = Report::new(started);
        report.brought("a", 1 << 20, Brought::Lines { new: 10, known: 0, other_outcome: false });
        report.brought("b", 1 << 20, Brought::Lines { new: 1, known: 9, other_outcome: true });
        report.brought("c", 5, Brought::AlreadyThere);
        report.brought("d", 5, Brought::Before);
        for name in ["e", "f", "g", "h"] {
            report.skipped(name, Skip::Placeholder);
        }
        assert_eq!(report.exit(), Exit::Done);
        report.brought("i", 5, Brought::Skipped(Skip::TooLarge));
        assert_eq!(report.exit(), Exit::Flawed);
        assert_eq!(
            report.lines(started + Duration::from_secs(2)),
            [
                "imported 2 files, 11 lines, 2.0 MiB in 2s (1 files/s, 1.0 MiB/s)",
                "         1  of them were there in part: 9 lines kept",
                "         1  were there already, line by line",
                "         1  were imported before; --again looks at them again",
                "         1  are finished with another outcome in logtier, which stays: b",
                "skipped:",
                "         4  a placeholder that says that there is no log: e, f, g, …",
                "         1  logtier has too many lines of it to compare; delete it there to import it anew: i",
            ]
        );
    }

    #[test]
    fn a_dry_run_says_what_it_would_do() {
        let started = crate::clock::Clock::default().instant();
        let mut report = Report::new(started);
        report.brought("a", 2048, Brought::Would);
        assert_eq!(report.lines(started), ["would import 1 file, 2.0 KiB"]);
    }
}
