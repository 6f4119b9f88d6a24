//! `logtier demo`: one log's life on a daemon of its own, in a folder that goes with it.
//!
//! Every step is a command that a person could type, run by the same code, so that what is shown is
//! what there is.

use anyhow::Context as _;
use clap::Parser as _;

use super::client::Client;
use super::output::{BOLD, RESET};
use super::{Cli, Exit, Out, Session, run_client};
use crate::app;
use crate::clock::Clock;
use crate::config::{Config, Env};

/// Of a nightly settlement, with a failure that its second batch gets over.
const LOG: &str = include_str!("../../demo/logs/powerjob/settlement-735920001.log");

const INSTANCE: &str = "735920001";

/// The demo's steps: why, and what is typed. `{log}` is the file.
const STEPS: [(&str, &str); 9] = [
    ("A job's output goes in; the answer comes after the commit.", "push {instance} {log} --job settlement --finish"),
    ("The end of it, as kubectl would.", "logs {instance} -n 3"),
    ("What went wrong, with a line around it.", "logs {instance} --grep ERROR|WARN -C 1"),
    ("What is known of the run: all of it is in the hot tier.", "show {instance}"),
    ("The archiver builds an object, reads it back, compares, publishes, and clears the hot tier.", "archive"),
    ("The same run, from the cold tier.", "show {instance}"),
    ("And the same lines.", "logs {instance} -n 3"),
    ("A search over all runs, in both tiers.", "grep ERROR --job settlement"),
    ("Deleted by name: no read finds it any more.", "rm {instance} --yes"),
];

/// Runs the steps one after the other.
pub(super) async fn demo() -> anyhow::Result<Exit> {
    let clock = Clock::default();
    let folder = std::env::temp_dir().join(format!("logtier-demo-{}", clock.new_ulid()));
    let shown = run(&folder, clock).await;
    let removed = std::fs::remove_dir_all(&folder);
    let exit = shown?;
    removed.with_context(|| format!("remove {}", folder.display()))?;
    Ok(exit)
}

async fn run(folder: &std::path::Path, clock: Clock) -> anyhow::Result<Exit> {
    let data = folder.join("data");
    let settings = [
        ("LOGTIER_DATA_DIR", data.to_string_lossy().into_owned()),
        ("LOGTIER_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        // Finished is due at once, and the hot copy goes as soon as the cold one is published.
        ("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s".to_owned()),
        ("LOGTIER_ARCHIVE__PURGE_GRACE", "0s".to_owned()),
    ];
    let env: Env = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = Config::load(None, &env)?;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let log = folder.join("settlement.log");
    std::fs::write(&log, LOG).context("write the demo's log")?;
    let app = app::start(&config, clock.clone()).await?;
    let client = Client::new(&format!("http://{}", app.address), None, clock.clone())?;
    let mut session = Session { client, app: "default".to_owned(), clock, out: Out::stdout() };
    let mut ended = Ok(Exit::Done);
    for (why, line) in STEPS {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| word.replace("{instance}", INSTANCE).replace("{log}", &log.to_string_lossy()))
            .collect();
        ended = step(&mut session, why, &words).await;
        if !matches!(ended, Ok(Exit::Done)) {
            break;
        }
    }
    app.shut_down().await;
    let exit = ended?;
    session.out.line("\nThat was all. `logtier serve` starts a daemon that stays; README.md goes on from here.")?;
    session.out.flush()?;
    Ok(exit)
}

async fn step(session: &mut Session, why: &str, words: &[String]) -> anyhow::Result<Exit> {
    let (bold, plain) = if session.out.terminal { (BOLD, RESET) } else { ("", "") };
    session.out.line(&format!("\n{bold}{why}{plain}\n$ logtier {}", words.join(" ")))?;
    session.out.flush()?;
    let command = Cli::try_parse_from(std::iter::once("logtier").chain(words.iter().map(String::as_str)))?.command;
    let exit = run_client(session, command).await?;
    session.out.flush()?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_step_works() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(run(folder.path(), Clock::default()).await.expect("shown"), Exit::Done);
    }
}
