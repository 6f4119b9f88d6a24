//! `logtier logs`: prints the log of one instance, in whole or in part.
//!
//! Whole logs are read a page at a time, so that memory stays bounded whatever their size.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::args::{self, Lines, Moment};
use super::client::{Call, ClientError};
use super::follow;
use super::output::{self, Color};
use super::pages::{PAGE_LIMIT, Page, Pager, Start};
use super::record::{Format, Line, Look, Printer};
use super::{Exit, Session};
use crate::model::Level;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["instance", "job"]))]
pub(super) struct LogsArgs {
    /// Whose log to print
    instance: Option<String>,
    /// Take the newest instance of this job instead
    #[arg(long)]
    job: Option<String>,
    /// With --job: the newest instance; this is the default
    #[arg(long, requires = "job", conflicts_with = "last_failed")]
    last: bool,
    /// With --job: the newest instance that failed
    #[arg(long, requires = "job")]
    last_failed: bool,
    /// Go on with new lines until the instance is finished
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines (of those that match)
    #[arg(short = 'n', long = "tail", value_name = "N", value_parser = args::number)]
    tail: Option<u64>,
    /// Only the lines A up to, not including, B, counted from 0; either may be left out
    #[arg(long, value_name = "A..B", value_parser = args::lines, conflicts_with_all = ["tail", "follow"])]
    lines: Option<Lines>,
    /// Only lines since then: a span such as 2h, or a time
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    since: Option<Moment>,
    /// Only lines before then
    #[arg(long, value_name = "TIME", value_parser = args::moment, conflicts_with = "follow")]
    until: Option<Moment>,
    /// Only lines of this level or above, with the lines that belong to them
    #[arg(long, value_parser = args::level)]
    level: Option<Level>,
    /// Only lines of this source (worker)
    #[arg(long)]
    source: Option<String>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "RE")]
    grep: Option<String>,
    /// N lines of context around each line that matches
    #[arg(short = 'C', long, value_name = "N", value_parser = args::number, conflicts_with_all = ["follow", "tail"])]
    context: Option<u64>,
    /// Which attempt; the newest if not given
    #[arg(long, value_name = "N", value_parser = args::number)]
    attempt: Option<u64>,
    /// The attempt before the newest
    #[arg(short, long, conflicts_with = "attempt")]
    previous: bool,
    /// Put its time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Times in UTC; in the local zone otherwise
    #[arg(long)]
    utc: bool,
    /// Colors by level
    #[arg(long, value_enum, default_value_t)]
    color: Color,
}

/// Which log is read, and what of it.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) app: String,
    pub(super) instance: String,
    pub(super) attempt: Option<u64>,
    /// What narrows the lines by what they hold: `since`, `level`, `regex` and so on.
    pub(super) filters: Vec<(String, String)>,
}

impl Selection {
    pub(super) fn call(&self, tail: &str) -> Call {
        Call::on_instance(Method::GET, &self.app, &self.instance, tail).query_opt("attempt", self.attempt)
    }

    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.app, self.instance)
    }
}

/// Where reading stopped.
#[derive(Debug, Clone, Default)]
pub(super) struct Position {
    pub(super) attempt: Option<u64>,
    /// The line to go on with.
    pub(super) next_line: u64,
    pub(super) cursor: Option<String>,
    /// No more lines will come.
    pub(super) ended: bool,
}

pub(super) async fn logs(session: &mut Session, args: LogsArgs) -> anyhow::Result<Exit> {
    let selection = select(session, &args).await?;
    let color = args.color.on(&session.out);
    let highlight = args.grep.as_ref().filter(|_| color).and_then(|re| regex::bytes::Regex::new(re).ok());
    let look = Look { format: args.output, timestamps: args.timestamps, utc: args.utc, color, highlight };
    let mut printer = Printer::new(look);
    let read = match (args.context, args.tail) {
        (Some(context), _) if !selection.filters.is_empty() => {
            with_context(session, &selection, args.lines, context, &mut printer).await
        }
        (_, Some(n)) if n > 0 && selection.filters.is_empty() => {
            forward(session, &selection, Start::Last(n), &mut printer).await
        }
        (_, Some(n)) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            tail_of_matching(session, &selection, n, &mut printer).await
        }
        _ => forward(session, &selection, args.lines.into(), &mut printer).await,
    };
    match read {
        Ok(position) if args.follow && !position.ended => {
            follow::follow(session, &selection, position, &mut printer).await?;
        }
        Ok(_) => {}
        Err(error) if args.follow && is_never_logged(&error) => {
            eprintln!("logtier: waiting for the first line of {}", selection.shown());
            follow::follow(session, &selection, Position::default(), &mut printer).await?;
        }
        Err(error) => return Err(unreadable(error, &selection)),
    }
    printer.end(&mut session.out)?;
    session.out.flush()?;
    let filtered = !selection.filters.is_empty();
    Ok(if filtered && printer.printed == 0 { Exit::Nothing } else { Exit::Done })
}

