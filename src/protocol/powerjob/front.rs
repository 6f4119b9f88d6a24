//! The port in front of a PowerJob server: what its workers send and its console asks comes by here.
//!
//! # Overview
//!
//! `reportLog` is answered here ([`report`]), and so are the console's reads of logs ([`console`]); every other
//! request goes on to PowerJob untouched and at once ([`forward`]). On its way `reportInstanceStatus` is read ([`status`]),
//! so that an instance has its job and finishes with its outcome. The same port serves as the target of a tee, with
//! nothing behind it.
//!
//! # Invariants
//!
//! - What is forwarded waits for no database: heartbeats and states reach PowerJob while ours is away.
//! - A reported line is acknowledged after its commit, or refused within three seconds; then the log says itself
//!   that lines are missing (`gaps`), because PowerJob's workers never send a line twice.
//!
//! # Crash consistency
//!
//! States and gaps that wait for the database live in memory. A daemon that is killed meanwhile forgets them: an
//! instance then finishes by silence (`idle_after`), and a gap is only in the worker's own log.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use chrono_tz::Tz;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::console;
use super::forward::{self, Forwarder};
use super::gaps::Gaps;
use super::report;
use super::status::{self, Statuses};
use crate::config;
use crate::model::App;
use crate::protocol::{Parts, Surface, routes};

/// Bytes of reports that are being stored, together. A report of 20 lines has some KiB.
const ROOM_BYTES: u64 = 64 << 20;

/// What the handlers share.
pub(super) struct Front {
    pub parts: Parts,
    pub app: App,
    pub timezone: Tz,
    pub public_url: Option<url::Url>,
    pub listens_at: std::net::SocketAddr,
    pub forwarder: Forwarder,
    pub statuses: Statuses,
    pub gaps: Gaps,
    /// One permit a KiB.
    room: Arc<Semaphore>,
}

/// The port that `[protocol.powerjob]` opens.
pub fn surface(settings: &config::PowerJob, parts: &Parts) -> anyhow::Result<Surface> {
    let (statuses, queue) = Statuses::new(Arc::clone(&parts.metrics));
    let room = ROOM_BYTES.max(parts.max_body_bytes).div_ceil(1024);
    let front = Arc::new(Front {
        app: settings.app.clone(),
        timezone: settings.timezone,
        public_url: settings.public_url.clone(),
        listens_at: settings.listen,
        forwarder: Forwarder::new(settings.server.clone(), settings.console.clone())?,
        statuses,
        gaps: Gaps::new(parts.clone(), settings.app.clone()),
        room: Arc::new(Semaphore::new(usize::try_from(room).unwrap_or(Semaphore::MAX_PERMITS))),
        parts: parts.clone(),
    });
    let router = Router::new()
        .route("/server/reportLog", post(report::report_log))
        .route("/server/reportInstanceStatus", post(status::report_status))
        .route("/instance/log", get(console::page))
        .route("/instance/downloadLogUrl", get(console::download_url))
        .route("/instance/downloadLog", get(console::download))
        .route("/instance/downloadLog4Console", get(console::download_for_console))
        .method_not_allowed_fallback(forward::forward)
        .fallback(forward::forward)
        .with_state(Arc::clone(&front));
    Ok(Surface {
        name: "powerjob",
        address: settings.listen,
        handler: routes(router),
        background: Some(Arc::new(move |stop| {
            let (front, queue) = (Arc::clone(&front), queue.clone());
            Box::pin(async move {
                futures::join!(queue.run(&front, &stop), front.gaps.run(&stop));
            })
        })),
    })
}

impl Front {
    /// A request's whole body, and the room that it takes until that is dropped.
    pub async fn body(&self, request: Request<Body>) -> Result<(Bytes, OwnedSemaphorePermit), Response> {
        let limit = self.parts.max_body_bytes;
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(limit);
        if announced > limit {
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have at most {limit} bytes")));
        }
        let kib = u32::try_from(announced / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) else {
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "more is waiting to be stored than fits in memory"));
        };
        let body = axum::body::to_bytes(request.into_body(), usize::try_from(limit).unwrap_or(usize::MAX)).await;
        let body = body.map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        Ok((body, room))
    }
}

/// A refusal in words; PowerJob's workers log it.
pub(super) fn refusal(status: StatusCode, words: impl std::fmt::Display) -> Response {
    (status, format!("logtier: {words}\n")).into_response()
}
