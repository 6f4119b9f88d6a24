//! The command line: what operators and scripts type.
//!
//! All commands but those of `daemon.rs` are clients of a daemon's HTTP interface and hold nothing
//! that another client could not. stdout carries data, stderr speaks to people, and exit codes are
//! grep's: 0 done or found, 1 nothing found, 2 an error; `exec` passes its command's code on.
#![allow(clippy::print_stderr, reason = "stderr is where a command speaks to people")]

mod args;
mod bench;
mod client;
mod daemon;
mod demo;
mod exec;
mod finish;
mod follow;
mod import;
mod lists;
mod logs;
mod man;
mod manage;
mod output;
mod pages;
mod progress;
mod push;
mod rebuild;
mod record;
mod render;
mod search;
mod split;
mod spool;
#[cfg(test)]
mod testing;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

use self::client::{Client, ClientError};
use self::output::{Out, OutputClosed};
use crate::clock::Clock;
use crate::telemetry::chain;

/// Where a daemon listens unless configured otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:7710";

/// Keeps the logs of job instances: recent ones in SQL tables, aged ones compressed in object
/// storage, and one reader over both.
#[derive(Debug, Parser)]
#[command(name = "logtier", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Apart from a command's own options in its help.
const GLOBAL: &str = "Options of all commands";

/// What every command understands.
#[derive(Debug, clap::Args)]
struct Global {
    /// The daemon to talk to
    #[arg(long, global = true, help_heading = GLOBAL, env = "LOGTIER_URL", value_name = "URL", default_value = DEFAULT_URL)]
    url: String,
    /// The app (namespace) that is meant; `default` if not given
    #[arg(long, global = true, help_heading = GLOBAL, env = "LOGTIER_APP", value_name = "APP")]
    app: Option<String>,
    /// Bearer token; safer in LOGTIER_TOKEN or a file than among the arguments
    #[arg(long, global = true, help_heading = GLOBAL, env = "LOGTIER_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the bearer token
    #[arg(long, global = true, help_heading = GLOBAL, env = "LOGTIER_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Configuration of the daemon, for the commands that work on its tiers themselves
    #[arg(long, global = true, help_heading = GLOBAL, env = "LOGTIER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve,
    /// Show one log's life on a daemon of its own, in a minute, leaving nothing behind
    Demo,
    /// Bring the tables of the hot tier to this version
    Migrate,
    /// Check that both tiers hold what the catalog says; changes nothing
    Verify(verify::VerifyArgs),
    /// Fill an empty or restored database from the bucket
    RebuildCatalog(rebuild::RebuildArgs),
    /// Look at the daemon's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Send a file, or stdin, as the log of an instance
    Push(push::PushArgs),
    /// Say that an instance is over
    Finish(finish::FinishArgs),
    /// Run a command, ship its output, finish by its exit code and pass that on
    Exec(exec::ExecArgs),
    /// Bring in the logs that another system stored
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Print the log of an instance
    Logs(logs::LogsArgs),
    /// Show what is known of an instance
    Show(lists::ShowArgs),
    /// List instances, newest first
    Ls(lists::LsArgs),
    /// Search the logs of many instances
    Grep(search::GrepArgs),
    /// Delete the log of an instance
    Rm(manage::RmArgs),
    /// Keep the log of an instance from being deleted or expired
    Hold(manage::HoldArgs),
    /// Look at retention rules
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Pause the deleting of rows from the database on all daemons, or go on
    #[command(subcommand)]
    Purge(PurgeCommand),
    /// Move what is due to the cold tier now
    Archive(manage::ArchiveArgs),
    /// Show how the daemon and its tiers are
    Status(manage::StatusArgs),
    Bench(bench::BenchArgs),
    /// Print a completion script for a shell
    Completions {
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of one command if it is named: `logtier man logs | man -l -`
    Man {
        command: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// Say which rule applies to an instance, and when what happens to it
    Explain(manage::ExplainArgs),
}

#[derive(Debug, Subcommand)]
enum PurgeCommand {
    /// Nothing is purged and nothing expires until `purge resume`
    Pause {
        /// For those who wonder; `logtier status` shows it
        #[arg(long, default_value = "no reason was given")]
        reason: String,
    },
    /// Go on with the archiver's next run
    Resume,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration, name its mistakes, and print what it comes to
    ///
    /// What follows from several settings together is told once each of them is in order.
    Check,
}

/// How a command ended, where it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Done, or found: 0.
    Done,
    /// Asked for something that is not there: 1.
    Nothing,
    /// Finished, but not all of it worked; said on stderr: 2.
    Flawed,
    /// The exit code of a command that `exec` ran, or one that says more.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::from(0),
            Exit::Nothing => Self::from(1),
            Exit::Flawed => Self::from(2),
            Exit::Code(code) => Self::from(code),
        }
    }
}

/// What a client command works with.
struct Session {
    client: Client,
    app: String,
    clock: Clock,
    out: Out,
}

