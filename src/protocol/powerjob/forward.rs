//! Requests that go on to PowerJob as they are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::Response;
use url::Url;

use super::front::{Front, refusal};
use super::log_file::chain;

/// A PowerJob that is there accepts at once; one that is not should be told of before the worker gives up (5 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// PowerJob closes idle connections after 75 s (`powerjob.transporter.keepalive.timeout`). One that is about to be
/// closed must not be taken for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that are between two neighbours and do not travel (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The way to PowerJob.
pub struct Forwarder {
    client: reqwest::Client,
    server: Option<Url>,
    console: Option<Url>,
}

impl Forwarder {
    pub fn new(server: Option<Url>, console: Option<Url>) -> anyhow::Result<Self> {
        crate::cold::install_crypto_provider();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .context("make an HTTP client for PowerJob")?;
        Ok(Self { client, server, console })
    }

    /// The console behind this port.
    pub fn console(&self) -> Option<&Url> {
        self.console.as_ref()
    }

    /// Whether a PowerJob stands behind this port at all.
    pub fn has_any(&self) -> bool {
        self.server.is_some() || self.console.is_some()
    }

    /// Workers `POST` to the one port of PowerJob; all else (`GET /server/acquire` too) is for the other.
    fn target(&self, request: &Request<Body>) -> Option<Url> {
        let is_workers = request.method() == Method::POST && request.uri().path().starts_with("/server/");
        let (first, second) = if is_workers { (&self.server, &self.console) } else { (&self.console, &self.server) };
        let mut url = first.as_ref().or(second.as_ref())?.clone();
        url.set_path(request.uri().path());
        url.set_query(request.uri().query());
        Some(url)
    }

    /// Sends the request on; `None` where there is nothing to send it to.
    pub async fn pass(&self, request: Request<Body>) -> Option<Response> {
        let url = self.target(&request)?;
        Some(self.pass_to(url, request).await)
    }

    /// Sends the request to this URL.
    pub async fn pass_to(&self, url: Url, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        drop_hop_by_hop(&mut headers);
        let sent = self.client.request(parts.method, url.clone()).headers(headers);
        let answer = match sent.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let host = url.origin().ascii_serialization();
                tracing::warn!(error = chain(&error), "PowerJob at {host} does not answer");
                return refusal(StatusCode::BAD_GATEWAY, format!("PowerJob at {host} does not answer"));
            }
        };
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        drop_hop_by_hop(&mut headers);
        let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Everything that is not answered here.
pub async fn forward(State(front): State<Arc<Front>>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    front.forwarder.pass(request).await.unwrap_or_else(|| {
        let words = format!("nothing is answered at {path}; protocol.powerjob.server and console say what is behind");
        refusal(StatusCode::NOT_FOUND, words)
    })
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_console_have_a_port_each() {
        let url = |text: &str| Some(Url::parse(text).expect("a URL"));
        let target = |forwarder: &Forwarder, method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
            forwarder.target(&request).map(String::from)
        };
        let both = Forwarder::new(url("http://pj:10010"), url("http://pj:7700")).expect("a client");
        let check = |method, uri: &str, expected: &str| {
            assert_eq!(target(&both, method, uri).as_deref(), Some(expected), "{uri}");
        };
        check(Method::POST, "/server/workerHeartbeat", "http://pj:10010/server/workerHeartbeat");
        check(Method::GET, "/server/acquire?appId=1&p=%2F", "http://pj:7700/server/acquire?appId=1&p=%2F");
        check(Method::POST, "/instance/list", "http://pj:7700/instance/list");
        let server = Forwarder::new(url("http://pj:10010"), None).expect("a client");
        assert_eq!(target(&server, Method::GET, "/x").as_deref(), Some("http://pj:10010/x"));
        assert_eq!(target(&Forwarder::new(None, None).expect("a client"), Method::GET, "/x"), None);
    }

    #[test]
    fn what_is_between_neighbours_does_not_travel() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, X-Mine"), ("x-mine", "1"), ("te", "x"), ("x-other", "2")] {
            headers.append(name, value.parse().expect("a header"));
        }
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-other"]);
    }
}
