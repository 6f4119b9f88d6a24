//! The HTTP client: addresses, authentication, retries, and errors that a person can act on.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output;
use crate::clock::Clock;

/// A dead address should be noticed while someone is still looking.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A commit or a cold page takes seconds at worst; beyond this the connection is dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The first wait of a retry, doubled each time up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// No server may send us to sleep for longer, whatever its Retry-After.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// How much of an answer that is no problem document is shown.
const SHOWN_BODY_CHARS: usize = 300;

/// Everything but the unreserved characters of RFC 3986 is encoded in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An answer of 4xx or 5xx: a problem document (RFC 9457), or what else came.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
    request_id: Option<String>,
    /// The document as it came; null where it was no JSON.
    pub(super) body: Value,
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (status {}", self.detail, self.status)?;
        if let Some(id) = &self.request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str(")")
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0}")]
    Url(String),
    #[error("no daemon answers at {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("the connection to {url} broke: {reason}")]
    Broken { url: String, reason: String },
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error("the answer of {url} makes no sense: {reason}")]
    Answer { url: String, reason: String },
}

impl ClientError {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }

    /// Whether the same call may work a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } => true,
            Self::Problem(problem) => matches!(problem.status, 408 | 429 | 502 | 503 | 504),
            Self::Url(_) | Self::Answer { .. } => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { .. } => Some("Start one with `logtier serve`, or name another with --url.".to_owned()),
            Self::Problem(problem) => match problem.status {
                401 => Some("The daemon wants a token: set LOGTIER_TOKEN or give --token-file.".to_owned()),
                403 => Some("The token is not good for this; ask whoever runs the daemon.".to_owned()),
                429 | 503 => {
                    let wait = problem.retry_after.unwrap_or(Duration::from_secs(5));
                    Some(format!("Nothing is lost. Try again in {}.", output::span(wait)))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// One call, kept so that it can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    /// Encoded, beginning with a slash.
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Bytes>,
    timeout: Option<Duration>,
}

impl Call {
    /// A call of `/api/v1` and `path`, which must be encoded.
    pub(super) fn new(method: Method, path: &str) -> Self {
        let (query, headers) = (Vec::new(), Vec::new());
        Self { method, path: format!("/api/v1{path}"), query, headers, body: None, timeout: Some(CALL_TIMEOUT) }
    }

    /// A call about one instance; `tail` is empty or such as `/records`.
    ///
    /// Proxies decode `%2F`, and `.` and `..` do not survive in any path, so such names travel in the query.
    pub(super) fn on_instance(method: Method, app: &str, instance: &str, tail: &str) -> Self {
        let plain = |name: &str| !name.contains(['/', '\\']) && name != "." && name != "..";
        if plain(app) && plain(instance) {
            let (app, instance) = (utf8_percent_encode(app, IN_PATH), utf8_percent_encode(instance, IN_PATH));
            Self::new(method, &format!("/apps/{app}/instances/{instance}{tail}"))
        } else {
            Self::new(method, &format!("/instances{tail}")).query("app", app).query("instance", instance)
        }
    }

    /// A call about all instances of an app.
    pub(super) fn on_app(method: Method, app: &str, tail: &str) -> Self {
        if app.contains(['/', '\\']) || matches!(app, "." | "..") {
            return Self::new(method, tail).query("app", app);
        }
        Self::new(method, &format!("/apps/{}{tail}", utf8_percent_encode(app, IN_PATH)))
    }

    pub(super) fn query(mut self, name: &str, value: impl Display) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn query_opt(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(super) fn queries(mut self, pairs: &[(String, String)]) -> Self {
        self.query.extend_from_slice(pairs);
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, content_type: &str, body: Bytes) -> Self {
        self.body = Some(body);
        self.header(CONTENT_TYPE, content_type)
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.body("application/json", Bytes::from(body.to_string()))
    }

    /// The longest the whole call may take; `None` for streams that have no end.
    pub(super) fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}

/// How long transient failures are borne, from the first to the last of them.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    budget: Duration,
    failing_since: Option<Instant>,
    backoff: Duration,
    /// Does not say on stderr that it waits.
    quiet: bool,
    /// Gives up at once where nobody listens.
    only_while_it_answers: bool,
}

impl Patience {
    pub(super) fn new(budget: Duration) -> Self {
        let (quiet, only_while_it_answers) = (false, false);
        Self { budget, failing_since: None, backoff: FIRST_BACKOFF, quiet, only_while_it_answers }
    }

    pub(super) fn quiet(budget: Duration) -> Self {
        Self { quiet: true, ..Self::new(budget) }
    }

    /// For a daemon that is busy, but not for one that is not there; bounded by the caller.
    pub(super) fn while_it_answers() -> Self {
        Self { only_while_it_answers: true, ..Self::quiet(Duration::from_secs(86_400)) }
    }

    /// Forgets past failures.
    pub(super) fn succeeded(&mut self) {
        self.failing_since = None;
        self.backoff = FIRST_BACKOFF;
    }

    /// How long to wait before another try; `None` when patience is at its end.
    pub(super) fn failed(&mut self, error: &ClientError, now: Instant) -> Option<Duration> {
        let absent = matches!(error, ClientError::Connect { .. });
        if !error.is_transient() || absent && self.only_while_it_answers {
            return None;
        }
        let first = self.failing_since.is_none();
        let since = *self.failing_since.get_or_insert(now);
        let wait = error.retry_after().map_or(self.backoff, |wait| wait.min(LONGEST_RETRY_AFTER));
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
        let left = self.budget.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            return None;
        }
        if first && !self.quiet {
            eprintln!("logtier: {error}; trying again for up to {}", output::span(self.budget));
        }
        Some(wait.min(left))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
    pub(super) clock: Clock,
}

impl Client {
    pub(super) fn new(url: &str, token: Option<String>, clock: Clock) -> Result<Self, ClientError> {
        let wrong =
            |why: &str| ClientError::Url(format!("--url \"{url}\" {why}, expected one such as http://127.0.0.1:7710"));
        let parsed = url::Url::parse(url).map_err(|error| wrong(&format!("is no URL ({error})")))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(wrong("is no http address"));
        }
        let authorization = match token.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| ClientError::Url("the token holds characters that no header may have".to_owned()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        // It is there already when an earlier client was made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("logtier/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(3));
        if parsed.scheme() == "http" {
            // A bare machine has no root certificates, and loading none of them is an error.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| ClientError::Url(format!("set up HTTP: {}", root_cause(&error))))?;
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, authorization, clock })
    }

    pub(super) fn url(&self) -> &str {
        &self.base
    }

    /// Sends once; anything but 2xx is an error.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, ClientError> {
        let mut request =
            self.http.request(call.method.clone(), format!("{}{}", self.base, call.path)).query(&call.query);
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if !call.headers.iter().any(|(name, _)| *name == ACCEPT) {
            request = request.header(ACCEPT, "application/json");
        }
        if let Some(timeout) = call.timeout {
            request = request.timeout(timeout);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let answer = request.send().await.map_err(|error| self.failure(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.problem(answer).await) }
    }

    /// Sends until it works, fails for good, or patience ends. Only for calls that may be repeated.
    pub(super) async fn send_patiently(&self, call: &Call, patience: &mut Patience) -> Result<Response, ClientError> {
        loop {
            match self.send(call).await {
                Ok(answer) => {
                    patience.succeeded();
                    return Ok(answer);
                }
                Err(error) => match patience.failed(&error, self.clock.instant()) {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => return Err(error),
                },
            }
        }
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let answer = self.send(call).await?;
        self.decode(answer).await
    }

    pub(super) async fn json_patiently<T: DeserializeOwned>(
        &self,
        call: &Call,
        patience: &mut Patience,
    ) -> Result<T, ClientError> {
        loop {
            let answer = self.send_patiently(call, patience).await?;
            match self.decode(answer).await {
                Err(error) => match patience.failed(&error, self.clock.instant()) {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => return Err(error),
                },
                decoded => return decoded,
            }
        }
    }

    /// A whole body that is no JSON.
    pub(super) async fn bytes_patiently(&self, call: &Call, patience: &mut Patience) -> Result<Bytes, ClientError> {
        loop {
            let answer = self.send_patiently(call, patience).await?;
            match self.bytes(answer).await {
                Err(error) => match patience.failed(&error, self.clock.instant()) {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => return Err(error),
                },
                bytes => return bytes,
            }
        }
    }

    pub(super) async fn bytes(&self, answer: Response) -> Result<Bytes, ClientError> {
        answer.bytes().await.map_err(|error| self.failure(&error))
    }

    /// Decodes an answer; an empty one is null.
    pub(super) async fn decode<T: DeserializeOwned>(&self, answer: Response) -> Result<T, ClientError> {
        let body = self.bytes(answer).await?;
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| self.senseless(&error))
    }

    pub(super) fn senseless(&self, why: &impl Display) -> ClientError {
        ClientError::Answer { url: without_password(&self.base), reason: why.to_string() }
    }

    pub(super) fn failure(&self, error: &reqwest::Error) -> ClientError {
        let (url, reason) = (without_password(&self.base), root_cause(error));
        match error {
            error if error.is_connect() && reason.contains("InvalidContentType") => {
                let reason = "it speaks no TLS; try http:// instead of https://".to_owned();
                ClientError::Connect { url, reason }
            }
            error if error.is_connect() => ClientError::Connect { url, reason },
            error if error.is_builder() => ClientError::Url(reason),
            error if error.is_timeout() => ClientError::Broken { url, reason: "it took too long".to_owned() },
            _ => ClientError::Broken { url, reason },
        }
    }

    async fn problem(&self, answer: Response) -> ClientError {
        let status = answer.status();
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let retry_after =
            header(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let request_id = header("x-request-id");
        let text = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let member = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let detail =
            member("detail").or_else(|| member("title")).map_or_else(|| plain_detail(status, &text), str::to_owned);
        let request_id = member("request_id").map(str::to_owned).or(request_id);
        ClientError::Problem(Box::new(Problem { status: status.as_u16(), detail, retry_after, request_id, body }))
    }
}