/// Finds out which instance and attempt are meant.
async fn select(session: &Session, args: &LogsArgs) -> anyhow::Result<Selection> {
    let instance = match (&args.instance, &args.job) {
        (Some(instance), _) => instance.clone(),
        (None, Some(job)) => newest_of_job(session, job, args.last_failed).await?,
        (None, None) => anyhow::bail!("name an INSTANCE or a --job"),
    };
    let now = session.clock.now();
    let mut filters = Vec::new();
    let mut filter = |name: &str, value: Option<String>| filters.extend(value.map(|value| (name.to_owned(), value)));
    filter("since", args.since.map(|moment| moment.resolve(now).to_string()));
    filter("until", args.until.map(|moment| moment.resolve(now).to_string()));
    filter("level", args.level.map(|level| level.as_str().to_owned()));
    filter("source", args.source.clone());
    filter("regex", args.grep.clone());
    let mut selection = Selection { app: session.app.clone(), instance, attempt: args.attempt, filters };
    if args.previous {
        selection.attempt = Some(previous_attempt(session, &selection).await?);
    }
    Ok(selection)
}

async fn newest_of_job(session: &Session, job: &str, failed: bool) -> anyhow::Result<String> {
    let mut call = Call::on_app(Method::GET, &session.app, "/instances").query("job", job).query("limit", 1);
    if failed {
        call = call.query("outcome", "failed");
    }
    let list: Value = session.client.json(&call).await?;
    let newest = list.get("instances").and_then(|list| list.get(0)?.get("instance")?.as_str());
    let which = if failed { "no failed instance" } else { "no instance" };
    newest.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("there is {which} of job {job} in app {}", session.app))
}

async fn previous_attempt(session: &Session, selection: &Selection) -> anyhow::Result<u64> {
    let shown: Result<Value, ClientError> = session.client.json(&selection.call("")).await;
    let shown = shown.map_err(|error| unreadable(error.into(), selection))?;
    let newest = shown.get("attempt").and_then(Value::as_u64).unwrap_or(1);
    let listed = shown.get("attempts").and_then(Value::as_array);
    let number = |attempt: &Value| attempt.as_u64().or_else(|| attempt.get("attempt")?.as_u64());
    let before = listed.into_iter().flatten().filter_map(number).filter(|&attempt| attempt < newest).max();
    before.ok_or_else(|| anyhow::anyhow!("{} has no attempt before {newest}", selection.shown()))
}

/// Prints the lines from `lines`, or the last so many, to the end of what there is now.
async fn forward(
    session: &mut Session,
    selection: &Selection,
    from: Start,
    printer: &mut Printer,
) -> anyhow::Result<Position> {
    let mut pager = Pager::new(selection, from);
    let mut position = Position::default();
    while let Some(page) = pager.next(session).await? {
        let last = print_page(session, &page, printer)?;
        position.next_line = page.next_line.or(last.map(|last| last + 1)).unwrap_or(position.next_line);
        position.ended = page.attempt_final;
    }
    Ok(Position { attempt: pager.selection.attempt, cursor: pager.cursor, ..position })
}

/// Prints a page's records and gives the number of the last.
pub(super) fn print_page(session: &mut Session, page: &Page, printer: &mut Printer) -> anyhow::Result<Option<u64>> {
    let mut last = None;
    for record in &page.records {
        let line: Line<'_> = serde_json::from_str(record.get()).map_err(|error| session.client.senseless(&error))?;
        printer.print(&mut session.out, record.get(), &line)?;
        last = Some(line.line);
    }
    session.out.flush()?;
    Ok(last)
}

