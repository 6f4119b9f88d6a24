//! The configuration: one TOML file and the environment, as settings that have been checked.
//!
//! ```text
//!   file + environment ──► Source ──► File ──► Config
//!                          (text,     (names,  (values with meaning,
//!                           spans)     types)   checked against each other)
//! ```
//!
//! `source` puts the environment's overrides into the file's tree, `file` is the shape of the
//! file, and each section's own file checks its values. Nothing is changed silently: whatever is
//! unknown, malformed or contradictory is refused, all of it at once, with file, line, text and remedy.
//!
//! Without a file and without the URLs of the tiers, both tiers are embedded in `data_dir`. That
//! must never happen to a node of a cluster by accident, hence the rules in `refuse_private_island`
//! and `LOGTIER_REQUIRE_CONFIG`.

mod archive;
mod check;
mod cold;
mod file;
#[cfg(test)]
mod fuzz;
mod hot;
mod problem;
mod protocol;
mod purge;
mod retention;
#[cfg(test)]
mod sample;
mod schedule;
mod scrub;
mod secret;
mod server;
mod source;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use check::Checker;
use source::Source;
pub use source::strangers;

pub use archive::Archive;
pub use cold::Cold;
pub use hot::{DbUrl, Hot, HotServer};
pub use problem::{Mistake, Problem, Problems};
pub use protocol::{PowerJob, PowerJobS3, Protocol};
pub use purge::Purge;
pub use retention::Retention;
pub use schedule::Schedule;
pub use scrub::Scrub;
pub use secret::Secret;
pub use server::{Ingest, Log, LogFormat, Server};
pub use units::{parse_age, parse_size, parse_span, show_age, show_size, show_span};

/// Environment variables.
pub type Env = BTreeMap<String, String>;

/// This process's environment, without what is no UTF-8.
pub fn process_env() -> Env {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The settings of a daemon. A value that exists has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where the embedded tiers live; absolute.
    pub data_dir: PathBuf,
    pub server: Server,
    pub hot: Hot,
    pub cold: Cold,
    pub archive: Archive,
    pub purge: Purge,
    pub scrub: Scrub,
    pub ingest: Ingest,
    pub retention: Retention,
    pub log: Log,
    pub protocol: Protocol,
}

impl Config {
    /// Reads the file at `path`, else the one that `LOGTIER_CONFIG` names, else none.
    pub fn load(path: Option<&Path>, env: &Env) -> Result<Self, Problems> {
        let named = env.get("LOGTIER_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        let Some(path) = path.map(Path::to_owned).or(named) else {
            let source = Source::new("", "", env);
            refuse_missing(&source, env)?;
            return Self::check(&source, env);
        };
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(&path).map_err(|error| Problem::without_place(check::unreadable(&name, &error)))?;
        Ok(Self { file: Some(path), ..Self::from_toml(&text, &name, env)? })
    }

    /// Reads `text`; `file_name` is for the reports of problems.
    pub fn from_toml(text: &str, file_name: &str, env: &Env) -> Result<Self, Problems> {
        Self::check(&Source::new(file_name, text, env), env)
    }

