//! `logtier exec`: runs a command, ships its output, finishes by its exit code and passes that on.
//!
//! Every batch goes to a spool on disk first and from there to the daemon, by a loop that the
//! command never waits for. So a daemon that is slow, away or lost costs the command nothing but
//! the write to disk, and a wrapper that is killed loses at most the last moment. Invariant:
//! nothing that goes wrong with the log changes what the command does or the code that it ends with.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::client::{Patience, shows_progress};
use super::output::{self, count};
use super::push::{About, FinishedAs};
use super::record::NewRecord;
use super::spool::{self, DeliveryError, Meta, Spool, Whose};
use super::{Exit, Session, args};
use crate::clock::{Clock, random_u32};
use crate::model::{Level, char_boundary};

/// A line is shipped after so long …
const BATCH_EVERY: Duration = Duration::from_millis(200);
/// … or once there is so much.
const BATCH_BYTES: usize = 256 << 10;
/// A line without end goes in pieces of this size: below `max_record_size`, and all that is held of it.
const PIECE_BYTES: usize = 256 << 10;
/// Between tries while the daemon is away: the first, and the most.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// The instance's name leaves room for time and chance after the job's.
const JOB_IN_NAME_BYTES: usize = 200;

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The job that this is a run of
    #[arg(long)]
    job: String,
    /// The instance's id; made of job, time and chance if not given
    #[arg(long)]
    instance: Option<String>,
    /// Which attempt; 1 if not given
    #[arg(long, value_name = "N", value_parser = args::number)]
    attempt: Option<u64>,
    /// The worker: sources are then WORKER/stdout and WORKER/stderr
    #[arg(long, value_name = "WORKER")]
    source: Option<String>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// Where to keep what no daemon took yet [default: $XDG_STATE_HOME/logtier/spool]
    #[arg(long, value_name = "DIR", env = "LOGTIER_SPOOL")]
    spool: Option<PathBuf>,
    /// The most that folder may hold, in MiB; lines beyond it are dropped, and that is said in the log
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    spool_limit: u64,
    /// How long to go on delivering after the command's end, while a daemon answers
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = args::span)]
    flush_timeout: Duration,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    code: u8,
    outcome: FinishedAs,
}

pub(super) async fn exec(session: &mut Session, args: ExecArgs) -> anyhow::Result<Exit> {
    let streams = Streams { stdout: Box::new(tokio::io::stdout()), stderr: Box::new(tokio::io::stderr()) };
    Ok(Exit::Code(run(session, &args, streams).await.code))
}

/// Where the command's output goes on to.
struct Streams {
    stdout: Box<dyn AsyncWrite + Unpin>,
    stderr: Box<dyn AsyncWrite + Unpin>,
}

async fn run(session: &Session, args: &ExecArgs, streams: Streams) -> Ended {
    let instance = args.instance.clone().unwrap_or_else(|| new_instance(&args.job, &session.clock));
    let opened = open_spool(session, args, &instance);
    let (progress, watched) = watch::channel(Progress::default());
    let root = opened.as_ref().map(|(root, _)| root.clone());
    let spool = opened.as_ref().map(|(_, spool)| spool);
    let limit = (args.spool_limit << 20).saturating_sub(root.as_deref().map_or(0, spool::used_bytes));
    let recorder = RefCell::new(Recorder { spool, progress, buffer: Vec::new(), lines: 0, dropped: 0, left: limit });
    if shows_progress() {
        eprintln!("logtier: the log of this run: logtier logs --app {} {instance}", session.app);
    }
    let command = async {
        let ended = run_command(session, args, &instance, &recorder, streams).await;
        recorder.borrow_mut().finish(ended.outcome);
        ended
    };
    let delivery = async {
        let (Some(spool), Some(root)) = (spool, &root) else { return };
        let older = deliver_older(root, session, args.flush_timeout, watched.clone());
        let own = deliver_own(spool, session, args.flush_timeout, watched.clone());
        tokio::join!(older, own);
    };
    let (ended, ()) = tokio::join!(command, delivery);
    ended
}

/// `nightly-20261122T100000Z-1f2e3d4c`.
fn new_instance(job: &str, clock: &Clock) -> String {
    let mut job = job;
    while job.len() > JOB_IN_NAME_BYTES {
        job = &job[..job.char_indices().next_back().map_or(0, |(at, _)| at)];
    }
    let time: String = clock.now().to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{job}-{time}Z-{:08x}", random_u32())
}

