//! `logtier finish`: says that an instance is over.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::client::{ClientError, Patience};
use super::push::{About, FinishedAs, finish_call, show_warnings};
use super::{Exit, Session, args};

#[derive(Debug, Args)]
pub(super) struct FinishArgs {
    /// Which instance is over
    instance: String,
    /// How it ended
    #[arg(long, value_enum)]
    outcome: Option<FinishedAs>,
    /// Which attempt; 1 if not given
    #[arg(long, value_name = "N", value_parser = args::number)]
    attempt: Option<u64>,
    /// The job that the instance is a run of
    #[arg(long)]
    job: Option<String>,
    /// How many lines there must be; refused if there are not
    #[arg(long, value_name = "N", value_parser = args::number)]
    lines: Option<u64>,
    /// How long a daemon that does not answer is waited for
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = args::span)]
    retry_for: Duration,
}

pub(super) async fn finish(session: &mut Session, args: FinishArgs) -> anyhow::Result<Exit> {
    let about = About { job: args.job, attempt: args.attempt, labels: Vec::new() };
    let call = finish_call(&session.app, &args.instance, &about, args.outcome, args.lines);
    let answer: Result<Value, ClientError> =
        session.client.json_patiently(&call, &mut Patience::new(args.retry_for)).await;
    let name = format!("{}/{}", session.app, args.instance);
    show_warnings(&answer.with_context(|| format!("finish {name}"))?);
    match args.outcome {
        Some(outcome) => eprintln!("finished {name} as {}", outcome.as_str()),
        None => eprintln!("finished {name}"),
    }
    Ok(Exit::Done)
}
