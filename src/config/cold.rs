//! The cold tier: which bucket or folder, how to get in, how to compress.

use std::path::{Path, PathBuf};

use url::Url;

use super::check::Checker;
use super::file;
use super::hot::absolute;
use super::problem::Mistake;
use super::secret::Secret;
use super::units::{parse_size, show_size};

/// The cold tier's store and its format.
#[derive(Debug, Clone)]
pub struct Cold {
    /// `s3://bucket/prefix`, `oss`, `gs`, `az`, `azure`, `abfs`, `abfss`, or `file:///folder`.
    pub url: Url,
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    /// `https://bucket.host/key` instead of `https://host/bucket/key`.
    pub virtual_hosted_style: bool,
    /// For Azure the account's name.
    pub access_key_id: Option<String>,
    /// For Azure the account's key.
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// Google's file of credentials (a service account, or application default credentials).
    pub credentials_file: Option<PathBuf>,
    /// Whether the endpoint is spoken to without TLS; its scheme says so.
    pub allow_http: bool,
    /// 1–19.
    pub zstd_level: i32,
    /// Bytes of NDJSON in a zstd frame, before compression; 64 KiB – 16 MiB.
    pub frame_size: u64,
    /// Whether objects get search filters.
    pub search_filters: bool,
    /// The operator says that a folder is the same for all daemons.
    pub shared: bool,
}

impl Cold {
    /// The folder, if the store is one.
    pub fn folder(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }

    pub(super) fn check(file: file::Cold, data_dir: &Path, check: &mut Checker<'_>) -> Option<Self> {
        let text = file.url.unwrap_or_else(|| data_dir.join("cold").to_string_lossy().into_owned());
        let url = check.parse("cold.url", Some(text), None, |text| parse_store(text).map(Some))?;
        let names = Names::of(url.scheme());
        let env = check.env;
        let from_env =
            |names: &[&str]| names.iter().find_map(|name| env.get(*name).filter(|value| !value.is_empty()).cloned());

        let endpoint = file.endpoint.or_else(|| from_env(names.endpoint));
        let endpoint = check.parse("cold.endpoint", endpoint, None, |text| parse_endpoint(text).map(Some));
        if url.scheme() == "oss" && endpoint.is_none() {
            let mistake = Mistake::new("oss needs an endpoint");
            check.refuse("cold.url", mistake.help("set cold.endpoint = \"https://oss-cn-hangzhou.aliyuncs.com\""));
        }
        let access_key_id = file.access_key_id.or_else(|| from_env(names.key_id));
        let secret_access_key = check
            .secret("cold.secret_access_key", file.secret_access_key, file.secret_access_key_file)
            .or_else(|| from_env(names.secret_key).map(Secret::new));
        let session_token = check
            .secret("cold.session_token", file.session_token, file.session_token_file)
            .or_else(|| from_env(names.session_token).map(Secret::new));
        if names.keys_come_in_pairs && access_key_id.is_some() != secret_access_key.is_some() {
            let mistake = Mistake::new("only one of access_key_id and secret_access_key is set");
            check.refuse("cold.access_key_id", mistake.help("set both, or none to use the machine's own identity"));
        }
        let frame_size = check.parse("cold.frame_size", file.frame_size, 2 << 20, parse_size);
        check.within("cold.frame_size", &frame_size, &(64 << 10..=16 << 20), |bytes| show_size(*bytes));
        Some(Self {
            region: file.region.or_else(|| from_env(names.region)),
            virtual_hosted_style: file.virtual_hosted_style.unwrap_or(url.scheme() == "oss"),
            credentials_file: file.credentials_file.or_else(|| from_env(names.credentials_file)).map(PathBuf::from),
            allow_http: endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http"),
            zstd_level: check.number("cold.zstd_level", file.zstd_level, 9, 1..=19),
            search_filters: file.search_filters.unwrap_or(true),
            shared: file.shared.unwrap_or(false),
            url,
            endpoint,
            access_key_id,
            secret_access_key,
            session_token,
            frame_size,
        })
    }
}