/// The spool's root and this run's folder in it; without one the command still runs.
fn open_spool(session: &Session, args: &ExecArgs, instance: &str) -> Option<(PathBuf, Spool)> {
    let about = About { job: Some(args.job.clone()), attempt: args.attempt, labels: args.labels.clone() };
    let name = format!("{}-{:08x}", session.clock.new_ulid(), random_u32());
    let meta = Meta::new(session.client.url(), &session.app, instance, &about, &format!("exec-{name}"));
    let create = |root: &Path| Spool::create(root, &name, meta.clone()).map(|spool| (root.to_owned(), spool));
    let wanted = args.spool.clone().map_or_else(spool::default_root, Ok);
    let failure = match wanted.map(|root| create(&root).map_err(|error| format!("{}: {error}", root.display()))) {
        Ok(Ok(opened)) => return Some(opened),
        Ok(Err(error)) => error,
        Err(error) => format!("{error:#}"),
    };
    // A home that cannot be written to is common for services; the temporary folder can.
    let temporary = std::env::temp_dir().join(format!("logtier-spool-{}", nix::unistd::getuid()));
    match create(&temporary) {
        Ok(opened) => {
            eprintln!("logtier: no spool in {failure}; using {}", temporary.display());
            Some(opened)
        }
        Err(error) => {
            eprintln!("logtier: no spool in {failure}, nor in {}: {error}; the log is not kept", temporary.display());
            None
        }
    }
}

/// How far the spool is written.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    batches: u64,
    finished: bool,
}

/// Gathers lines into batches and puts them into the spool.
struct Recorder<'a> {
    spool: Option<&'a Spool>,
    progress: watch::Sender<Progress>,
    buffer: Vec<u8>,
    /// How many records the buffer holds.
    lines: u64,
    /// Records that found no place, since that was last said.
    dropped: u64,
    /// How many bytes the spool may still take.
    left: u64,
}

impl Recorder<'_> {
    fn add(&mut self, record: &NewRecord<'_>) {
        if self.spool.is_none() {
            return;
        }
        record.write(&mut self.buffer);
        self.lines += 1;
        if self.buffer.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes the batch to disk. A file of this size goes to the page cache; no await, so that
    /// nothing can come in between or cancel it half-way.
    fn flush(&mut self) {
        let Some(spool) = self.spool.filter(|_| !self.buffer.is_empty()) else { return };
        let number = self.progress.borrow().batches;
        if self.dropped > 0 {
            let message = format!("{} dropped here: the spool was full", count(self.dropped, "line"));
            let (level, source) = (Some(Level::Warn), "logtier");
            let gap = NewRecord { ts: None, level, source, message: message.as_bytes(), partial: false };
            let mut with_gap = Vec::new();
            gap.write(&mut with_gap);
            self.buffer.splice(..0, with_gap);
        }
        let size = self.buffer.len() as u64;
        let fits = size <= self.left;
        match fits.then(|| spool.write_batch(number, &self.buffer)) {
            Some(Ok(())) => {
                self.left -= size;
                self.dropped = 0;
                self.progress.send_modify(|progress| progress.batches += 1);
            }
            failed => {
                if self.dropped == 0 {
                    let why = match failed {
                        Some(Err(error)) => error.to_string(),
                        _ => "it is full".to_owned(),
                    };
                    eprintln!("logtier: the spool takes no more ({why}); lines are dropped");
                }
                self.dropped += self.lines;
            }
        }
        self.buffer.clear();
        self.lines = 0;
    }

    fn finish(&mut self, outcome: FinishedAs) {
        self.flush();
        if let Some(Err(error)) = self.spool.map(|spool| spool.write_finish(outcome)) {
            eprintln!("logtier: note the end of the run: {error}");
        }
        self.progress.send_modify(|progress| progress.finished = true);
    }
}

