//! What other systems write and speak: one folder a system, and one line in [`surfaces`].
//!
//! # Overview
//!
//! A protocol turns what a system says into ids, records, labels and outcomes, and back: pure functions, which the
//! command line uses for imports. Where a system is also to be answered, its folder has *surfaces*: ports of their
//! own, off unless the configuration has their table. All they take in goes through [`Ingest`], all they show comes
//! from [`Reader`], as with the API.
//!
//! # Invariants
//!
//! - Nothing is acknowledged before its commit (I1).
//! - What cannot be asked is never shown as empty (I8): each protocol says how it puts that.

pub mod known;
pub mod pieces;
pub mod powerjob;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::cold::Store;
use crate::config::Protocol;
use crate::ingest::Ingest;
use crate::read::Reader;
use crate::telemetry::Metrics;

/// What surfaces are made of.
#[derive(Clone)]
pub struct Parts {
    pub ingest: Ingest,
    pub reader: Reader,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// Owns the tasks that requests start.
    pub tasks: TaskTracker,
    /// Cancelled when the daemon is to stop.
    pub stop: CancellationToken,
    pub max_body_bytes: u64,
    pub max_record_bytes: usize,
    pub data_dir: PathBuf,
}

/// The connection is closed without an answer, because every answer would say something false.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed: {0}")]
pub struct HungUp(pub String);

pub type Handler = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Result<Response<Body>, HungUp>> + Send + Sync;
pub type Background = dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync;

/// A port of a protocol.
pub struct Surface {
    pub name: &'static str,
    pub address: SocketAddr,
    pub handler: Arc<Handler>,
    /// What is done beside the requests, until the token is cancelled.
    pub background: Option<Arc<Background>>,
}

/// The ports that the configuration opens.
pub fn surfaces(protocols: &Protocol, parts: &Parts) -> anyhow::Result<Vec<Surface>> {
    let powerjob = protocols.powerjob.as_ref().map(|settings| powerjob::front::surface(settings, parts));
    let powerjob_s3 = protocols.powerjob_s3.as_ref().map(|settings| powerjob::s3::surface(settings, parts));
    [powerjob, powerjob_s3].into_iter().flatten().collect()
}

/// Routes as a handler; they always answer.
fn routes(router: Router) -> Arc<Handler> {
    let service = TowerToHyperService::new(router);
    Arc::new(move |request| {
        let answer = service.call(request);
        Box::pin(async move { answer.await.map_err(|never| match never {}) })
    })
}
