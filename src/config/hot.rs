//! The hot tier: which database servers, and which of the shards each one holds.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::secret::Secret;

const DEFAULT_SHARDS: u32 = 16;
const MOST_SHARDS: u32 = 256;
/// Eight connections wrote 700 000 lines a second (design); as many again for readers and the archiver.
const DEFAULT_CONNECTIONS: u32 = 16;

/// Characters of a path that mean something else in a URL.
const PATH_ESCAPES: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

/// The hot tier's servers and shards.
#[derive(Debug, Clone)]
pub struct Hot {
    /// By ascending shards; together they hold each of `0..shards` once. All of one engine.
    pub servers: Vec<HotServer>,
    /// A power of two, 1–256. Fixed when the tables are created.
    pub shards: u32,
    /// The most connections that this daemon opens to each server.
    pub connections: u32,
}

/// One database server and the shards that it holds.
#[derive(Debug, Clone)]
pub struct HotServer {
    pub url: DbUrl,
    pub shards: Range<u32>,
    /// Copies that follow it; nothing is read from them but how far they are behind.
    pub replicas: Vec<DbUrl>,
}

/// Where a database is. Printing it shows no password.
#[derive(Clone)]
pub enum DbUrl {
    /// An absolute path.
    Sqlite(PathBuf),
    /// MySQL, MariaDB, or what speaks their protocol.
    MySql {
        /// Without the password.
        url: Url,
        password: Option<Secret>,
    },
}

impl DbUrl {
    /// The URL to connect with, password included: for the connection and nothing else.
    pub fn expose(&self) -> String {
        match self {
            Self::MySql { url, password: Some(password) } => {
                let mut url = url.clone();
                // `set_password` leaves a "%" as it is. It cannot fail: the URL has a host.
                let password = utf8_percent_encode(password.expose(), NON_ALPHANUMERIC).to_string();
                let _ = url.set_password(Some(&password));
                url.into()
            }
            Self::MySql { url, password: None } => url.as_str().to_owned(),
            Self::Sqlite(_) => format!("{self}?mode=rwc"),
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    fn sqlite(path: &str) -> Result<Self, Mistake> {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(":memory:") || path.contains('?') {
            return Err(Mistake::new("no path of an SQLite file")
                .help("write \"sqlite:///var/lib/logtier/hot.db\"; parameters and :memory: are not supported"));
        }
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| Mistake::new("the path is no UTF-8"))?;
        absolute(&decoded).map(Self::Sqlite)
    }

    fn mysql(text: &str) -> Result<Self, Mistake> {
        let help = "write \"mysql://user@host:3306/database\"; in a password, characters such as @ : / # are \
                    written as %40 %3A %2F %23, or use password_file";
        // The text is not repeated: it may hold the password.
        let mut url = Url::parse(text).map_err(|error| Mistake::new(format!("no URL: {error}")).help(help))?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(Mistake::new(format!("unknown database \"{}\"", url.scheme())).help("use mysql:// or sqlite:"));
        }
        if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() {
            return Err(Mistake::new("no host in the URL, or a \"#\" after it").help(help));
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(Mistake::new("no database in the URL").help(help));
        }
        let password = url
            .password()
            .map(|password| percent_decode_str(password).decode_utf8().map(Secret::new))
            .transpose()
            .map_err(|_| Mistake::new("the password is no UTF-8").help(help))?;
        // Cannot fail: the URL has a host.
        let _ = url.set_password(None);
        Ok(Self::MySql { url, password })
    }
}

/// `sqlite:PATH` or `mysql://…`.
impl FromStr for DbUrl {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        match text.strip_prefix("sqlite:") {
            Some(path) => Self::sqlite(path),
            None => Self::mysql(text),
        }
    }
}

impl fmt::Display for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", utf8_percent_encode(&path.to_string_lossy(), PATH_ESCAPES)),
            Self::MySql { url, .. } => write!(f, "{url}"),
        }
    }
}

