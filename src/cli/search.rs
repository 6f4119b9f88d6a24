//! `logtier grep`: searches the logs of many instances, in both tiers.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::BytesMut;
use clap::Args;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::args::{self, Moment};
use super::client::{Call, shows_progress};
use super::output::{CYAN, Color, MAGENTA, RESET, count, number, rfc3339};
use super::record::{Format, Line, highlight};
use super::{Exit, Session};
use crate::model::Level;

/// How often the number of finds is drawn on a terminal.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// A search of much cold data may be silent for a while, but not for ever.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub(super) struct GrepArgs {
    /// A regular expression, or with -F a text
    pattern: String,
    /// Take the pattern as it is
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Take letters in either case
    #[arg(short, long)]
    ignore_case: bool,
    /// Print only which instances match
    #[arg(short = 'l', long)]
    instances_with_matches: bool,
    /// Only runs of this job
    #[arg(long)]
    job: Option<String>,
    /// Only this instance
    #[arg(long)]
    instance: Option<String>,
    /// Only lines of this level or above
    #[arg(long, value_parser = args::level)]
    level: Option<Level>,
    /// Only lines of this source (worker)
    #[arg(long)]
    source: Option<String>,
    /// Only lines since then: a span such as 2h, or a time
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    since: Option<Moment>,
    /// Only lines before then
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    until: Option<Moment>,
    /// Of all apps, not only that of --app
    #[arg(long)]
    all_apps: bool,
    /// At most so many lines
    #[arg(short = 'n', long, value_name = "N", value_parser = args::number)]
    limit: Option<u64>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Times in UTC; in the local zone otherwise
    #[arg(long)]
    utc: bool,
    /// Colors
    #[arg(long, value_enum, default_value_t)]
    color: Color,
}

/// One line of the answer: a find, or the last word.
#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(default)]
    summary: Option<Value>,
}

pub(super) async fn grep(session: &mut Session, args: GrepArgs) -> anyhow::Result<Exit> {
    let answer = session.client.send(&search_call(session, &args)).await?;
    let color = args.color.on(&session.out);
    let pattern = if args.fixed_strings { regex::escape(&args.pattern) } else { args.pattern.clone() };
    let marks = regex::bytes::RegexBuilder::new(&pattern).case_insensitive(args.ignore_case).build().ok();
    let mut finds = Finds { args: &args, color, marks: marks.filter(|_| color), found: 0, last: None, drawn: None };
    let summary = finds.read(session, answer).await;
    finds.end_progress();
    session.out.flush()?;
    let summary = summary?.context("the answer ended before its summary, so there may be more; try again")?;
    conclude(&summary, finds.found)
}

fn search_call(session: &Session, args: &GrepArgs) -> Call {
    let now = session.clock.now();
    // What is literal may use filters that a regular expression cannot.
    let (name, pattern) = match (args.fixed_strings, args.ignore_case) {
        (true, false) => ("contains", args.pattern.clone()),
        (true, true) => ("regex", format!("(?i){}", regex::escape(&args.pattern))),
        (false, true) => ("regex", format!("(?i){}", args.pattern)),
        (false, false) => ("regex", args.pattern.clone()),
    };
    Call::new(Method::GET, "/search")
        .query(name, pattern)
        .query_opt("app", (!args.all_apps).then_some(&session.app))
        .query_opt("job", args.job.as_ref())
        .query_opt("instance", args.instance.as_ref())
        .query_opt("level", args.level)
        .query_opt("source", args.source.as_ref())
        .query_opt("since", args.since.map(|moment| moment.resolve(now)))
        .query_opt("until", args.until.map(|moment| moment.resolve(now)))
        .query_opt("limit", args.limit)
        .header(ACCEPT, "application/x-ndjson")
        .timeout(None)
}

/// Says what was searched. Nothing found in an incomplete search is an error: it says nothing.
fn conclude(summary: &Value, found: u64) -> anyhow::Result<Exit> {
    let why = summary.get("why").and_then(Value::as_str).filter(|why| !why.is_empty());
    if summary.get("complete") == Some(&Value::Bool(false)) {
        let why = why.unwrap_or("the daemon did not say why");
        if found == 0 {
            anyhow::bail!("found nothing, but not everything was searched: {why}");
        }
        eprintln!("logtier: not everything was searched: {why}");
    } else if shows_progress() {
        let scanned = match summary.get("scanned") {
            Some(Value::Number(n)) => n.as_u64().map(|n| format!(" in {}", number(n))).unwrap_or_default(),
            Some(Value::Object(_)) => format!(" in {}", super::render::cell("", &summary["scanned"])),
            _ => String::new(),
        };
        eprintln!("logtier: {}{scanned}", count(found, "line"));
    }
    Ok(if found == 0 { Exit::Nothing } else { Exit::Done })
}

/// Prints what is found as it comes.
struct Finds<'a> {
    args: &'a GrepArgs,
    color: bool,
    marks: Option<regex::bytes::Regex>,
    found: u64,
    /// The instance of the find before.
    last: Option<String>,
    drawn: Option<Instant>,
}

