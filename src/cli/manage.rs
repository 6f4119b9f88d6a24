//! `logtier rm`, `hold`, `archive` and `status`: what operators do.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::args;
use super::client::{Call, ClientError, without_password};
use super::lists::Format;
use super::logs::{Selection, unreadable};
use super::{Exit, Session, output, render};

/// How often a run that takes longer than one call is asked after.
const RUN_POLL: Duration = Duration::from_secs(2);
/// On top of what the daemon was told to wait.
const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// Many proxies cut a call after a minute.
const LONGEST_WAIT_CALL: Duration = Duration::from_secs(50);

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Whose log to delete, all its attempts
    instance: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Delete nothing; say what would go
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Which instance
    instance: String,
    /// Which attempt; the newest if not given
    #[arg(long, value_name = "N")]
    attempt: Option<u64>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct HoldArgs {
    /// Whose log to keep
    instance: String,
    /// Let it go again
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Args)]
pub(super) struct ArchiveArgs {
    /// Move nothing; say what would move, and why
    #[arg(long)]
    dry_run: bool,
    /// Also try again what was set aside after failures, see `logtier status`
    #[arg(long, conflicts_with = "dry_run")]
    retry: bool,
    /// How long to wait for the run's end; 0 starts it and returns
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = args::span)]
    wait: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn rm(session: &mut Session, args: RmArgs) -> anyhow::Result<Exit> {
    let name = format!("{}/{}", session.app, args.instance);
    if args.dry_run {
        let call = Call::on_instance(Method::DELETE, &session.app, &args.instance, "").query("dry_run", true);
        let report: Result<Value, ClientError> = session.client.json(&call).await;
        let report = report.map_err(|error| about(error, session, &args.instance))?;
        print(session, &report, Format::Table)?;
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(&name)? {
        eprintln!("logtier: nothing was deleted");
        return Ok(Exit::Nothing);
    }
    let answer = session.client.send(&Call::on_instance(Method::DELETE, &session.app, &args.instance, "")).await;
    answer.map_err(|error| about(error, session, &args.instance)).with_context(|| format!("delete {name}"))?;
    eprintln!("deleted {name}: no read finds it any more, and the next compaction removes its bytes");
    Ok(Exit::Done)
}

fn confirmed(name: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("deleting {name} cannot be undone; say --yes where nobody can be asked");
    }
    eprint!("Delete the log of {name} for good? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(super) async fn hold(session: &mut Session, args: HoldArgs) -> anyhow::Result<Exit> {
    let name = format!("{}/{}", session.app, args.instance);
    let method = if args.release { Method::DELETE } else { Method::PUT };
    let answer = session.client.send(&Call::on_instance(method, &session.app, &args.instance, "/hold")).await;
    answer.map_err(|error| about(error, session, &args.instance)).with_context(|| format!("hold {name}"))?;
    match args.release {
        true => eprintln!("released {name}: its retention rule counts again"),
        false => eprintln!("holding {name}: it neither expires nor can be deleted until `logtier hold --release`"),
    }
    Ok(Exit::Done)
}

pub(super) async fn pause_purge(session: &mut Session, reason: Option<&str>) -> anyhow::Result<Exit> {
    let method = if reason.is_some() { Method::PUT } else { Method::DELETE };
    session.client.send(&Call::new(method, "/purge/pause").query_opt("reason", reason)).await?;
    match reason {
        Some(_) => eprintln!("paused: no daemon deletes rows or lets anything expire until `logtier purge resume`"),
        None => eprintln!("resumed: the archiver's next run goes on"),
    }
    Ok(Exit::Done)
}

fn about(error: ClientError, session: &Session, instance: &str) -> anyhow::Error {
    if matches!(&error, ClientError::Problem(problem) if problem.status == 503) {
        // Nothing was to be read.
        return error.into();
    }
    let (app, instance) = (session.app.clone(), instance.to_owned());
    unreadable(error.into(), &Selection { app, instance, attempt: None, filters: Vec::new() })
}

pub(super) async fn explain(session: &mut Session, args: ExplainArgs) -> anyhow::Result<Exit> {
    let (app, instance) = (session.app.clone(), args.instance);
    let selection = Selection { app, instance, attempt: args.attempt, filters: Vec::new() };
    let explained: Result<Value, ClientError> = session.client.json(&selection.call("/retention")).await;
    let explained = explained.map_err(|error| unreadable(error.into(), &selection))?;
    print(session, &explained, args.output)?;
    Ok(Exit::Done)
}

pub(super) async fn archive(session: &mut Session, args: ArchiveArgs) -> anyhow::Result<Exit> {
    let started = session.clock.instant();
    let first_wait = args.wait.min(LONGEST_WAIT_CALL);
    let mut call = Call::new(Method::POST, "/archive").timeout(Some(first_wait + ANSWER_GRACE));
    if args.dry_run {
        call = call.query("dry_run", true);
    }
    if args.retry {
        call = call.query("retry", true);
    }
    if args.dry_run {
        // Its answer is all there is to wait for.
    } else if !args.wait.is_zero() {
        call = call.query("wait", first_wait.as_secs().max(1));
    }
    let answer = session.client.send(&call).await?;
    let runs_on = answer.status() == StatusCode::ACCEPTED;
    let mut report: Value = session.client.decode(answer).await?;
    if let Some(run) = report.get("run_id").filter(|_| runs_on).map(|id| render::cell("", id)) {
        loop {
            let left = args.wait.saturating_sub(session.clock.instant().duration_since(started));
            if left.is_zero() {
                return still_running(session, &report, &run, &args);
            }
            session.clock.sleep(RUN_POLL.min(left)).await;
            report = session.client.json(&Call::new(Method::GET, &format!("/runs/{run}"))).await?;
            if is_over(&report) {
                break;
            }
        }
    }
    match args.output {
        Format::Json => print(session, &report, args.output)?,
        Format::Table => {
            print(session, &what_happened(&report), args.output)?;
            if is_nothing(&report) {
                eprintln!("logtier: nothing is due; {}", next_due(&report));
            }
        }
    }
    let failed = ["outcome", "state"].iter().any(|name| report.get(name).and_then(Value::as_str) == Some("failed"));
    Ok(if failed { Exit::Flawed } else { Exit::Done })
}

fn still_running(session: &mut Session, report: &Value, run: &str, args: &ArchiveArgs) -> anyhow::Result<Exit> {
    if args.output == Format::Json {
        session.out.line(&report.to_string())?;
    }
    eprintln!("logtier: run {run} goes on at the daemon; `logtier status` shows its end");
    // Not waiting was asked for; not ending in time is news.
    Ok(if args.wait.is_zero() { Exit::Done } else { Exit::Nothing })
}

/// What a run counts when it does something.
const DEEDS: [&str; 8] =
    ["attempts", "objects", "inferred", "purged", "expired", "forgotten", "objects_deleted", "rewritten"];

/// A report without the counts and lists of what did not happen.
fn what_happened(report: &Value) -> Value {
    const ALWAYS: [&str; 3] = ["attempts", "lines", "objects"];
    let Some(members) = report.as_object() else { return report.clone() };
    let is_none = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let told = members.iter().filter(|(name, value)| ALWAYS.contains(&name.as_str()) || !is_none(value));
    Value::Object(told.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn is_nothing(report: &Value) -> bool {
    let count = |name: &&str| report.get(name).and_then(Value::as_u64);
    let failed = report.get("failures").and_then(Value::as_array).is_some_and(|failures| !failures.is_empty());
    let held_up = report.get("purge_stopped").is_some_and(Value::is_string);
    !failed && !held_up && count(&DEEDS[0]).is_some() && DEEDS.iter().all(|name| count(name).unwrap_or(0) == 0)
}

fn next_due(report: &Value) -> String {
    match report.get("next_due_at").and_then(Value::as_str) {
        Some(at) => format!("the next will be at {}", output::local_time(at)),
        None => "and nothing will be".to_owned(),
    }
}

/// Whether a report is that of a run that has ended.
fn is_over(report: &Value) -> bool {
    match report.get("finished_at") {
        Some(at) => !at.is_null(),
        None => report.get("state").and_then(Value::as_str) != Some("running"),
    }
}

pub(super) async fn status(session: &mut Session, args: StatusArgs) -> anyhow::Result<Exit> {
    let status: Value = session.client.json(&Call::new(Method::GET, "/status")).await?;
    if args.output == Format::Table && session.out.terminal {
        session.out.line(&format!("{}{}{}\n", output::BOLD, without_password(session.client.url()), output::RESET))?;
    }
    match args.output {
        Format::Json => print(session, &status, args.output)?,
        Format::Table => print(session, &without_empty_shards(status), args.output)?,
    }
    Ok(Exit::Done)
}

/// Only the shards that hold something; how many do not is told in a line.
fn without_empty_shards(mut status: Value) -> Value {
    let servers = status.pointer_mut("/hot/servers").and_then(Value::as_array_mut);
    for server in servers.into_iter().flatten().filter_map(Value::as_object_mut) {
        let Some(shards) = server.get_mut("shards").and_then(Value::as_array_mut) else { continue };
        let all = shards.len();
        let is_empty = |shard: &Value, name: &str| shard.get(name).and_then(Value::as_u64) == Some(0);
        shards.retain(|shard| !(is_empty(shard, "chunks") && is_empty(shard, "due_attempts")));
        let empty = all - shards.len();
        if empty > 0 {
            server.insert("empty_shards".to_owned(), empty.into());
        }
    }
    status
}

fn print(session: &mut Session, value: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => session.out.line(&value.to_string()),
        Format::Table => session.out.write(render::document(value).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Server};
    use super::*;

    #[tokio::test]
    async fn a_run_is_waited_for() {
        let server = Server::start([
            Answer::json(202, &serde_json::json!({"run_id": "01X"})),
            Answer::json(
                200,
                &serde_json::json!({"run_id": "01X", "finished_at": "2026-11-22T10:00:00.000Z", "attempts": 3}),
            ),
        ])
        .await;
        let (exit, stdout) = server.run("archive --wait 1m").await;
        assert_eq!(exit.expect("ran"), Exit::Done);
        assert!(stdout.contains("attempts  3"), "{stdout}");
        let seen = server.seen();
        assert_eq!(seen[0].target, "/api/v1/archive?wait=50");
        assert_eq!(seen[1].target, "/api/v1/runs/01X");
        let server = Server::start([Answer::json(200, &serde_json::json!({"due": []}))]).await;
        assert_eq!(server.run("archive --dry-run -o json").await.1, "{\"due\":[]}\n");
        assert_eq!(server.seen()[0].target, "/api/v1/archive?dry_run=true");
    }

    #[tokio::test]
    async fn a_run_without_work_says_when_there_will_be_some() {
        let report = serde_json::json!({"run_id": "1", "state": "done", "finished_at": "2026-11-22T10:00:00.000Z",
            "attempts": 0, "lines": 0, "objects": 0, "purged": 0, "moves": [], "next_due_at": "2026-11-23T10:00:00.000Z"});
        let server = Server::start([Answer::json(200, &report)]).await;
        let (exit, stdout) = server.run("archive").await;
        assert_eq!(exit.expect("ran"), Exit::Done);
        assert!(stdout.contains("attempts") && stdout.contains("next due"), "{stdout}");
        assert!(!stdout.contains("purged") && !stdout.contains("moves"), "{stdout}");
        assert!(is_nothing(&report) && next_due(&report).contains("2026-11-23"));
        let busy = serde_json::json!({"attempts": 0, "purged": 1});
        let failed = serde_json::json!({"attempts": 0, "failures": [{"what": "archive"}]});
        let held_up = serde_json::json!({"attempts": 0, "purge_stopped": "paused"});
        assert!(
            !is_nothing(&busy)
                && !is_nothing(&failed)
                && !is_nothing(&held_up)
                && next_due(&busy) == "and nothing will be"
        );
    }

    #[tokio::test]
    async fn empty_shards_are_only_counted() {
        let shard = |shard: u16, chunks: u64| serde_json::json!({"shard": shard, "chunks": chunks, "due_attempts": 0});
        let status =
            serde_json::json!({"hot": {"servers": [{"url": "u", "shards": [shard(0, 0), shard(1, 7), shard(2, 0)]}]}});
        let server = Server::start([Answer::json(200, &status)]).await;
        let (_, stdout) = server.run("status").await;
        assert!(stdout.contains("empty shards  2") && stdout.matches("\n").count() < 12, "{stdout}");
    }

    #[tokio::test]
    async fn purging_is_paused_and_goes_on() {
        let server = Server::start([Answer::status(204), Answer::status(204)]).await;
        assert_eq!(server.run("purge pause --reason backup").await.0.expect("paused"), Exit::Done);
        assert_eq!(server.run("purge resume").await.0.expect("resumed"), Exit::Done);
        let seen = server.seen();
        assert_eq!((&seen[0].method, seen[0].target.as_str()), (&Method::PUT, "/api/v1/purge/pause?reason=backup"));
        assert_eq!((&seen[1].method, seen[1].target.as_str()), (&Method::DELETE, "/api/v1/purge/pause"));
    }

    #[tokio::test]
    async fn deleting_wants_a_yes() {
        let server = Server::start([Answer::status(204), Answer::problem(409, "it is held")]).await;
        if !std::io::stdin().is_terminal() {
            assert!(server.run("rm r").await.0.is_err());
        }
        assert_eq!(server.run("rm r --yes").await.0.expect("deleted"), Exit::Done);
        assert_eq!(server.seen()[0].method, Method::DELETE);
        let error = server.run("rm r --yes").await.0.expect_err("held");
        assert!(format!("{error:#}").contains("it is held"), "{error:#}");
    }
}