    fn check(source: &Source, env: &Env) -> Result<Self, Problems> {
        let tree = source.tree()?;
        let (file, misshapen) = source.shape(&tree)?;
        let mut check = Checker::new(source, &tree, env, misshapen);
        let here = PathBuf::from("logtier-data");
        let data_dir = file.data_dir.unwrap_or_else(|| here.to_string_lossy().into_owned());
        let data_dir = check.parse("data_dir", Some(data_dir), here, hot::absolute);
        let (hot, cold) = (file.hot.unwrap_or_default(), file.cold.unwrap_or_default());
        let (hot_is_set, cold_is_set) = (hot.url.is_some() || hot.server.is_some(), cold.url.is_some());
        let hot = Hot::check(hot, &data_dir, &mut check);
        let cold = Cold::check(cold, &data_dir, &mut check);
        if let Some(cold) = &cold {
            refuse_private_island(&hot, hot_is_set, cold, cold_is_set, &mut check);
        }
        let server = Server::check(file.server.unwrap_or_default(), &mut check);
        let ingest = Ingest::check(file.ingest.unwrap_or_default(), server.max_body_size, &mut check);
        let archive = Archive::check(file.archive.unwrap_or_default(), &mut check);
        let zone = archive.as_ref().map_or(chrono_tz::Tz::UTC, |archive| archive.schedule.zone());
        let purge = Purge::check(file.purge.unwrap_or_default(), zone, &mut check);
        let scrub = Scrub::check(file.scrub.unwrap_or_default(), &mut check);
        let retention = Retention::check(file.retention.unwrap_or_default(), &mut check);
        let log = Log::check(file.log.unwrap_or_default(), &mut check);
        let protocol = Protocol::check(file.protocol.unwrap_or_default(), &mut check);
        refuse_one_port_for_two(server.listen, &protocol, &mut check);

        let whole = cold.zip(archive).zip(retention);
        check.done(whole.map(|((cold, archive), retention)| Self {
            file: None,
            data_dir,
            server,
            hot,
            cold,
            archive,
            purge,
            scrub,
            ingest,
            retention,
            log,
            protocol,
        }))
    }
}

/// Two listeners at one place: the second could not open its port.
fn refuse_one_port_for_two(listen: SocketAddr, protocol: &Protocol, check: &mut Checker<'_>) {
    let mut taken = vec![("server", listen)];
    for (name, address) in protocol.listeners() {
        let collides = |other: SocketAddr| {
            let same_ip = other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && address.port() != 0 && same_ip
        };
        if let Some((other, _)) = taken.iter().find(|(_, other)| collides(*other)) {
            let mistake = Mistake::new(format!("{address} is the port of {other}.listen, too"));
            check.refuse(&format!("{name}.listen"), mistake.help("give each its own"));
        }
        taken.push((name, address));
    }
}

/// `LOGTIER_REQUIRE_CONFIG=1` says that this daemon must not start on the embedded default.
fn refuse_missing(source: &Source, env: &Env) -> Result<(), Problem> {
    let required = env.get("LOGTIER_REQUIRE_CONFIG").is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    if !required || source.overrides("hot.url") || source.overrides("cold.url") {
        return Ok(());
    }
    let mistake = Mistake::new("LOGTIER_REQUIRE_CONFIG is set, but there is no configuration")
        .help("name a file with --config or LOGTIER_CONFIG, or set LOGTIER_HOT__URL and LOGTIER_COLD__URL");
    Err(Problem::without_place(mistake))
}

/// Embedded tiers are used only when neither URL is set, and a database that other daemons can
/// reach goes only with a store that they can reach too.
fn refuse_private_island(hot: &Hot, hot_is_set: bool, cold: &Cold, cold_is_set: bool, check: &mut Checker<'_>) {
    let one_alone = |set: &str, unset: &str, example: &str| {
        Mistake::new(format!("{set} is set, but {unset} is not"))
            .help(format!("set both, or none for embedded tiers: {unset} = \"{example}\""))
    };
    match (hot_is_set, cold_is_set) {
        (true, false) => check.refuse("hot.url", one_alone("hot.url", "cold.url", "s3://bucket/logtier")),
        (false, true) => check.refuse("cold.url", one_alone("cold.url", "hot.url", "mysql://logtier@db/logtier")),
        _ => {}
    }
    let hot_is_shared = hot.servers.iter().any(|server| !server.url.is_sqlite());
    if hot_is_shared && cold_is_set && cold.folder().is_some() && !cold.shared {
        let mistake =
            Mistake::new("a MySQL hot tier with a local folder: other daemons could not read what this one archives");
        check.refuse(
            "cold.url",
            mistake.help("use a bucket, or say with cold.shared = true that the folder is the same for all daemons"),
        );
    }
}