/// Reads one of the command's streams to its end: passes it through and records its lines.
async fn copy(
    pipe: Option<impl AsyncRead + Unpin>,
    mut through: Box<dyn AsyncWrite + Unpin>,
    source: String,
    recorder: &RefCell<Recorder<'_>>,
    clock: &Clock,
) {
    let Some(mut pipe) = pipe else { return };
    let (mut chunk, mut line, mut open) = (vec![0; 64 << 10], Vec::new(), true);
    loop {
        let read = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => &chunk[..read],
        };
        let ts = Some(clock.now().timestamp());
        let record = |message: &[u8], partial: bool| {
            recorder.borrow_mut().add(&NewRecord { ts, level: None, source: &source, message, partial });
        };
        split(read, &mut line, record);
        // Whoever reads us may go away; the log goes on.
        open = open && through.write_all(read).await.is_ok() && through.flush().await.is_ok();
    }
    if !line.is_empty() {
        let ts = Some(clock.now().timestamp());
        recorder.borrow_mut().add(&NewRecord { ts, level: None, source: &source, message: &line, partial: false });
    }
}

/// Gives out the lines of what was read; `line` keeps the one that has no end yet.
fn split(mut read: &[u8], line: &mut Vec<u8>, record: impl Fn(&[u8], bool)) {
    while let Some(at) = memchr::memchr(b'\n', read) {
        line.extend_from_slice(&read[..at]);
        record(line, false);
        line.clear();
        read = &read[at + 1..];
    }
    line.extend_from_slice(read);
    while line.len() >= PIECE_BYTES {
        let cut = char_boundary(&line[..PIECE_BYTES]);
        record(&line[..cut], true);
        line.drain(..cut);
    }
}

async fn run_command(
    session: &Session,
    args: &ExecArgs,
    instance: &str,
    recorder: &RefCell<Recorder<'_>>,
    streams: Streams,
) -> Ended {
    let mut signals = Signals::listen();
    let mut child = match spawn(session, args, instance) {
        Ok(child) => child,
        Err(error) => {
            let message = format!("cannot run {}: {error}", args.command[0]);
            eprintln!("logtier: {message}");
            note(session, recorder, &message);
            // As shells do.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return Ended { code, outcome: FinishedAs::Failed };
        }
    };
    let source = |stream: &str| args.source.as_ref().map_or_else(|| stream.to_owned(), |who| format!("{who}/{stream}"));
    let clock = &session.clock;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let copies = async {
        tokio::join!(
            copy(stdout, streams.stdout, source("stdout"), recorder, clock),
            copy(stderr, streams.stderr, source("stderr"), recorder, clock),
        )
    };
    let mut copies = std::pin::pin!(copies);
    let (mut status, mut copied, mut asked_to_end) = (None, false, Vec::new());
    while status.is_none() || !copied {
        tokio::select! {
            _ = &mut copies, if !copied => copied = true,
            ended = child.wait(), if status.is_none() => status = Some(ended),
            signal = signals.next() => {
                if status.is_some() {
                    // The command is over, and something that it left behind holds its output open.
                    break;
                }
                asked_to_end.push(signal);
                forward(&child, signal);
            }
            () = clock.sleep(BATCH_EVERY) => recorder.borrow_mut().flush(),
        }
    }
    match status {
        Some(Ok(status)) => {
            if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
                let name =
                    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |name| name.to_string());
                note(session, recorder, &format!("the command was ended by {name}"));
            }
            judge(status, &asked_to_end)
        }
        _ => Ended { code: 1, outcome: FinishedAs::Failed },
    }
}

/// What happened to the command and stands in no output of its own.
fn note(session: &Session, recorder: &RefCell<Recorder<'_>>, message: &str) {
    let (level, ts) = (Some(Level::Error), Some(session.clock.now().timestamp()));
    let (source, message) = ("logtier", message.as_bytes());
    recorder.borrow_mut().add(&NewRecord { ts, level, source, message, partial: false });
}

