//! `logtier bench`: how fast is this machine's daemon, and how near to the limit of its parts?
//!
//! Every rate stands beside its limit, measured in the same round on the same bytes: the database
//! without the daemon, zstd without the archiver, a bare request of the store without the reader.
//! The ratio of the two says what the daemon costs, and means the same on a noisy machine.

mod baseline;
mod corpus;
mod figures;
mod follow;
mod load;
mod private;
mod process;
mod sql;
mod stages;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::corpus::{Corpus, Shape};
use self::figures::Figures;
use self::private::{APP_PREFIX, Private};
use super::client::Client;
use super::output::{self, Out};
use super::{Exit, Global};
use crate::clock::Clock;

/// Measure ingest, archive, reads and search
///
/// Starts a daemon of its own on embedded tiers in a temporary folder, or on the tiers of --config, which
/// must be empty: everything is archived at once, and stays there. With --running it loads the daemon at
/// --url instead: nothing is finished or archived, and there is nothing to compare with.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// What to measure; all of it where nothing is named. Later stages need the earlier ones' data
    stages: Vec<Stage>,
    /// NDJSON records to send, each with its `instance`; made up where no file is named
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Made up: so many instances
    #[arg(long, default_value_t = 400)]
    attempts: usize,
    /// Made up: so many lines of each
    #[arg(long, default_value_t = 500)]
    lines: usize,
    /// Clients that send side by side
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Lines of a request
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Each request holds lines of one instance, and all instances grow side by side
    #[arg(long)]
    interleave: bool,
    /// Followers of one log
    #[arg(long, default_value_t = 100)]
    followers: usize,
    /// The median of so many rounds is shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Load the daemon at --url
    #[arg(long)]
    running: bool,
    /// table or json
    #[arg(short, long, value_enum, default_value_t = Shown::Table)]
    output: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    Ingest,
    Archive,
    Read,
    Search,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    Table,
    Json,
}

/// What the stages work with.
struct Bench<'a> {
    client: &'a Client,
    private: Option<&'a Private>,
    corpus: &'a Corpus,
    shape: Shape,
    followers: usize,
    clock: &'a Clock,
    figures: Figures,
}

pub(super) async fn bench(global: &Global, args: BenchArgs) -> anyhow::Result<Exit> {
    let clock = Clock::default();
    let corpus = match &args.file {
        Some(file) => Corpus::read(file)?,
        None => Corpus::generate(args.attempts, args.lines)?,
    };
    let private = match args.running {
        true => None,
        false => Some(Private::start(global.config.as_deref(), &clock).await?),
    };
    let running = Client::new(&global.url, super::token(global)?, clock.clone())?;
    let shape = Shape { clients: args.clients.max(1), batch: args.batch.max(1), interleave: args.interleave };
    let mut bench = Bench {
        client: private.as_ref().map_or(&running, |private| &private.client),
        private: private.as_ref(),
        corpus: &corpus,
        shape,
        followers: args.followers,
        clock: &clock,
        figures: Figures::default(),
    };
    for round in 0..args.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, args.rounds.max(1));
        let app = format!("{APP_PREFIX}{}", clock.new_ulid().to_string().to_lowercase());
        bench.round(&app, &args.stages).await?;
    }
    let figures = bench.figures;
    if let Some(private) = private {
        private.stop().await.context("stop the daemon")?;
    }
    print(&corpus, &figures, args.output)?;
    Ok(Exit::Done)
}

impl Bench<'_> {
    async fn round(&mut self, app: &str, stages: &[Stage]) -> anyhow::Result<()> {
        let wanted = |stage| stages.is_empty() || stages.contains(&stage);
        self.ingest(app).await.context("ingest")?;
        if wanted(Stage::Read) {
            self.read_pages(app, "hot page").await.context("read hot pages")?;
            self.follow(app).await.context("follow")?;
        }
        if self.private.is_some() && (stages.is_empty() || stages.iter().any(|stage| *stage != Stage::Ingest)) {
            self.archive(app).await.context("archive")?;
            if wanted(Stage::Read) {
                self.read_cold(app).await.context("read cold logs")?;
            }
        }
        if wanted(Stage::Search) {
            self.search(app).await.context("search")?;
        }
        Ok(())
    }
}

fn print(corpus: &Corpus, figures: &Figures, output: Shown) -> anyhow::Result<()> {
    let mut out = Out::stdout();
    match output {
        Shown::Json => out.line(&figures.json().to_string())?,
        Shown::Table => {
            let (lines, bytes) = (output::count(corpus.lines, "line"), output::bytes(corpus.bytes));
            out.line(&format!("{lines}, {bytes} as NDJSON; median (least .. greatest) of the rounds"))?;
            for line in figures.table() {
                out.line(&line)?;
            }
        }
    }
    out.flush()
}