/// The environment variables that a store's users know; read where the file is silent.
#[derive(Default)]
struct Names {
    endpoint: &'static [&'static str],
    region: &'static [&'static str],
    key_id: &'static [&'static str],
    secret_key: &'static [&'static str],
    session_token: &'static [&'static str],
    credentials_file: &'static [&'static str],
    keys_come_in_pairs: bool,
}

impl Names {
    fn of(scheme: &str) -> Self {
        match scheme {
            "s3" => Self {
                endpoint: &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
                region: &["AWS_REGION", "AWS_DEFAULT_REGION"],
                key_id: &["AWS_ACCESS_KEY_ID"],
                secret_key: &["AWS_SECRET_ACCESS_KEY"],
                session_token: &["AWS_SESSION_TOKEN"],
                keys_come_in_pairs: true,
                ..Self::default()
            },
            "oss" => Self {
                endpoint: &["OSS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
                region: &["OSS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"],
                key_id: &["OSS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"],
                secret_key: &["OSS_ACCESS_KEY_SECRET", "AWS_SECRET_ACCESS_KEY"],
                session_token: &["OSS_SESSION_TOKEN", "AWS_SESSION_TOKEN"],
                keys_come_in_pairs: true,
                ..Self::default()
            },
            "gs" => Self { credentials_file: &["GOOGLE_APPLICATION_CREDENTIALS"], ..Self::default() },
            "az" | "azure" | "abfs" | "abfss" => Self {
                key_id: &["AZURE_STORAGE_ACCOUNT_NAME"],
                secret_key: &["AZURE_STORAGE_ACCOUNT_KEY"],
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

const SCHEMES: [&str; 8] = ["s3", "oss", "gs", "az", "azure", "abfs", "abfss", "file"];

/// A URL of a bucket and prefix, or a folder as URL or path.
fn parse_store(text: &str) -> Result<Url, Mistake> {
    let help = "write \"s3://bucket/prefix\", oss, gs, az, or \"file:///folder\"";
    let scheme = match text.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => scheme,
        _ => return folder_url(text),
    };
    if !SCHEMES.contains(&scheme) {
        return Err(Mistake::new(format!("unknown kind of store \"{scheme}\"")).suggest(scheme, SCHEMES));
    }
    let url = Url::parse(text).map_err(|error| Mistake::new(format!("no URL: {error}")).help(help))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Mistake::new("\"?\" and \"#\" have no meaning in the URL of a store"));
    }
    // abfs://container@account is Azure's own way to write it.
    let names_user = !url.username().is_empty() && !scheme.starts_with("abfs");
    if names_user || url.password().is_some() {
        return Err(Mistake::new("credentials in the URL")
            .help("set access_key_id and secret_access_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    match (scheme, url.host_str().unwrap_or_default()) {
        ("file", "") => Ok(url),
        ("file", host) => Err(Mistake::new(format!("\"{host}\" stands where a host would"))
            .help("a folder is written with three slashes, \"file:///folder\"")),
        (_, "") => Err(Mistake::new("no bucket in the URL").help(help)),
        _ => Ok(url),
    }
}

fn folder_url(path: &str) -> Result<Url, Mistake> {
    let path = absolute(path)?;
    Url::from_file_path(&path).map_err(|()| Mistake::new(format!("{} is no absolute path", path.display())))
}

fn parse_endpoint(text: &str) -> Result<Url, Mistake> {
    let help = "write \"https://s3.eu-central-1.amazonaws.com\", or http:// for a server in your own network";
    let url = Url::parse(text).map_err(|error| Mistake::new(format!("no URL: {error}")).help(help))?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        return Err(Mistake::new("an endpoint is an http or https URL without credentials").help(help));
    }
    Ok(url)
}