/// Prints the last `n` of the lines that match: the daemon gives the newest first, we turn them round.
async fn tail_of_matching(
    session: &mut Session,
    selection: &Selection,
    n: usize,
    printer: &mut Printer,
) -> anyhow::Result<Position> {
    let mut pager = Pager::new(selection, Start::Newest);
    // `n`, which someone typed, bounds what is held.
    let (mut held, mut position) = (Vec::new(), Position::default());
    // One page at least: whoever wants no line but what follows must know where that begins.
    loop {
        pager.limit = (n.saturating_sub(held.len()) as u64).clamp(1, PAGE_LIMIT);
        let Some(page) = pager.next(session).await? else { break };
        if position.attempt.is_none() {
            position.attempt = pager.selection.attempt;
            position.ended = page.attempt_final;
            position.next_line = page.next_line.unwrap_or(0);
        }
        held.extend(page.records);
        if held.len() >= n {
            break;
        }
    }
    if let Some(newest) = held.first() {
        let newest: Line<'_> = serde_json::from_str(newest.get()).map_err(|error| session.client.senseless(&error))?;
        position.next_line = position.next_line.max(newest.line + 1);
    }
    held.truncate(n);
    for record in held.iter().rev() {
        let line: Line<'_> = serde_json::from_str(record.get()).map_err(|error| session.client.senseless(&error))?;
        printer.print(&mut session.out, record.get(), &line)?;
    }
    session.out.flush()?;
    Ok(position)
}

/// Prints what matches with `context` lines around it; groups that touch are one.
async fn with_context(
    session: &mut Session,
    selection: &Selection,
    lines: Option<Lines>,
    context: u64,
    printer: &mut Printer,
) -> anyhow::Result<Position> {
    let (low, high) = lines.map_or((0, u64::MAX), |l| (l.from.unwrap_or(0), l.to.unwrap_or(u64::MAX)));
    let mut pager = Pager::new(selection, lines.into());
    let mut group: Option<(u64, u64)> = None;
    while let Some(page) = pager.next(session).await? {
        for record in &page.records {
            let hit: Line<'_> = serde_json::from_str(record.get()).map_err(|error| session.client.senseless(&error))?;
            let from = hit.line.saturating_sub(context).max(low);
            let to = hit.line.saturating_add(context + 1).min(high);
            match &mut group {
                Some(group) if from <= group.1 => group.1 = to,
                _ => {
                    let done = group.replace((from, to));
                    print_group(session, &pager.selection, done, printer).await?;
                }
            }
        }
    }
    print_group(session, &pager.selection, group, printer).await?;
    Ok(Position { ended: true, ..Position::default() })
}

async fn print_group(
    session: &mut Session,
    selection: &Selection,
    group: Option<(u64, u64)>,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let Some((from, to)) = group else { return Ok(()) };
    if printer.printed > 0 {
        printer.gap(&mut session.out)?;
    }
    let plain = Selection { filters: Vec::new(), ..selection.clone() };
    forward(session, &plain, Start::Range(Lines { from: Some(from), to: Some(to) }), printer).await.map(drop)
}

fn problem(error: &anyhow::Error) -> Option<&super::client::Problem> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Problem(problem) => Some(problem),
        _ => None,
    }
}

pub(super) fn is_never_logged(error: &anyhow::Error) -> bool {
    problem(error).is_some_and(is_unknown_log)
}

/// A 404 may also say that the address leads elsewhere.
fn is_unknown_log(problem: &super::client::Problem) -> bool {
    problem.status == 404 && problem.body.get("state").is_some_and(|state| state == "never_logged")
}