fn spawn(session: &Session, args: &ExecArgs, instance: &str) -> std::io::Result<Child> {
    Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("LOGTIER_APP", &session.app)
        .env("LOGTIER_INSTANCE", instance)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The signals that ask a program to end.
struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    fn listen() -> Self {
        let kinds = [
            (Signal::SIGTERM, SignalKind::terminate()),
            (Signal::SIGINT, SignalKind::interrupt()),
            (Signal::SIGHUP, SignalKind::hangup()),
            (Signal::SIGQUIT, SignalKind::quit()),
        ];
        Self(kinds.into_iter().filter_map(|(name, kind)| Some((name, signal(kind).ok()?))).collect())
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (name, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

fn forward(child: &Child, signal: Signal) {
    use std::io::IsTerminal as _;
    // Ctrl-C on a terminal reaches the command by itself; twice would mean "at once" to many.
    if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && std::io::stdin().is_terminal() {
        return;
    }
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal);
    }
}

/// The exit code to pass on, as shells write it, and the outcome that it stands for.
fn judge(status: ExitStatus, asked_to_end: &[Signal]) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(255),
        (None, None) => 1,
    };
    let obeyed = asked_to_end.iter().any(|&signal| i32::from(code) == 128 + signal as i32);
    let outcome = match code {
        0 => FinishedAs::Succeeded,
        _ if obeyed => FinishedAs::Cancelled,
        _ => FinishedAs::Failed,
    };
    Ended { code, outcome }
}

/// Some time after the command's end.
async fn after_end(session: &Session, grace: Duration, mut watched: watch::Receiver<Progress>) {
    let _ = watched.wait_for(|progress| progress.finished).await;
    session.clock.sleep(grace).await;
}

/// Delivers what earlier runs left; what does not work stays for the next run.
async fn deliver_older(root: &Path, session: &Session, grace: Duration, watched: watch::Receiver<Progress>) {
    let mut patience = Patience::quiet(Duration::ZERO);
    tokio::select! {
        // The own log says what is wrong with the daemon.
        _ = spool::deliver_waiting(&session.client, root, Whose::ThisDaemons, &mut patience) => {}
        () = after_end(session, grace, watched) => {}
    }
}

/// Ships this run's log; gives up some time after the command's end.
async fn deliver_own(spool: &Spool, session: &Session, grace: Duration, watched: watch::Receiver<Progress>) {
    let mut ending = watched.clone();
    let shipped = tokio::select! {
        shipped = ship(spool, session, watched.clone()) => shipped.map_err(Some),
        () = after_end(session, grace, watched) => Err(None),
    };
    // The folder is still written to until then.
    let _ = ending.wait_for(|progress| progress.finished).await;
    let why = match shipped {
        Ok(()) => return,
        Err(Some(error)) if error.is_refusal() => {
            let kept = spool.set_aside().unwrap_or_else(|_| spool.dir.clone());
            eprintln!("logtier: the daemon refuses the log ({error}); it is kept in {}", kept.display());
            return;
        }
        Err(Some(error)) => error.to_string(),
        Err(None) => format!("it took longer than {}", output::span(grace)),
    };
    eprintln!("logtier: the log is not delivered yet, at least not to its end: {why}");
    eprintln!("It waits in {}; the next `logtier exec`, or `logtier push --spool`, delivers it.", spool.dir.display());
}

