//! From settings to a store: which service, which addressing, which bounds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{DnsFuture, DnsResolver};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::error::{Error, Result};

/// Long enough for one 8 MiB part at 140 kB/s; a body that moves may take as long as it needs.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// With the stall timeout, an operation on a dead store fails after some two minutes at the latest;
/// the next tick of the archiver or the client's next request is the outer retry.
const MAX_RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the cold tier is and how to talk to it.
///
/// What is `None` comes from the environment that the services' own tools read
/// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` …)
/// or, where the machine has one, from its instance role.
#[derive(Clone)]
pub struct StoreSettings {
    /// `s3://bucket/prefix`, `oss://…`, `gs://…`, `az://container/prefix` or `file:///folder`.
    pub url: Url,
    /// The service's own address, without the bucket; for S3-compatible stores and emulators.
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    /// The bucket stands in the host name; `None` means yes for `oss`, which refuses the other way.
    pub virtual_hosted_style: Option<bool>,
    /// For Azure the account's name.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    /// With temporary keys of S3.
    pub session_token: Option<String>,
    /// Google's file of credentials.
    pub credentials_file: Option<PathBuf>,
    /// Allows plain HTTP; otherwise an `http://` endpoint is refused.
    pub allow_http: bool,
}

impl StoreSettings {
    pub fn new(url: Url) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            virtual_hosted_style: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            credentials_file: None,
            allow_http: false,
        }
    }
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("url", &self.url.as_str())
            .field("endpoint", &self.endpoint.as_ref().map(Url::as_str))
            .field("region", &self.region)
            .field("virtual_hosted_style", &self.virtual_hosted_style)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "***"))
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Makes ring the process's TLS provider; without one the HTTP client panics. May be called often.
pub fn install_crypto_provider() {
    // An error says that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What [`Store`](super::Store) needs to know of the place it writes to.
pub(super) struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    pub prefix: String,
    /// The folder, where the store is one.
    pub folder: Option<PathBuf>,
}

pub(super) fn open(settings: &StoreSettings) -> Result<Opened> {
    let url = &settings.url;
    let scheme = url.scheme();
    if scheme == "file" {
        return open_folder(url);
    }
    install_crypto_provider();
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.ok_or_else(|| settings_error(format!("\"{url}\" names no bucket")))?;
    let objects = match scheme {
        "s3" | "oss" => open_s3(settings, bucket)?,
        "gs" => open_gs(settings, bucket)?,
        "az" | "azure" | "abfs" | "abfss" => open_az(settings, bucket)?,
        _ => return Err(settings_error(format!("\"{scheme}\" is none of s3, oss, gs, az, file"))),
    };
    Ok(Opened { objects, prefix: url.path().trim_matches('/').to_owned(), folder: None })
}

fn open_folder(url: &Url) -> Result<Opened> {
    let folder = url.to_file_path().map_err(|()| settings_error(format!("\"{url}\" is not a local folder")))?;
    std::fs::create_dir_all(&folder).map_err(|error| Error::Settings { source: error.into() })?;
    // A `file://` URL would give a store rooted at `/`; fsync is off unless asked for, and a segment
    // that a power cut can take back must not be published.
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(store_error)?.with_fsync(true);
    Ok(Opened { objects: Arc::new(store), prefix: String::new(), folder: Some(folder) })
}

fn open_s3(settings: &StoreSettings, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let is_oss = settings.url.scheme() == "oss";
    let virtual_hosted = settings.virtual_hosted_style.unwrap_or(is_oss);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(virtual_hosted)
        // Safety rests on unique names (I5): Alibaba OSS answers a conditional put with 501, Garage ignores it.
        .with_conditional_put(S3ConditionalPut::Disabled)
        // The bulk form is a POST with a checksum header that not every S3 has.
        .with_disable_bulk_delete(true)
        .with_client_options(client_options(settings))
        .with_retry(retries());
    if let Some(endpoint) = s3_endpoint(settings, bucket, virtual_hosted)? {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &settings.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &settings.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &settings.session_token {
        builder = builder.with_token(token);
    }
    Ok(Arc::new(builder.build().map_err(store_error)?))
}

/// object_store takes a virtual-hosted endpoint with the bucket in its host name already.
fn s3_endpoint(settings: &StoreSettings, bucket: &str, virtual_hosted: bool) -> Result<Option<String>> {
    let endpoint = match (&settings.endpoint, settings.url.scheme(), &settings.region) {
        (Some(endpoint), ..) => endpoint.clone(),
        (None, "oss", Some(region)) => {
            let region = region.strip_prefix("oss-").unwrap_or(region);
            let text = format!("https://oss-{region}.aliyuncs.com");
            text.parse().map_err(|_| settings_error(format!("region \"{region}\" gives no host name")))?
        }
        (None, "oss", None) => return Err(settings_error("oss needs an endpoint or a region")),
        _ => return Ok(None),
    };
    let mut endpoint = endpoint;
    let host = endpoint.host_str().unwrap_or_default().to_owned();
    // An address has no names below it: whoever writes one has a server for this one bucket.
    let is_address = matches!(endpoint.host(), Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)));
    if virtual_hosted && !is_address && !host.starts_with(&format!("{bucket}.")) {
        let with_bucket = format!("{bucket}.{host}");
        endpoint
            .set_host(Some(&with_bucket))
            .map_err(|_| settings_error(format!("bucket \"{bucket}\" cannot stand in front of host \"{host}\"")))?;
    }
    Ok(Some(endpoint.as_str().trim_end_matches('/').to_owned()))
}

