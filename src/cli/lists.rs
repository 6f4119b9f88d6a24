//! `logtier ls` and `logtier show`: which instances there are, and what is known of one.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::args::{self, Moment};
use super::client::{Call, ClientError, Patience};
use super::logs::{Selection, unreadable};
use super::output::{self, number};
use super::push::FinishedAs;
use super::render::{self, cell};
use super::{Exit, Session};

/// How many instances are listed unless told otherwise: about a screen.
const DEFAULT_LIST: u64 = 50;
/// The most a page of a list is asked for.
const LIST_PAGE: u64 = 1_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// As the daemon gives it
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Which instance
    instance: String,
    /// Which attempt; the newest if not given
    #[arg(long, value_name = "N", value_parser = args::number)]
    attempt: Option<u64>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Open,
    Finished,
    Archived,
    Expired,
    Deleted,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only runs of this job
    #[arg(long)]
    job: Option<String>,
    /// Only those in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only those that ended so
    #[arg(long, value_enum)]
    outcome: Option<FinishedAs>,
    /// Only those since then: a span such as 2h, or a time
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    since: Option<Moment>,
    /// Only those before then
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    until: Option<Moment>,
    /// Only those with this label; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// Of all apps, not only that of --app
    #[arg(long)]
    all_apps: bool,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", value_parser = args::number, default_value_t = DEFAULT_LIST)]
    limit: u64,
    /// How to print; json is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn show(session: &mut Session, args: ShowArgs) -> anyhow::Result<Exit> {
    let selection =
        Selection { app: session.app.clone(), instance: args.instance, attempt: args.attempt, filters: Vec::new() };
    let shown: Result<Value, ClientError> = session.client.json(&selection.call("")).await;
    let shown = shown.map_err(|error| unreadable(error.into(), &selection))?;
    match args.output {
        Format::Json => session.out.line(&shown.to_string())?,
        Format::Table => session.out.write(summary(&shown).as_bytes())?,
    }
    Ok(Exit::Done)
}

/// First what people look for, then all else that the daemon said.
fn summary(shown: &Value) -> String {
    const FIRST: [&str; 14] = [
        "app",
        "instance",
        "attempt",
        "attempts",
        "job",
        "labels",
        "state",
        "outcome",
        "lines",
        "bytes",
        "first_ts",
        "last_ts",
        "finished_at",
        "archived_at",
    ];
    let Some(members) = shown.as_object() else { return render::document(shown) };
    let mut rows: Vec<(String, String)> = Vec::new();
    for name in FIRST {
        let Some(value) = members.get(name).filter(|value| !is_empty(value)) else { continue };
        let mut text = cell(name, value);
        if name == "state" && members.get("finish_inferred") == Some(&Value::Bool(true)) {
            text.push_str(" (inferred: nothing was written for long)");
        }
        rows.push((name.replace('_', " "), text));
    }
    let rest = members.iter().filter(|(name, value)| {
        !FIRST.contains(&name.as_str())
            && name.as_str() != "tiers"
            && name.as_str() != "finish_inferred"
            && !is_empty(value)
    });
    rows.extend(rest.map(|(name, value)| (name.replace('_', " "), cell(name, value))));
    for (tier, held) in members.get("tiers").and_then(Value::as_object).into_iter().flatten() {
        let size = |name: &str| held.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut text = format!("{}, {}", output::count(size("lines"), "line"), output::bytes(size("bytes")));
        for segment in held.get("segments").and_then(Value::as_array).into_iter().flatten() {
            text.push_str(&format!("\n{:16}{}", "", cell("", segment)));
        }
        rows.push((format!("{tier} tier"), text));
    }
    rows.iter().map(|(name, value)| format!("{name:14}  {value}\n")).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(_) => false,
    }
}

pub(super) async fn ls(session: &mut Session, args: LsArgs) -> anyhow::Result<Exit> {
    let call = list_call(session, &args);
    let mut patience = Patience::new(std::time::Duration::ZERO);
    let (mut listed, mut cursor, mut rows) = (0, None::<String>, Vec::new());
    let more = loop {
        let wanted = (args.limit - listed).min(LIST_PAGE);
        let page_call = call.clone().query("limit", wanted).query_opt("cursor", cursor.as_ref());
        let page: Value = session.client.json_patiently(&page_call, &mut patience).await?;
        let instances = page.get("instances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for instance in instances.iter().take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
            listed += 1;
            match args.output {
                Format::Json => session.out.line(&instance.to_string())?,
                Format::Table => rows.push(row(instance, args.all_apps)),
            }
        }
        let next = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        let moved = next.is_some() && next != cursor && !instances.is_empty();
        cursor = next;
        if !moved || listed >= args.limit {
            break moved;
        }
    };
    if !rows.is_empty() {
        let heads: &[&str] = &["APP", "INSTANCE", "ATTEMPT", "JOB", "STATE", "OUTCOME", "LINES", "BYTES", "STARTED"];
        let heads: Vec<String> =
            heads.iter().skip(usize::from(!args.all_apps)).map(|head| (*head).to_owned()).collect();
        session.out.write(render::table(&heads, &rows).as_bytes())?;
    }
    session.out.flush()?;
    if listed == 0 {
        eprintln!(
            "logtier: no instance is like that{}",
            if args.all_apps { "" } else { " in this app (--all-apps looks in all)" }
        );
        return Ok(Exit::Nothing);
    }
    if more && args.output == Format::Table {
        eprintln!("logtier: these are the newest {}; there may be more, see -n", number(listed));
    }
    Ok(Exit::Done)
}