/// What to say of an answer without a problem document, such as a proxy gives.
fn plain_detail(status: StatusCode, body: &str) -> String {
    let shown: String = body.trim().chars().take(SHOWN_BODY_CHARS).filter(|c| !c.is_control()).collect();
    match shown.as_str() {
        "" => status.canonical_reason().unwrap_or("the daemon refused").to_owned(),
        shown => shown.to_owned(),
    }
}

/// An address as it may be shown: what stands in front of the host is a secret.
pub(super) fn without_password(url: &str) -> String {
    let Ok(mut shown) = url::Url::parse(url) else { return url.to_owned() };
    if shown.password().is_some() {
        let _ = shown.set_password(Some("***"));
    }
    shown.as_str().trim_end_matches('/').to_owned()
}

/// The innermost cause, which is what a person wants of a chain of wrappers.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Whether stderr is a terminal, where progress may be shown.
pub(super) fn shows_progress() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(app: &str, instance: &str) -> (String, Vec<(String, String)>) {
        let call = Call::on_instance(Method::GET, app, instance, "/records");
        (call.path, call.query)
    }

    #[test]
    fn names_survive_the_way() {
        assert_eq!(path("default", "a b+c:é").0, "/api/v1/apps/default/instances/a%20b%2Bc%3A%C3%A9/records");
        for odd in ["a/b", "..", ".", "a\\b"] {
            let (path, query) = path("x", odd);
            assert_eq!(path, "/api/v1/instances/records");
            assert_eq!(query, [("app".to_owned(), "x".to_owned()), ("instance".to_owned(), odd.to_owned())]);
        }
    }

    #[test]
    fn patience_ends() {
        let clock = Clock::default();
        let start = clock.instant();
        let refused = ClientError::Connect { url: String::new(), reason: String::new() };
        let mut patience = Patience::quiet(Duration::from_secs(1));
        assert_eq!(patience.failed(&refused, start), Some(FIRST_BACKOFF));
        assert_eq!(patience.failed(&refused, start), Some(FIRST_BACKOFF * 2));
        assert_eq!(patience.failed(&refused, start + Duration::from_millis(900)), Some(Duration::from_millis(100)));
        assert_eq!(patience.failed(&refused, start + Duration::from_secs(1)), None);
        patience.succeeded();
        assert_eq!(patience.failed(&refused, start + Duration::from_secs(900)), Some(FIRST_BACKOFF));
        assert_eq!(patience.failed(&ClientError::Url(String::new()), start), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("http://u:pw@h:1/x/"), "http://u:***@h:1/x");
        assert_eq!(without_password("http://h:1"), "http://h:1");
    }

    #[test]
    fn bad_addresses_are_named() {
        for bad in ["", "127.0.0.1:7710", "ftp://x"] {
            let error = Client::new(bad, None, Clock::default()).expect_err(bad);
            assert!(error.to_string().contains("expected one such as"), "{error}");
        }
    }
}