impl fmt::Debug for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hot {
    pub(super) fn check(file: file::Hot, data_dir: &Path, check: &mut Checker<'_>) -> Self {
        let shards = check.number("hot.shards", file.shards, DEFAULT_SHARDS, 1..=i64::from(MOST_SHARDS));
        if !shards.is_power_of_two() {
            let near = shards.clamp(1, MOST_SHARDS).next_power_of_two();
            let mistake = Mistake::new(format!("{shards} is no power of two"));
            check.refuse("hot.shards", mistake.help(format!("write 1, 2, 4 … {MOST_SHARDS}, for example {near}")));
        }
        let connections = check.number("hot.connections", file.connections, DEFAULT_CONNECTIONS, 2..=1000);
        let password = check.secret("hot.password", file.password, file.password_file);
        let replicas = match (&file.url, file.replicas) {
            (None, Some(_)) => {
                check.refuse("hot.replicas", Mistake::new("replicas of no server: hot.url is not set"));
                Vec::new()
            }
            (_, urls) => replica_urls("hot.replicas", urls, password.as_ref(), check),
        };
        let mut servers = Vec::new();
        for (n, server) in file.server.into_iter().flatten().enumerate() {
            let path = format!("hot.server.{n}");
            servers.extend(HotServer::check(server, &path, shards, password.as_ref(), check));
        }
        servers.sort_by_key(|server| server.shards.start);
        let url = match file.url {
            Some(url) => db_url("hot.url", Some(url), password, check),
            None if servers.is_empty() => Some(DbUrl::Sqlite(data_dir.join("hot.db"))),
            None => None,
        };
        match holes(&servers, shards) {
            Err(mistake) => check.refuse("hot.server", mistake),
            Ok(holes) => match (url, holes.as_slice()) {
                (Some(url), [rest]) => servers.push(HotServer { url, shards: rest.clone(), replicas }),
                (None, []) => {}
                // What is wrong with the URL has been said.
                (None, _) if servers.is_empty() => {}
                (None, holes) => check.refuse(
                    "hot.server",
                    Mistake::new(format!("no server holds the shards {}", show_ranges(holes)))
                        .help("give them to a [[hot.server]], or set hot.url, which takes the shards that are left"),
                ),
                (Some(_), []) => check.refuse(
                    "hot.url",
                    Mistake::new("the servers of [[hot.server]] hold all shards, none is left for hot.url")
                        .help("remove hot.url, or a range"),
                ),
                (Some(_), holes) => check.refuse(
                    "hot.url",
                    Mistake::new(format!("the shards left for hot.url are several ranges, {}", show_ranges(holes)))
                        .help("a server holds one range: add a [[hot.server]]"),
                ),
            },
        }
        servers.sort_by_key(|server| server.shards.start);
        refuse_odd_servers(&servers, check);
        Self { servers, shards, connections }
    }
}

impl HotServer {
    fn check(
        file: file::HotServer,
        path: &str,
        shards: u32,
        shared_password: Option<&Secret>,
        check: &mut Checker<'_>,
    ) -> Option<Self> {
        let own = check.secret(&format!("{path}.password"), file.password, file.password_file);
        let password = own.or_else(|| shared_password.cloned());
        if file.url.is_none() {
            check.refuse(path, Mistake::new("a [[hot.server]] without url"));
        }
        if file.shards.is_none() {
            check.refuse(path, Mistake::new("a [[hot.server]] without shards").help("write shards = \"8-15\""));
        }
        let replicas = replica_urls(&format!("{path}.replicas"), file.replicas, password.as_ref(), check);
        let url = db_url(&format!("{path}.url"), file.url, password, check);
        let parse = |text: &str| parse_range(text, shards).map(Some);
        let shards = check.parse(&format!("{path}.shards"), file.shards, None, parse);
        Some(Self { url: url?, shards: shards?, replicas })
    }
}

fn db_url(path: &str, url: Option<String>, shared: Option<Secret>, check: &mut Checker<'_>) -> Option<DbUrl> {
    let url = check.parse(path, url, None, |text| text.parse().map(Some))?;
    match url {
        DbUrl::MySql { password: Some(_), .. } if shared.is_some() => {
            let mistake = Mistake::new("a password in the URL, and another in password or password_file");
            check.refuse(path, mistake.help("remove one of them"));
            None
        }
        DbUrl::MySql { url, password } => Some(DbUrl::MySql { url, password: password.or(shared) }),
        sqlite => Some(sqlite),
    }
}

/// URLs between spaces.
fn replica_urls(path: &str, urls: Option<String>, password: Option<&Secret>, check: &mut Checker<'_>) -> Vec<DbUrl> {
    let mut replicas = Vec::new();
    for url in urls.iter().flat_map(|urls| urls.split_whitespace()) {
        match db_url(path, Some(url.to_owned()), password.cloned(), check) {
            Some(DbUrl::Sqlite(_)) => check.refuse(path, Mistake::new("an SQLite file has no replica")),
            url => replicas.extend(url),
        }
    }
    replicas
}

