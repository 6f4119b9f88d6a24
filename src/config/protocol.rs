//! Other systems' protocols, each off unless its table is there.

use std::net::SocketAddr;

use chrono_tz::Tz;
use url::Url;

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::schedule::parse_zone;
use super::secret::Secret;
use super::server::parse_address;
use super::units::{parse_size, show_size};
use crate::model::App;

const DEFAULT_APP: &str = "powerjob";

/// The protocols that are spoken.
#[derive(Debug, Clone, Default)]
pub struct Protocol {
    pub powerjob: Option<PowerJob>,
    pub powerjob_s3: Option<PowerJobS3>,
}

/// The listener that workers report to and the console reads from.
#[derive(Debug, Clone)]
pub struct PowerJob {
    pub listen: SocketAddr,
    /// Where the PowerJob server takes its workers' reports. Without it nothing is forwarded there.
    pub server: Option<Url>,
    /// Where the PowerJob server has its console. Without it nothing is forwarded there.
    pub console: Option<Url>,
    pub app: App,
    /// The zone in which PowerJob writes times into its files.
    pub timezone: Tz,
    /// What download links begin with; without it, the host that the request named.
    pub public_url: Option<Url>,
}

/// The S3 endpoint that stands for PowerJob's MinIO.
#[derive(Debug, Clone)]
pub struct PowerJobS3 {
    pub listen: SocketAddr,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: Secret,
    pub app: App,
    /// The zone in which PowerJob writes times into its files.
    pub timezone: Tz,
    /// The most bytes of one file.
    pub max_file_size: u64,
}

impl Protocol {
    /// The ports that are opened, by the name of their table.
    pub fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let powerjob = self.powerjob.as_ref().map(|table| ("protocol.powerjob", table.listen));
        powerjob.into_iter().chain(self.powerjob_s3.as_ref().map(|table| ("protocol.powerjob_s3", table.listen)))
    }

    pub(super) fn check(file: file::Protocol, check: &mut Checker<'_>) -> Self {
        Self {
            powerjob: file.powerjob.and_then(|table| PowerJob::check(table, check)),
            powerjob_s3: file.powerjob_s3.and_then(|table| PowerJobS3::check(table, check)),
        }
    }
}

impl PowerJob {
    fn check(file: file::PowerJob, check: &mut Checker<'_>) -> Option<Self> {
        let at = |name: &str| format!("protocol.powerjob.{name}");
        let listen = address(&at("listen"), file.listen, 7730, check);
        if !listen.ip().is_loopback() && !file.allow_anonymous.unwrap_or(false) {
            let mistake = Mistake::new(format!("on {listen} everyone could write and read logs of this app"));
            let help =
                "PowerJob's workers send no password: set allow_anonymous = true and close the port to all others";
            check.refuse(&at("listen"), mistake.help(help));
        }
        let mut url =
            |name: &str, text: Option<String>| check.parse(&at(name), text, None, |text| origin(text).map(Some));
        let (server, console) = (url("server", file.server), url("console", file.console));
        let public_url = url("public_url", file.public_url);
        Some(Self {
            listen,
            server,
            console,
            app: app(&at("app"), file.app, check)?,
            timezone: check.parse(&at("timezone"), file.timezone, Tz::UTC, parse_zone),
            public_url,
        })
    }
}

impl PowerJobS3 {
    fn check(file: file::PowerJobS3, check: &mut Checker<'_>) -> Option<Self> {
        let at = |name: &str| format!("protocol.powerjob_s3.{name}");
        let secret_key = check.secret(&at("secret_key"), file.secret_key, file.secret_key_file);
        if secret_key.is_none() || file.access_key.is_none() {
            let mistake = Mistake::new("access_key or secret_key is missing");
            let help = "set both, and the same as oms.storage.dfs.minio.accessKey and secretKey of PowerJob";
            check.refuse("protocol.powerjob_s3", mistake.help(help));
        }
        let bucket = check.parse(&at("bucket"), file.bucket, DEFAULT_APP.to_owned(), bucket_name);
        let max_file_size = check.parse(&at("max_file_size"), file.max_file_size, 1 << 30, parse_size);
        check.within(&at("max_file_size"), &max_file_size, &(1 << 20..=5 << 30), |bytes| show_size(*bytes));
        Some(Self {
            listen: address(&at("listen"), file.listen, 7720, check),
            bucket,
            access_key: file.access_key?,
            secret_key: secret_key?,
            app: app(&at("app"), file.app, check)?,
            timezone: check.parse(&at("timezone"), file.timezone, Tz::UTC, parse_zone),
            max_file_size,
        })
    }
}

fn address(path: &str, text: Option<String>, port: u16, check: &mut Checker<'_>) -> SocketAddr {
    check.parse(path, text, SocketAddr::from(([127, 0, 0, 1], port)), parse_address)
}

fn app(path: &str, text: Option<String>, check: &mut Checker<'_>) -> Option<App> {
    let text = text.unwrap_or_else(|| DEFAULT_APP.to_owned());
    check.parse(path, Some(text), None, |text| text.parse().map(Some).map_err(|error| Mistake::new(format!("{error}"))))
}

/// `http://host:port` and nothing behind it: paths are the client's.
fn origin(text: &str) -> Result<Url, Mistake> {
    let help = "write \"http://host:port\"";
    let url = Url::parse(text).map_err(|error| Mistake::new(format!("no URL: {error}")).help(help))?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    match url.scheme() {
        "http" | "https" if url.has_host() && is_bare => Ok(url),
        _ => Err(Mistake::new(format!("\"{text}\" is more or less than a scheme, a host and a port")).help(help)),
    }
}

/// S3's own rule, as far as PowerJob's client insists on it.
fn bucket_name(text: &str) -> Result<String, Mistake> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    match text.len() {
        3..=63 if text.chars().all(is_plain) => Ok(text.to_owned()),
        _ => Err(Mistake::new(format!("\"{text}\" is no name of an S3 bucket"))
            .help("3 to 63 lower-case letters, digits, \"-\" and \".\"")),
    }
}
