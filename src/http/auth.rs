//! One bearer token for everything but the two calls that probes make.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Problem, Shared};

/// A bearer token; only its hash is kept, and nothing prints it.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl Token {
    pub fn new(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// Takes the same time whatever is offered: hashes are compared in constant time.
    fn is(&self, offered: &str) -> bool {
        self.0 == blake3::hash(offered.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Refuses what carries no or a wrong token, before anything of the body is read. A path that is
/// not known is refused as well.
pub async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let settings = &shared.api.settings;
    let is_free = match request.uri().path() {
        "/healthz" | "/readyz" => true,
        "/metrics" => settings.allow_anonymous,
        _ => false,
    };
    let Some(token) = settings.token.as_ref().filter(|_| !is_free) else {
        return next.run(request).await;
    };
    let (detail, challenge) = match offered(request.headers()) {
        Some(offered) if token.is(offered) => return next.run(request).await,
        Some(_) => {
            ("the bearer token is not the one of this daemon", "Bearer realm=\"logtier\", error=\"invalid_token\"")
        }
        None => ("send the header \"Authorization: Bearer TOKEN\"", "Bearer realm=\"logtier\""),
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

fn offered(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
