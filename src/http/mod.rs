//! The HTTP API: every other surface, the command line included, goes through it.
//!
//! # Overview
//!
//! A handler is short: take the names and parameters of the call (`params`), refuse what is not
//! known, read the body within bounds (`body`), ask [`Ingest`], [`Reader`], [`Archiver`] or
//! [`Status`], and show the answer. What goes wrong becomes a `Problem`; one layer around all
//! routes writes it, logs it and counts it (`problem`).
//!
//! # Invariants
//!
//! - A tier that cannot be asked is 503, never an empty answer (I8). A stream that fails is aborted,
//!   never ended cleanly.
//! - A query parameter that a call does not know is 400: a mistyped filter must not return everything.
//! - Request bodies, pages, lists, followers and connections are bounded (I7).
//! - No cause of an error, password or token is ever shown; the request id leads to the log.
//!
//! # Cancellation
//!
//! A client that goes away drops its handler. Reads leave nothing behind; a batch that was
//! accepted is committed all the same.

mod admin;
mod auth;
mod body;
mod caching;
mod declare;
mod download;
mod errors;
mod follow;
mod hub;
mod impatient;
mod lists;
mod marks;
mod openapi;
mod params;
mod problem;
mod query;
mod read;
mod render;
mod routes;
mod schemas;
mod search;
mod serve;
mod shown;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::compression::CompressionLayer;

pub use auth::Token;
pub use serve::{serve, serve_connections};

use hub::Hub;
use problem::Problem;

use crate::archive::Archiver;
use crate::audit::Status;
use crate::clock::Clock;
use crate::ingest::{Budget, Ingest};
use crate::model::RuleSet;
use crate::read::Reader;
use crate::telemetry::Metrics;

/// What the API is made of.
#[derive(Clone)]
pub struct Api {
    pub ingest: Ingest,
    pub reader: Reader,
    pub archiver: Archiver,
    pub status: Status,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub settings: HttpSettings,
    /// Owns the tasks that requests start; whoever stops the daemon waits for it.
    pub tasks: TaskTracker,
    /// Ends waiting and following; from then on the daemon is not ready.
    pub shutdown: CancellationToken,
}

/// Bounds and rules of the API.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// What clients must send; without one everybody may do everything.
    pub token: Option<Token>,
    /// `/metrics` needs no token.
    pub allow_anonymous: bool,
    /// The most bytes of one request's body, before and after decompression.
    pub max_body_bytes: u64,
    /// A longer message is stored in several records.
    pub max_record_bytes: usize,
    /// The most bytes of all bodies that are being taken in.
    pub body_budget_bytes: u64,
    /// A follower whose client takes nothing for so long is let go.
    pub follow_stall: Duration,
    /// To tell which rule an attempt falls under before it is archived.
    pub rules: Arc<RuleSet>,
    /// The archiver's schedule as people write it.
    pub schedule: String,
}

impl HttpSettings {
    /// The defaults, with these rules.
    pub fn new(rules: Arc<RuleSet>) -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            token: None,
            allow_anonymous: false,
            max_body_bytes: 16 * MIB,
            max_record_bytes: 1 << 20,
            body_budget_bytes: 64 * MIB,
            // Two heartbeats: whatever a client that is alive waits for, it has taken by then.
            follow_stall: Duration::from_secs(30),
            rules,
            schedule: String::new(),
        }
    }
}

/// Clients that may follow logs on one daemon at a time.
const MAX_FOLLOWERS: usize = 10_000;

/// Searches under way on one daemon at a time; each reads a block at a time.
const MAX_SEARCHES: usize = 4;

/// What handlers share.
struct Shared {
    api: Api,
    budget: Budget,
    hub: Hub,
    followers: Arc<Semaphore>,
    searches: Arc<Semaphore>,
}

/// All routes.
pub fn router(api: Api) -> Router {
    let settings = &api.settings;
    // One body of the largest size must always find room.
    let budget = Budget::new(settings.body_budget_bytes.max(settings.max_body_bytes));
    let hub = Hub::new(api.reader.clone(), api.clock.clone(), api.tasks.clone(), api.shutdown.clone());
    let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    let shared = Arc::new(Shared { api, budget, hub, followers, searches: Arc::new(Semaphore::new(MAX_SEARCHES)) });
    let routes = routes::all().into_iter();
    routes
        .fold(Router::new(), |router, route| router.route(&route.path, route.handler))
        .layer(from_fn_with_state(Arc::clone(&shared), auth::check))
        .layer(from_fn_with_state(Arc::clone(&shared), problem::finish))
        .layer(CompressionLayer::new())
        .with_state(shared)
}