/// The program: reads the arguments, runs the command, and gives the process's exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        // Someone downstream (`head`) has seen enough.
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { mut global, mut command } = cli;
    if let Command::Import(import) = &mut command {
        import.adopt(&mut global.url);
    }
    match command {
        Command::Serve => daemon::serve(global.config.as_deref()),
        Command::Migrate => daemon::migrate(global.config.as_deref()),
        Command::RebuildCatalog(args) => rebuild::rebuild(global.config.as_deref(), args),
        Command::Verify(args) => verify::verify(global.config.as_deref(), global.app.as_deref(), args),
        Command::Config(ConfigCommand::Check) => daemon::check_config(global.config.as_deref()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "logtier", &mut script);
            print(&script)
        }
        Command::Man { command } => print(&man::page(Cli::command(), command.as_deref())?),
        Command::Demo => daemon::runtime()?.block_on(demo::demo()),
        // Its clients want all cores.
        Command::Bench(args) => daemon::runtime()?.block_on(bench::bench(&global, args)),
        command => {
            let mut session = session(&global)?;
            // One thread is enough for a client; reads of stdin and files have their own.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
            let ended = runtime.block_on(run_client(&mut session, command));
            // A read of stdin that never ends must not keep the process.
            runtime.shutdown_background();
            let flushed = session.out.flush();
            let exit = ended?;
            flushed?;
            Ok(exit)
        }
    }
}

fn print(text: &[u8]) -> anyhow::Result<Exit> {
    let mut out = Out::stdout();
    out.write(text)?;
    out.flush()?;
    Ok(Exit::Done)
}

async fn run_client(session: &mut Session, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Push(args) => push::push(session, args).await,
        Command::Finish(args) => finish::finish(session, args).await,
        Command::Exec(args) => exec::exec(session, args).await,
        Command::Import(command) => import::import(session, command).await,
        Command::Logs(args) => logs::logs(session, args).await,
        Command::Show(args) => lists::show(session, args).await,
        Command::Ls(args) => lists::ls(session, args).await,
        Command::Grep(args) => search::grep(session, args).await,
        Command::Rm(args) => manage::rm(session, args).await,
        Command::Hold(args) => manage::hold(session, args).await,
        Command::Retention(RetentionCommand::Explain(args)) => manage::explain(session, args).await,
        Command::Purge(PurgeCommand::Pause { reason }) => manage::pause_purge(session, Some(&reason)).await,
        Command::Purge(PurgeCommand::Resume) => manage::pause_purge(session, None).await,
        Command::Archive(args) => manage::archive(session, args).await,
        Command::Status(args) => manage::status(session, args).await,
        Command::Serve
        | Command::Demo
        | Command::Migrate
        | Command::Verify(_)
        | Command::RebuildCatalog(_)
        | Command::Config(_)
        | Command::Bench(_)
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(Exit::Done),
    }
}

fn token(global: &Global) -> anyhow::Result<Option<String>> {
    let token = match (&global.token, &global.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(
            std::fs::read_to_string(file)
                .with_context(|| format!("read the token from {}", file.display()))?
                .trim()
                .to_owned(),
        ),
        (None, None) => None,
    };
    Ok(token)
}

fn session(global: &Global) -> anyhow::Result<Session> {
    let token = token(global)?;
    let clock = Clock::default();
    let client = Client::new(&global.url, token, clock.clone())?;
    let app = global.app.clone().unwrap_or_else(|| "default".to_owned());
    Ok(Session { client, app, clock, out: Out::stdout() })
}

/// What happened, and what to do next.
fn explain(error: &anyhow::Error) {
    eprintln!("logtier: {}", chain(error.as_ref()));
    if error.downcast_ref::<push::Advice>().is_some() {
        return;
    }
    if let Some(hint) = error.chain().find_map(|cause| cause.downcast_ref::<ClientError>()?.hint()) {
        eprintln!("{hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_manual_page() {
        for command in Cli::command().get_subcommands().map(clap::Command::get_name) {
            let page = man::page(Cli::command(), Some(command)).expect("a page");
            let page = String::from_utf8(page).expect("text");
            assert!(page.contains(&format!(".TH logtier-{command} 1")), "{page:.300}");
            assert!(page.contains("EXIT STATUS"), "{command}");
        }
        assert!(man::page(Cli::command(), Some("nothing")).is_err());
    }

    #[test]
    fn flags_stand_where_people_type_them() {
        for line in [
            "logtier push run-1 app.log --finish",
            "logtier push run-1 --finish=failed - --label a=b --label c=d --key k",
            "logtier push --spool",
            "logtier logs run-1 -f -n 20 -t --app billing",
            "logtier logs --job nightly --last-failed --grep ERR -C 3",
            "logtier logs run-1 -p --lines 10..20 -o ndjson",
            "logtier --url http://h:1 exec --job nightly -- sh -c 'exit 3'",
            "logtier hold run-1 --release",
            "logtier rm run-1 --dry-run",
            "logtier retention explain run-1 --attempt 2",
            "logtier purge pause --reason backup",
            "logtier purge resume",
            "logtier archive --dry-run --wait 10m",
            "logtier config check --config x.toml",
            "logtier verify --full --app billing --since 30d",
            "logtier verify --sample 1% -o json",
            "logtier rebuild-catalog --dry-run",
        ] {
            let words = line.split(' ').map(|word| word.trim_matches('\''));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
        for line in ["logtier logs", "logtier logs a --job b", "logtier logs a --lines 5", "logtier exec --job x"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
