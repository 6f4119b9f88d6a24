//! `logtier rebuild-catalog`: the bucket gives back what the database lost.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::output::{self, Out, number};
use super::{Exit, daemon, progress, verify};
use crate::app;
use crate::audit::{Audit, Finding, Progress, RebuildSettings, RebuildSummary, rebuild as run};
use crate::clock::Clock;
use crate::pairing;

const ABOUT: &str = "\
Lists the bucket, reads indexes and marks, and fills the database of --config, which may be empty or
restored from an older backup. Ids stay, nothing that was deleted or replaced comes back, holds stay,
nothing leaves the bucket. Stop all daemons first. It can be stopped and run again at any time; no
daemon starts before it has ended. What was in the hot tier alone is not in the bucket.

Exit code: 0 done, 2 not all could be brought back, which is told, or it did not end.";

#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct RebuildArgs {
    /// Change nothing; say what would be brought back
    #[arg(long)]
    dry_run: bool,
    /// How to print: lines, or a JSON object a line with the summary last
    #[arg(short, long, value_enum, default_value_t)]
    output: super::lists::Format,
}

pub(super) fn rebuild(config: Option<&Path>, args: RebuildArgs) -> anyhow::Result<Exit> {
    let config = daemon::load(config)?;
    let clock = Clock::default();
    let is_json = args.output == super::lists::Format::Json;
    daemon::runtime()?.block_on(async {
        // Of an SQLite file that no daemon may have open meanwhile.
        let _taken = if args.dry_run { Vec::new() } else { app::take_databases(&config)? };
        let (catalog, store) = match args.dry_run {
            true => app::open_if_there(&config, &clock).await?,
            false => app::open_and_migrate(&config, &clock).await?,
        };
        let cluster = catalog.cluster.clone();
        let cluster_id = pairing::adopt(&catalog, &store, args.dry_run).await?;
        if !args.dry_run {
            pairing::begin_rebuild(&catalog, &clock).await?;
        }
        let rules = Arc::new(config.retention.rules.clone());
        let settings = RebuildSettings { rules, cluster_id: cluster_id.clone(), dry_run: args.dry_run };
        let audit = Audit { catalog, store, clock: clock.clone() };
        let progress = Progress::default();
        let mut flawed = false;
        let tell = |finding: &Finding| {
            flawed = true;
            progress::clear_line();
            // Whoever reads them goes on reading, or has seen enough: both are well.
            let _ = verify::print(finding, is_json);
        };
        let summary = progress::watch(&clock, &progress, run(&audit, &settings, &progress, tell)).await;
        let summary = summary.context("the rebuild has not ended; run it again, it goes on where it was")?;
        if !args.dry_run {
            pairing::end_rebuild(&audit.catalog, &audit.store, &cluster_id).await?;
        }
        cluster.close().await;
        let mut out = Out::stdout();
        if is_json {
            out.line(&serde_json::json!({ "summary": summary }).to_string())?;
        } else {
            out.line(&in_words(&summary, args.dry_run))?;
        }
        out.flush()?;
        Ok(if flawed { Exit::Flawed } else { Exit::Done })
    })
}

fn in_words(summary: &RebuildSummary, dry_run: bool) -> String {
    let RebuildSummary { objects, parts, lines, parts_known, marks, deleted, held, .. } = *summary;
    let lines_of =
        |verb: &str| format!("{verb} {} with {}", output::count(parts, "part"), output::count(lines, "line"));
    let mut text = format!("{}: ", output::count(objects, "object"));
    text += &match dry_run {
        true => format!("{}, at most; {} known", lines_of("would bring back"), number(parts_known)),
        false => format!(
            "{} and {}; {} known",
            lines_of("brought back"),
            output::count(summary.attempts, "attempt"),
            number(parts_known)
        ),
    };
    text += &format!("\n{}: {} deleted, {} held", output::count(marks, "mark"), number(deleted), number(held));
    for (count, what) in [
        (summary.parts_superseded, "entries superseded by newer ones, or of attempts that are gone"),
        (summary.objects_replaced, "objects replaced by newer ones"),
        (summary.objects_unneeded, "objects not needed; `logtier verify` lists them as orphans"),
        (summary.attempts_cut, "attempts that begin behind line 0: trimmed by retention, or their object is lost"),
        (summary.objects_damaged, "objects damaged, left out"),
        (summary.conflicts, "entries that contradict others, left out"),
    ] {
        if count > 0 {
            text += &format!("\n{} {what}", number(count));
        }
    }
    text
}