/// `8-15`, both included, or `8`.
fn parse_range(text: &str, shards: u32) -> Result<Range<u32>, Mistake> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
        (Ok(first), Ok(last)) if first <= last && last < shards => Ok(first..last + 1),
        (Ok(first), Ok(last)) if first <= last => Err(Mistake::new(format!("\"{text}\" goes beyond the last shard"))
            .help(format!("shards are 0 to {}", shards - 1))),
        _ => Err(Mistake::new(format!("\"{text}\" is no range of shards")).help("write \"8-15\" or \"8\"")),
    }
}

/// The ranges of `0..shards` that no server holds. `servers` are sorted.
fn holes(servers: &[HotServer], shards: u32) -> Result<Vec<Range<u32>>, Mistake> {
    let mut holes = Vec::new();
    let mut next = 0;
    for server in servers {
        if server.shards.start < next {
            return Err(Mistake::new(format!("shard {} is given to two servers", server.shards.start)));
        }
        if server.shards.start > next {
            holes.push(next..server.shards.start);
        }
        next = server.shards.end;
    }
    if next < shards {
        holes.push(next..shards);
    }
    Ok(holes)
}

fn refuse_odd_servers(servers: &[HotServer], check: &mut Checker<'_>) {
    if servers.iter().any(|server| server.url.is_sqlite() != servers[0].url.is_sqlite()) {
        check.refuse("hot.server", Mistake::new("SQLite and MySQL servers in one hot tier"));
    }
    let mut urls: Vec<String> = servers.iter().map(|server| server.url.to_string()).collect();
    urls.sort();
    if let Some(twice) = urls.windows(2).find(|pair| pair[0] == pair[1]) {
        let mistake = Mistake::new(format!("{} is named twice", twice[0]));
        check.refuse("hot.server", mistake.help("a server holds one range of shards"));
    }
}

fn show_ranges(ranges: &[Range<u32>]) -> String {
    let show = |range: &Range<u32>| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}-{}", range.start, range.end - 1),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// `path` from the root, as seen from the working directory.
pub(super) fn absolute(path: &str) -> Result<PathBuf, Mistake> {
    std::path::absolute(path).map_err(|error| Mistake::new(format!("\"{path}\" is no path: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_kept_apart() {
        let url: DbUrl = "mysql://me:p%40ss%2Fw:rd@db:3307/logs?ssl-mode=REQUIRED".parse().expect("a URL");
        assert_eq!(format!("{url} {url:?}").matches("p%40ss").count(), 0);
        assert_eq!(url.to_string(), "mysql://me@db:3307/logs?ssl-mode=REQUIRED");
        let DbUrl::MySql { password: Some(password), .. } = &url else { panic!("{url}") };
        assert_eq!(password.expose(), "p@ss/w:rd");
        let again: DbUrl = url.expose().parse().expect("a URL");
        assert_eq!(again.expose(), url.expose());
        let odd =
            DbUrl::MySql { url: "mysql://me@db/x".parse().expect("a URL"), password: Some(Secret::new("50%25 @#?")) };
        let DbUrl::MySql { password, .. } = odd.expose().parse().expect("a URL") else { panic!("{odd}") };
        assert_eq!(password, Some(Secret::new("50%25 @#?")));
    }

    #[test]
    fn sqlite_paths_are_absolute() {
        let check = |text: &str, path: &str| match text.parse() {
            Ok(DbUrl::Sqlite(found)) => assert_eq!(found, std::path::absolute(path).expect("a path"), "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        check("sqlite:hot.db", "hot.db");
        check("sqlite://hot.db", "hot.db");
        check("sqlite:///var/a%20b.db", "/var/a b.db");
        let url: DbUrl = "sqlite:///var/a%20%3Fb.db".parse().expect("a URL");
        assert_eq!(url.expose(), "sqlite:///var/a%20%3Fb.db?mode=rwc");
        for bad in
            ["sqlite:", "sqlite::memory:", "sqlite:a.db?mode=ro", "postgres://h/d", "mysql://h", "mysql:///d", "db"]
        {
            assert!(bad.parse::<DbUrl>().is_err(), "{bad}");
        }
    }
}