fn open_gs(settings: &StoreSettings, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client_options(settings))
        .with_retry(retries());
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(file) = &settings.credentials_file {
        builder = builder.with_application_credentials(file.to_string_lossy());
    }
    Ok(Arc::new(builder.build().map_err(store_error)?))
}

fn open_az(settings: &StoreSettings, container: &str) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_allow_http(settings.allow_http)
        .with_client_options(client_options(settings))
        .with_retry(retries());
    if let Some(account) = &settings.access_key_id {
        builder = builder.with_account(account);
    }
    if let Some(key) = &settings.secret_access_key {
        builder = builder.with_access_key(key);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    Ok(Arc::new(builder.build().map_err(store_error)?))
}

/// No limit on a whole request: a cold read streams for as long as its reader takes.
fn client_options(settings: &StoreSettings) -> ClientOptions {
    let options = ClientOptions::new()
        .with_allow_http(settings.allow_http)
        .with_timeout_disabled()
        .with_read_timeout(STALL_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    let host = settings.endpoint.as_ref().and_then(Url::host_str).unwrap_or_default();
    if is_loopback_name(host) { options.with_dns_resolver(Arc::new(LoopbackNames)) } else { options }
}

/// RFC 6761: `localhost` and every name below it mean this machine. The C library does not know
/// that of `bucket.localhost`, which is what a store on this machine is called in virtual-hosted style.
#[derive(Debug)]
struct LoopbackNames;

fn is_loopback_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

impl DnsResolver for LoopbackNames {
    fn resolve(&self, host: &str) -> DnsFuture {
        let host = host.to_owned();
        Box::pin(async move {
            if is_loopback_name(&host) {
                return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            }
            Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
        })
    }
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT }
}

fn settings_error(what: impl Into<String>) -> Error {
    Error::Settings { source: what.into().into() }
}

fn store_error(error: object_store::Error) -> Error {
    Error::Settings { source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, endpoint: Option<&str>, region: Option<&str>) -> Result<Option<String>> {
        let mut settings = StoreSettings::new(url.parse().expect("URL"));
        settings.endpoint = endpoint.map(|endpoint| endpoint.parse().expect("URL"));
        settings.region = region.map(str::to_owned);
        let virtual_hosted = settings.url.scheme() == "oss";
        s3_endpoint(&settings, "logs", virtual_hosted)
    }

    #[test]
    fn a_folder_syncs_what_it_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = Url::from_directory_path(folder.path()).expect("absolute");
        let opened = open_folder(&url).expect("opened");
        assert!(format!("{:?}", opened.objects).contains("fsync: true"), "{:?}", opened.objects);
    }

    #[test]
    fn the_bucket_joins_the_host_where_the_store_wants_it() {
        let cases = [
            ("s3://logs", None, None, None),
            ("s3://logs", Some("http://127.0.0.1:9000/"), None, Some("http://127.0.0.1:9000")),
            ("oss://logs", None, Some("cn-hangzhou"), Some("https://logs.oss-cn-hangzhou.aliyuncs.com")),
            ("oss://logs", Some("http://127.0.0.1:9000"), None, Some("http://127.0.0.1:9000")),
            ("oss://logs", Some("http://localhost:80"), None, Some("http://logs.localhost")),
            ("oss://logs", Some("https://logs.oss.example"), None, Some("https://logs.oss.example")),
        ];
        for (url, given, region, wanted) in cases {
            assert_eq!(endpoint(url, given, region).expect("endpoint").as_deref(), wanted, "{url}");
        }
        assert!(endpoint("oss://logs", None, None).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut settings = StoreSettings::new("s3://b".parse().expect("URL"));
        settings.secret_access_key = Some("hunter2".to_owned());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn every_scheme_opens() {
        for url in ["s3://b/p", "oss://b/p", "gs://b/p", "az://b/p"] {
            let mut settings = StoreSettings::new(url.parse().expect("URL"));
            settings.region = Some("r1".to_owned());
            settings.access_key_id = Some("id".to_owned());
            settings.secret_access_key = Some("a2V5".to_owned());
            let opened = open(&settings).expect(url);
            assert_eq!(opened.prefix, "p", "{url}");
        }
        for url in ["ftp://b/p", "s3:///p"] {
            assert!(open(&StoreSettings::new(url.parse().expect("URL"))).is_err(), "{url}");
        }
    }
}