fn list_call(session: &Session, args: &LsArgs) -> Call {
    let now = session.clock.now();
    let mut call = match args.all_apps {
        true => Call::new(Method::GET, "/instances"),
        false => Call::on_app(Method::GET, &session.app, "/instances"),
    };
    let state = args.state.map(|state| match state {
        State::Open => "open",
        State::Finished => "finished",
        State::Archived => "archived",
        State::Expired => "expired",
        State::Deleted => "deleted",
    });
    call = call
        .query_opt("job", args.job.as_ref())
        .query_opt("state", state)
        .query_opt("outcome", args.outcome.map(FinishedAs::as_str))
        .query_opt("since", args.since.map(|moment| moment.resolve(now)))
        .query_opt("until", args.until.map(|moment| moment.resolve(now)));
    for (name, value) in &args.labels {
        call = call.query(&format!("label.{name}"), value);
    }
    call
}

fn row(instance: &Value, with_app: bool) -> Vec<String> {
    let get = |name: &str| cell(name, instance.get(name).unwrap_or(&Value::Null));
    let started =
        ["first_ts", "started_at", "created_at"].iter().find(|name| instance.get(**name).is_some_and(|v| !v.is_null()));
    let mut row = vec![get("instance"), get("attempt"), get("job"), get("state"), get("outcome"), get("lines")];
    row.push(get("bytes"));
    row.push(started.map_or_else(|| "-".to_owned(), |name| get(name)));
    if with_app {
        row.insert(0, get("app"));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Server};
    use super::*;

    #[tokio::test]
    async fn a_list_is_read_by_cursor_up_to_the_limit() {
        let page = |ids: &[&str], cursor: Option<&str>| {
            let list: Vec<_> =
                ids.iter().map(|id| serde_json::json!({"app": "a", "instance": id, "lines": 1200})).collect();
            Answer::json(200, &serde_json::json!({"instances": list, "next_cursor": cursor}))
        };
        let server = Server::start([page(&["r3", "r2"], Some("c")), page(&["r1"], None)]).await;
        let (exit, stdout) = server.run("ls --job j --label k=v --all-apps -n 5").await;
        assert_eq!(exit.expect("listed"), Exit::Done);
        assert!(stdout.starts_with("APP  INSTANCE  ATTEMPT"), "{stdout}");
        assert_eq!(stdout.lines().count(), 4);
        let seen = server.seen();
        assert_eq!(seen[0].target, "/api/v1/instances?job=j&label.k=v&limit=5");
        assert_eq!(seen[1].target, "/api/v1/instances?job=j&label.k=v&limit=3&cursor=c");

        let server = Server::start([page(&[], None)]).await;
        assert_eq!(server.run("ls").await.0.expect("listed"), Exit::Nothing);
    }

    #[tokio::test]
    async fn what_is_known_comes_in_order() {
        let shown = serde_json::json!({"app": "default", "instance": "r", "attempt": 1, "attempts": [1], "state": "archived",
            "outcome": "failed", "finish_inferred": true, "lines": 1500, "bytes": 2048, "hold": false, "rule": "default",
            "tiers": {"hot": {"lines": 0, "bytes": 0}, "cold": {"lines": 1500, "bytes": 2048, "segments": ["v1/x.zst"]}}});
        let server = Server::start([Answer::json(200, &shown)]).await;
        let (_, stdout) = server.run("show r").await;
        assert!(stdout.starts_with("app             default\ninstance        r\n"), "{stdout}");
        assert!(stdout.contains("state           archived (inferred"), "{stdout}");
        assert!(
            stdout.ends_with(
                "cold tier       1,500 lines, 2.0 KiB\n                v1/x.zst\nhot tier        0 lines, 0 B\n"
            ),
            "{stdout}"
        );
    }
}