/// Delivers batch after batch as they are written. Failures that may pass are borne while the
/// command runs; after its end there is one more try.
async fn ship(spool: &Spool, session: &Session, mut watched: watch::Receiver<Progress>) -> Result<(), DeliveryError> {
    let (mut next, mut declared, mut retry) = (0, false, FIRST_RETRY);
    loop {
        let progress = *watched.borrow_and_update();
        // After the end a busy daemon is waited for as long as our caller allows, an absent one is not.
        let mut patience =
            if progress.finished { Patience::while_it_answers() } else { Patience::quiet(Duration::ZERO) };
        let tried = if !declared {
            spool.declare(&session.client, &mut patience).await
        } else if next < progress.batches {
            spool.deliver_batch(next, &session.client, &mut patience).await
        } else if progress.finished {
            return spool.close(&session.client, &mut patience).await;
        } else {
            let _ = watched.changed().await;
            continue;
        };
        match tried {
            Ok(()) => {
                next += u64::from(declared);
                declared = true;
                retry = FIRST_RETRY;
            }
            Err(error) if error.is_transient() && !progress.finished => {
                tokio::select! {
                    () = session.clock.sleep(retry) => {}
                    _ = watched.wait_for(|progress| progress.finished) => {}
                }
                retry = (retry * 2).min(LAST_RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::client::Client;
    use super::super::output::Out;
    use super::super::testing::{Answer, Seen, Server};
    use super::*;

    struct Run {
        ended: Ended,
        /// What waits in the spool afterwards.
        left: usize,
    }

    async fn exec_at(url: &str, root: &Path, script: &str) -> Run {
        exec_with(url, root, &[], script).await
    }

    async fn exec_with(url: &str, root: &Path, flags: &[&str], script: &str) -> Run {
        exec_command(url, root, flags, &["sh", "-c", script]).await
    }

    async fn exec_command(url: &str, root: &Path, flags: &[&str], command: &[&str]) -> Run {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ExecArgs,
        }
        let spool = root.to_str().expect("text");
        let words = ["exec", "--job", "j", "--instance", "r", "--spool", spool];
        let words = words.iter().chain(flags).chain(&["--"]).chain(command);
        let args = <Line as clap::Parser>::parse_from(words).args;
        let clock = Clock::default();
        let client = Client::new(url, None, clock.clone()).expect("an address");
        let session = Session { client, app: "default".into(), clock, out: Out::into(std::io::sink()) };
        let streams = Streams { stdout: Box::new(tokio::io::sink()), stderr: Box::new(tokio::io::sink()) };
        let ended = run(&session, &args, streams).await;
        Run { ended, left: std::fs::read_dir(root).expect("there").count() }
    }

    fn ok() -> Answer {
        Answer::json(200, &serde_json::json!({}))
    }

    /// The `source` and `message` of all records of the requests, by source.
    fn shipped(seen: &[Seen]) -> Vec<(String, String)> {
        let bodies = seen.iter().filter(|seen| seen.target.contains("/records")).map(Seen::text);
        let mut records: Vec<(String, String)> = bodies
            .flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>())
            .map(|line| {
                let record: serde_json::Value = serde_json::from_str(&line).expect("a record");
                let member = |name: &str| record[name].as_str().expect("text").to_owned();
                (member("source"), member("message"))
            })
            .collect();
        records.sort();
        records
    }

    #[tokio::test]
    async fn output_and_end_are_shipped_and_the_code_passed_on() {
        let root = tempfile::tempdir().expect("a folder");
        let server = Server::with(|_| ok()).await;
        let run = exec_with(&server.url, root.path(), &["--source", "w"], "echo out; printf err >&2; exit 3").await;
        assert_eq!((run.ended, run.left), (Ended { code: 3, outcome: FinishedAs::Failed }, 0));
        let seen = server.seen();
        assert_eq!((seen[0].method.as_str(), seen[0].text().as_str()), ("PUT", r#"{"job":"j"}"#));
        let expected = [("w/stderr", "err"), ("w/stdout", "out")].map(|(s, m)| (s.to_owned(), m.to_owned()));
        assert_eq!(shipped(&seen), expected);
        assert_eq!(seen.last().map(Seen::text).as_deref(), Some(r#"{"job":"j","outcome":"failed"}"#));
    }

    #[tokio::test]
    async fn without_a_daemon_the_spool_waits_for_the_next_run() {
        let root = tempfile::tempdir().expect("a folder");
        let run = exec_at("http://127.0.0.1:1", root.path(), "echo lost?").await;
        assert_eq!((run.ended, run.left), (Ended { code: 0, outcome: FinishedAs::Succeeded }, 1));
        // The same daemon, back again at the address that the spool is for.
        let server = Server::with(|_| ok()).await;
        let meta = std::fs::read_dir(root.path()).expect("there").next().expect("one").expect("readable").path();
        let meta = meta.join("meta.json");
        let text = std::fs::read_to_string(&meta).expect("there").replace("http://127.0.0.1:1", &server.url);
        std::fs::write(&meta, text).expect("written");
        let run = exec_at(&server.url, root.path(), "exit 0").await;
        assert_eq!(run.left, 0);
        assert_eq!(shipped(&server.seen()), [("stdout".to_owned(), "lost?".to_owned())]);
    }

    #[tokio::test]
    async fn a_lost_answer_makes_no_repeat() {
        let root = tempfile::tempdir().expect("a folder");
        let stored: Arc<Mutex<Vec<String>>> = Arc::default();
        let (keys, mut answers) = (Arc::clone(&stored), 0);
        let server = Server::with(move |seen| {
            if seen.target.contains("/records") {
                let mut keys = keys.lock().expect("unpoisoned");
                let key = seen.header("idempotency-key").to_owned();
                if !keys.contains(&key) {
                    keys.push(key);
                }
                answers += 1;
                // The first answer of each batch is lost after the batch was stored.
                return if answers % 2 == 1 { Answer::status(502) } else { ok() };
            }
            ok()
        })
        .await;
        let run = exec_at(&server.url, root.path(), "echo a; sleep 0.5; echo b").await;
        assert_eq!((run.ended.code, run.left), (0, 0));
        assert_eq!(stored.lock().expect("unpoisoned").len(), 2);
    }

    #[tokio::test]
    async fn a_log_that_is_refused_changes_nothing_for_the_command() {
        let root = tempfile::tempdir().expect("a folder");
        let server = Server::with(|_| Answer::problem(410, "deleted")).await;
        let run = exec_at(&server.url, root.path(), "echo a; sleep 0.4; echo b; exit 5").await;
        assert_eq!((run.ended.code, run.left), (5, 1));
        let kept = std::fs::read_dir(root.path()).expect("there").next().expect("one").expect("readable");
        assert!(kept.file_name().to_string_lossy().starts_with("refused-"));
        assert!(kept.path().join("finish.json").exists());
    }

    #[tokio::test]
    async fn a_full_spool_drops_lines_and_says_so() {
        let root = tempfile::tempdir().expect("a folder");
        let run = exec_with("http://127.0.0.1:1", root.path(), &["--spool-limit", "0"], "echo a").await;
        assert_eq!((run.ended.code, run.left), (0, 1));
    }

    #[tokio::test]
    async fn what_cannot_run_ends_as_in_a_shell() {
        let root = tempfile::tempdir().expect("a folder");
        let server = Server::with(|_| ok()).await;
        let run = exec_at(&server.url, root.path(), "exec /nowhere/to/be/found 2>/dev/null").await;
        assert_eq!(run.ended.code, 127);
        let run = exec_command(&server.url, root.path(), &[], &["/nowhere/to/be/found"]).await;
        assert_eq!(run.ended.code, 127);
        let shipped_so_far = shipped(&server.seen());
        assert!(shipped_so_far.iter().any(|(_, said)| said.starts_with("cannot run /nowhere/to/be/found")));
        let run = exec_at(&server.url, root.path(), "kill -TERM $$").await;
        assert_eq!(run.ended, Ended { code: 143, outcome: FinishedAs::Failed });
        let said = ("logtier".to_owned(), "the command was ended by SIGTERM".to_owned());
        assert!(shipped(&server.seen()).contains(&said), "{:?}", server.seen());
    }

    #[test]
    fn an_end_that_was_asked_for_is_a_cancellation() {
        use std::os::unix::process::ExitStatusExt as _;
        let cases = [
            (0, vec![Signal::SIGTERM], 0, FinishedAs::Succeeded),
            (15, vec![Signal::SIGTERM], 143, FinishedAs::Cancelled),
            (143 << 8, vec![Signal::SIGTERM], 143, FinishedAs::Cancelled),
            (9, vec![Signal::SIGTERM], 137, FinishedAs::Failed),
            (15, vec![], 143, FinishedAs::Failed),
            (7 << 8, vec![], 7, FinishedAs::Failed),
        ];
        for (raw, signals, code, outcome) in cases {
            assert_eq!(judge(ExitStatus::from_raw(raw), &signals), Ended { code, outcome }, "{raw}");
        }
    }

    #[test]
    fn lines_without_end_go_in_pieces() {
        let (mut line, records) = (Vec::new(), RefCell::new(Vec::new()));
        let endless = "é".repeat(PIECE_BYTES).into_bytes();
        for part in endless.chunks(65_537) {
            split(part, &mut line, |message, partial| records.borrow_mut().push((message.to_vec(), partial)));
            assert!(line.len() < PIECE_BYTES + 65_537);
        }
        split(b"\nnext\r\nrest", &mut line, |message, partial| records.borrow_mut().push((message.to_vec(), partial)));
        let records = records.into_inner();
        let joined: Vec<u8> = records.iter().take(records.len() - 1).flat_map(|(message, _)| message.clone()).collect();
        assert_eq!(joined, endless);
        assert_eq!(records.last(), Some(&(b"next\r".to_vec(), false)));
        assert_eq!(line, b"rest");
        let instance = new_instance(&"é".repeat(200), &Clock::default());
        assert!(instance.len() <= 255 && instance.contains("T"), "{instance}");
    }
}