/// Says apart what was never there, what is gone, and what cannot be asked just now.
pub(super) fn unreadable(error: anyhow::Error, selection: &Selection) -> anyhow::Error {
    let name = selection.shown();
    let Some(problem) = problem(&error) else { return error };
    let said = match problem.status {
        404 if is_unknown_log(problem) => {
            return anyhow::anyhow!(
                "nothing is known of {name}: {problem}\n`logtier ls --app {}` lists what there is.",
                selection.app
            );
        }
        410 => {
            let when =
                ["deleted_at", "expired_at", "expires_at", "when"].iter().find_map(|at| problem.body.get(at)?.as_str());
            let when = when.map(|when| format!(" since {}", output::local_time(when))).unwrap_or_default();
            return anyhow::anyhow!("the log of {name} is gone{when}: {problem}");
        }
        404 => return error.context("this is no logtier daemon; --url wants its address without a path"),
        503 => format!("the log of {name} cannot be read just now, which says nothing of what is in it"),
        _ => return error,
    };
    error.context(said)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Server};
    use super::*;

    fn record(line: u64, message: &str) -> Value {
        serde_json::json!({"line": line, "ts": "2026-11-22T10:00:00.000Z", "message": message})
    }

    fn page(records: &[Value], cursor: &str, at_end: bool) -> Answer {
        let more = serde_json::json!({"attempt": 2, "attempt_final": true, "records": records,
            "next_cursor": cursor, "at_end": at_end});
        Answer::json(200, &more)
    }

    #[tokio::test]
    async fn pages_are_followed_by_cursor() {
        let server = Server::start([
            page(&[record(0, "a"), record(1, "b")], "c1", false),
            Answer::problem(503, "cold tier is away").header("retry-after", "0"),
            page(&[record(2, "c")], "c2", true),
        ])
        .await;
        let (exit, stdout) = server.run("logs run-1").await;
        assert_eq!((exit.expect("read"), stdout.as_str()), (Exit::Done, "a\nb\nc\n"));
        let seen = server.seen();
        assert_eq!(seen[0].target, "/api/v1/apps/default/instances/run-1/records?limit=10000");
        assert_eq!(seen[2].target, "/api/v1/apps/default/instances/run-1/records?attempt=2&limit=10000&cursor=c1");
    }

    #[tokio::test]
    async fn exit_codes_are_those_of_grep() {
        let cases = [
            ("logs r --grep x", page(&[], "c", true), Some(Exit::Nothing)),
            ("logs r --grep x", page(&[record(7, "x")], "c", true), Some(Exit::Done)),
            ("logs r", page(&[], "c", true), Some(Exit::Done)),
            ("logs r", Answer::problem(404, "no such"), None),
        ];
        for (line, answer, expected) in cases {
            let server = Server::start([answer]).await;
            assert_eq!(server.run(line).await.0.ok(), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn absent_gone_and_away_are_told_apart() {
        for (status, said) in [(404, "nothing is known of"), (410, "is gone"), (503, "cannot be read just now")] {
            let server = Server::start([Answer::problem(status, "why")]).await;
            let error = format!("{:#}", server.run("logs run-1").await.0.expect_err("a problem"));
            assert!(error.contains(said) && error.contains("why") && error.contains("request r-1"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_that_leads_elsewhere_is_not_a_log_that_never_was() {
        let server = Server::start([Answer::json(404, &serde_json::json!({"type": "no-such-route"}))]).await;
        let error = format!("{:#}", server.run("logs run-1").await.0.expect_err("a problem"));
        assert!(error.contains("this is no logtier daemon"), "{error}");
    }

    #[tokio::test]
    async fn the_tail_of_what_matches_is_read_backwards() {
        let server = Server::start([
            page(&[record(9, "x9"), record(5, "x5")], "c1", false),
            page(&[record(3, "x3"), record(1, "x1")], "c2", false),
        ])
        .await;
        let (_, stdout) = server.run("logs run-1 --grep x -n 3").await;
        assert_eq!(stdout, "x3\nx5\nx9\n");
        assert!(server.seen()[1].target.ends_with("limit=1&regex=x&reverse=true&cursor=c1"), "{:?}", server.seen());
        let server = Server::start([page(&[record(9, "x9")], "c1", true)]).await;
        assert_eq!(server.run("logs run-1 -n 1").await.1, "x9\n");
        assert!(server.seen()[0].target.ends_with("?limit=10000&last=1"));
    }

    #[tokio::test]
    async fn context_groups_that_touch_are_one() {
        let server = Server::start([
            page(&[record(1, "x"), record(3, "x"), record(9, "x")], "c", true),
            page(&[record(0, "a"), record(1, "x"), record(2, "b"), record(3, "x"), record(4, "c")], "c", true),
            page(&[record(8, "d"), record(9, "x")], "c", true),
        ])
        .await;
        let (_, stdout) = server.run("logs run-1 --grep x -C 1").await;
        assert_eq!(stdout, "a\nx\nb\nx\nc\n--\nd\nx\n");
        let seen = server.seen();
        assert!(seen[1].target.ends_with("to_line=5&from_line=0"), "{}", seen[1].target);
        assert!(seen[2].target.ends_with("to_line=11&from_line=8"), "{}", seen[2].target);
    }

    #[tokio::test]
    async fn the_last_failed_and_the_previous_are_looked_up() {
        let server = Server::start([
            Answer::json(200, &serde_json::json!({"instances": [{"instance": "n/7"}]})),
            page(&[record(0, "boom")], "c", true),
        ])
        .await;
        assert_eq!(server.run("logs --job nightly --last-failed").await.1, "boom\n");
        let seen = server.seen();
        assert_eq!(seen[0].target, "/api/v1/apps/default/instances?job=nightly&limit=1&outcome=failed");
        assert!(seen[1].target.starts_with("/api/v1/instances/records?app=default&instance=n%2F7"));

        let server = Server::start([
            Answer::json(200, &serde_json::json!({"attempt": 3, "attempts": [1, 2, 3]})),
            page(&[record(0, "before")], "c", true),
        ])
        .await;
        assert_eq!(server.run("logs run-1 -p").await.1, "before\n");
        assert!(server.seen()[1].target.contains("attempt=2&"));
    }
}