impl Finds<'_> {
    async fn read(&mut self, session: &mut Session, mut answer: Response) -> anyhow::Result<Option<Value>> {
        let (mut buffer, mut summary) = (BytesMut::new(), None);
        loop {
            let chunk = tokio::time::timeout(LONGEST_SILENCE, answer.chunk()).await;
            let chunk = chunk.context("the daemon has been silent for too long")?;
            let ended = match chunk.map_err(|error| session.client.failure(&error))? {
                Some(chunk) => {
                    buffer.extend_from_slice(&chunk);
                    false
                }
                None => {
                    buffer.extend_from_slice(b"\n");
                    true
                }
            };
            while let Some(at) = memchr::memchr(b'\n', &buffer) {
                let line = buffer.split_to(at + 1);
                if !line.trim_ascii().is_empty() {
                    summary = self.item(session, line.trim_ascii())?.or(summary);
                }
            }
            if ended {
                return Ok(summary);
            }
            session.out.flush()?;
            self.draw_progress(session);
        }
    }

    fn item(&mut self, session: &mut Session, json: &[u8]) -> anyhow::Result<Option<Value>> {
        let item: Item<'_> = serde_json::from_slice(json).map_err(|error| session.client.senseless(&error))?;
        if let Some(record) = item.record {
            let line: Line<'_> =
                serde_json::from_str(record.get()).map_err(|error| session.client.senseless(&error))?;
            self.found += 1;
            self.end_progress();
            self.print(session, record.get(), &line)?;
        }
        Ok(item.summary)
    }

    fn print(&mut self, session: &mut Session, json: &str, line: &Line<'_>) -> anyhow::Result<()> {
        if self.args.output == Format::Ndjson {
            return session.out.line(json);
        }
        let mut name = line.instance.to_string();
        if self.args.all_apps {
            name = format!("{}/{name}", line.app);
        }
        if let Some(attempt) = line.attempt.filter(|&attempt| attempt > 1) {
            name.push_str(&format!("#{attempt}"));
        }
        if self.args.instances_with_matches {
            if self.last.as_ref() != Some(&name) {
                session.out.line(&name)?;
                self.last = Some(name);
            }
            return Ok(());
        }
        let paint =
            |text: &str, color: &str| if self.color { format!("{color}{text}{RESET}") } else { text.to_owned() };
        let mut prefix = format!("{}:{}:", paint(&name, MAGENTA), paint(&line.line.to_string(), CYAN));
        if self.args.output == Format::Text {
            prefix.push_str(&line.time().map(|ts| rfc3339(ts, self.args.utc) + " ").unwrap_or_default());
            prefix.push_str(&line.level_name().map(|level| format!("{level} ")).unwrap_or_default());
            let source = line.source.as_deref().filter(|source| !source.is_empty());
            prefix.push_str(&source.map(|source| format!("[{source}] ")).unwrap_or_default());
        }
        session.out.write(prefix.as_bytes())?;
        highlight(&mut session.out, &line.message(), self.marks.as_ref(), "")?;
        session.out.write(b"\n")
    }

    fn draw_progress(&mut self, session: &Session) {
        let now = session.clock.instant();
        let due = self.drawn.is_none_or(|drawn| now.duration_since(drawn) >= PROGRESS_EVERY);
        // Where finds go to the same terminal they are progress enough.
        if due && shows_progress() && !session.out.terminal {
            self.drawn = Some(now);
            eprint!("\r\x1b[K{} found", count(self.found, "line"));
        }
    }

    fn end_progress(&mut self) {
        if self.drawn.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Server};
    use super::*;

    const FIND: &str = r#"{"record":{"app":"a","instance":"r1","attempt":2,"line":7,"ts":"2026-11-22T10:00:00.000Z","level":"WARN","source":"w0","message":"x boom"}}"#;

    #[tokio::test]
    async fn finds_name_their_place() {
        let cases = [
            ("grep boom -F", "r1#2:7:x boom\n", "contains=boom&app=default"),
            ("grep boom -i --all-apps", "a/r1#2:7:x boom\n", "regex=%28%3Fi%29boom"),
            ("grep boom -o text --utc", "r1#2:7:2026-11-22T10:00:00.000Z WARN [w0] x boom\n", "regex=boom&app=default"),
            ("grep boom -l", "r1#2\n", "regex=boom&app=default"),
        ];
        for (line, expected, query) in cases {
            let body = format!("{FIND}\n{}\n", r#"{"summary":{"scanned":10,"skipped":3,"complete":true}}"#);
            let server = Server::start([Answer::text(&body)]).await;
            let (exit, stdout) = server.run(line).await;
            assert_eq!((exit.expect("searched"), stdout.as_str()), (Exit::Done, expected));
            assert_eq!(server.seen()[0].target, format!("/api/v1/search?{query}"));
        }
    }

    #[tokio::test]
    async fn nothing_found_is_only_said_of_a_whole_search() {
        let cases = [
            (r#"{"summary":{"complete":true}}"#.to_owned(), Some(Exit::Nothing)),
            (r#"{"summary":{"complete":false,"why":"timeout"}}"#.to_owned(), None),
            (format!("{FIND}\n{}", r#"{"summary":{"complete":false,"why":"limit"}}"#), Some(Exit::Done)),
            (format!("{FIND}\n"), None),
        ];
        for (body, expected) in cases {
            let server = Server::start([Answer::text(&body)]).await;
            assert_eq!(server.run("grep boom").await.0.ok(), expected, "{body}");
        }
    }
}
