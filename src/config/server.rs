//! How the daemon meets its clients and its operators: the listener, what it takes in, its own log.

use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::secret::Secret;
use super::units::{parse_size, parse_span, show_size};

const MIB: u64 = 1 << 20;

/// The HTTP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Loopback, unless a token is set or `allow_anonymous` is.
    pub listen: SocketAddr,
    /// What clients must send as bearer token.
    pub token: Option<Secret>,
    pub allow_anonymous: bool,
    /// The most bytes of a request's body after decompression.
    pub max_body_size: u64,
    /// How long accepted requests may take to finish after SIGTERM.
    pub drain_timeout: Duration,
}

impl Server {
    pub(super) fn check(file: file::Server, check: &mut Checker<'_>) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 7710));
        let listen = check.parse("server.listen", file.listen, loopback, parse_address);
        let token_was_given = file.token.is_some() || file.token_file.is_some();
        let token = check.secret("server.token", file.token, file.token_file);
        if token.as_ref().is_some_and(|token| !token.expose().bytes().all(|byte| byte.is_ascii_graphic())) {
            let mistake = Mistake::new("a token may hold only visible ASCII characters, no spaces");
            check.refuse("server", mistake);
        }
        let allow_anonymous = file.allow_anonymous.unwrap_or(false);
        if allow_anonymous && token_was_given {
            let mistake = Mistake::new("allow_anonymous = true would make the token worthless");
            check.refuse("server.allow_anonymous", mistake.help("remove one of them"));
        }
        if !listen.ip().is_loopback() && !token_was_given && !allow_anonymous {
            let mistake = Mistake::new(format!("on {listen} everyone could read and delete logs"));
            check.refuse(
                "server.listen",
                mistake.help("set server.token_file, or server.allow_anonymous = true if that is what you want"),
            );
        }
        let max_body_size = check.parse("server.max_body_size", file.max_body_size, 16 * MIB, parse_size);
        check.within("server.max_body_size", &max_body_size, &(MIB..=1024 * MIB), |bytes| show_size(*bytes));
        let drain_timeout =
            check.parse("server.drain_timeout", file.drain_timeout, Duration::from_secs(10), parse_span);
        Self { listen, token, allow_anonymous, max_body_size, drain_timeout }
    }
}

/// What the daemon takes in.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// A record with more bytes than that is stored in several pieces.
    pub max_record_size: u64,
    /// The most bytes that wait for their commit; beyond that the answer is 503.
    pub queue_size: u64,
    /// How long the key of a batch is remembered.
    pub dedup_window: Duration,
}

impl Ingest {
    pub(super) fn check(file: file::Ingest, max_body_size: u64, check: &mut Checker<'_>) -> Self {
        let max_record_size = check.parse("ingest.max_record_size", file.max_record_size, MIB, parse_size);
        check.within("ingest.max_record_size", &max_record_size, &(1024..=8 * MIB), |bytes| show_size(*bytes));
        let queue_size = check.parse("ingest.queue_size", file.queue_size, 64 * MIB, parse_size);
        if queue_size < max_body_size {
            let (queue, body) = (show_size(queue_size), show_size(max_body_size));
            let mistake = Mistake::new(format!("a queue of {queue} could never take a body of max_body_size, {body}"));
            check.refuse("ingest.queue_size", mistake.help("raise ingest.queue_size or lower server.max_body_size"));
        }
        let day = Duration::from_secs(86_400);
        let dedup_window = check.parse("ingest.dedup_window", file.dedup_window, day, parse_span);
        Self { max_record_size, queue_size, dedup_window }
    }
}

/// The daemon's own log, on stderr.
#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or directives of `tracing_subscriber::EnvFilter`, which have been parsed once.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Log {
    pub(super) fn check(file: file::Log, check: &mut Checker<'_>) -> Self {
        let format = check.parse("log.format", file.format, LogFormat::Text, |format| match format {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(Mistake::new(format!("unknown format \"{format}\"")).help("write \"text\" or \"json\"")),
        });
        let level = check.parse("log.level", file.level, "info".to_owned(), parse_level);
        Self { format, level }
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(format!("\"{text}\" is no address with a port"))
            .help("write \"127.0.0.1:7710\", \"0.0.0.0:7710\" or \"[::1]:7710\"")
    })
}

/// `EnvFilter` takes a misspelt level for the name of a module, so lone words are checked here.
fn parse_level(text: &str) -> Result<String, Mistake> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for word in text.split(',').map(str::trim).filter(|directive| !directive.contains(['=', '['])) {
        if !LEVELS.contains(&word) {
            return Err(Mistake::new(format!("unknown level \"{word}\"")).suggest(word, LEVELS));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| Mistake::new(error.to_string()).help("write \"info\", or \"info,logtier::archive=debug\""))
}
