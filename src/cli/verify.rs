//! `logtier verify`: is everything there that the catalog says.

use std::path::Path;

use clap::Args;

use super::args::{self, Moment};
use super::output::{self, Out, number};
use super::{Exit, daemon, progress};
use crate::app;
use crate::audit::{Audit, Finding, FindingKind, Progress, Scope, VerifySettings, VerifySummary, verify as run};
use crate::clock::Clock;
use crate::model::Millis;

/// What each kind adds to the exit code. 1 and 2 mean what they mean everywhere.
const CODES: [(FindingKind, u8); 4] =
    [(FindingKind::Missing, 4), (FindingKind::Damaged, 8), (FindingKind::Lines, 16), (FindingKind::Orphan, 32)];

const EXIT_CODES: &str = "\
Exit code, the sum of what was found:
   0  everything is in order
   4  missing: an object that attempts need is not in the bucket
   8  damaged: an object, chunk or mark does not hold what was written
  16  lines: the lines of an attempt have a gap or an overlap
  32  orphan: an object that the catalog does not know; nothing is lost
   2  alone: not all could be looked at, nothing is known of the rest

Works on the tiers of --config itself, beside running daemons, and changes nothing.
What looks wrong is looked at again before it is told.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct VerifyArgs {
    /// Read and hash every object, chunk and mark, instead of comparing names and lengths
    #[arg(long)]
    full: bool,
    /// Read and hash this share of the objects, chosen by chance, such as 1%
    #[arg(long, value_name = "PERCENT", value_parser = share, conflicts_with = "full")]
    sample: Option<f64>,
    /// Only objects of finish days and attempts made since then, such as 30d or 2026-11-01
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    since: Option<Moment>,
    /// How to print: a line a finding, or a JSON object a line with the summary last
    #[arg(short, long, value_enum, default_value_t)]
    output: super::lists::Format,
}

fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("\"{text}\" is no share, expected one such as 1% or 0.1%");
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).trim().parse().map_err(|_| wrong())?;
    if percent > 0.0 && percent <= 100.0 { Ok(percent / 100.0) } else { Err(wrong()) }
}

pub(super) fn verify(config: Option<&Path>, app: Option<&str>, args: VerifyArgs) -> anyhow::Result<Exit> {
    let config = daemon::load(config)?;
    let clock = Clock::default();
    let scope = Scope {
        app: app.map(str::parse).transpose()?,
        since: args.since.map(|since| Millis::new(since.resolve(clock.now()).nanos() / 1_000_000)),
    };
    let read_share = if args.full { 1.0 } else { args.sample.unwrap_or(0.0) };
    let settings = VerifySettings { scope, read_share };
    let is_json = args.output == super::lists::Format::Json;
    daemon::runtime()?.block_on(async {
        let (catalog, store) = app::open_as_is(&config, &clock).await?;
        let cluster = catalog.cluster.clone();
        if !is_json {
            let hot: Vec<String> = config.hot.servers.iter().map(|server| server.url.to_string()).collect();
            eprintln!("comparing {} with {}", hot.join(", "), config.cold.url);
        }
        let audit = Audit { catalog, store, clock: clock.clone() };
        let progress = Progress::default();
        let tell = |finding: &Finding| {
            progress::clear_line();
            // Whoever reads them goes on reading, or has seen enough: both are well.
            let _ = print(finding, is_json);
        };
        let summary = progress::watch(&clock, &progress, run(&audit, &settings, &progress, tell)).await;
        cluster.close().await;
        let summary = summary?;
        if is_json {
            let mut out = Out::stdout();
            out.line(&serde_json::json!({ "summary": summary }).to_string())?;
            out.flush()?;
        } else {
            eprintln!("{}", in_words(&summary));
        }
        Ok(exit(&summary))
    })
}

pub(super) fn print(finding: &Finding, is_json: bool) -> anyhow::Result<()> {
    let mut out = Out::stdout();
    if is_json {
        out.line(&serde_json::json!({ "finding": finding }).to_string())?;
    } else {
        out.line(&line(finding))?;
    }
    out.flush()
}

fn line(finding: &Finding) -> String {
    let mut text = format!("{}  {}: {}", finding.kind.as_str(), finding.name, finding.what);
    if finding.attempts.first().is_some_and(|name| *name != finding.name) {
        let more = if finding.hit > finding.attempts.len() as u64 { ", …" } else { "" };
        let hit = output::count(finding.hit, "attempt");
        text += &format!("; it holds lines of {hit}: {}{more}", finding.attempts.join(", "));
    }
    text
}

fn in_words(summary: &VerifySummary) -> String {
    let mut text = format!(
        "looked at {}, {} of them read ({}), {} and {}: ",
        output::count(summary.objects, "object"),
        number(summary.objects_read),
        output::bytes(summary.bytes_read),
        output::count(summary.attempts, "attempt"),
        output::count(summary.marks, "mark"),
    );
    if summary.findings.is_empty() {
        return text + "everything is in order";
    }
    let found: Vec<String> =
        summary.findings.iter().map(|(kind, found)| format!("{} {kind}", number(*found))).collect();
    text += &found.join(", ");
    text
}

fn exit(summary: &VerifySummary) -> Exit {
    Exit::Code(CODES.iter().filter(|(kind, _)| summary.has(*kind)).map(|(_, code)| code).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        assert_eq!([share("1%"), share("0.1 %"), share("100")], [Ok(0.01), Ok(0.001), Ok(1.0)]);
        assert!(["0%", "101%", "-1%", "x", "NaN"].iter().all(|bad| share(bad).is_err()));
    }

    #[test]
    fn the_exit_code_says_what_was_found() {
        let with = |kinds: &[FindingKind]| {
            let findings = kinds.iter().map(|kind| (kind.as_str(), 1)).collect();
            exit(&VerifySummary { findings, ..VerifySummary::default() })
        };
        assert_eq!(with(&[]), Exit::Code(0));
        assert_eq!(with(&[FindingKind::Missing, FindingKind::Lines]), Exit::Code(20));
        assert_eq!(with(&FindingKind::ALL), Exit::Code(60));
    }
}
