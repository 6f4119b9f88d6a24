use crate::{archive::Archiver, audit::Status, clock::Clock, ingest::Ingest, read::Reader, telemetry::Metrics};
use std::sync::Arc;
#[derive(Clone)]
pub struct Api {
    pub ingest: Ingest,
    pub reader: Reader,
    pub archiver: Archiver,
    pub status: Status,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub settings: HttpSettings,
}
#[derive(Clone)]
pub struct HttpSettings {}
pub fn router(_api: Api) -> axum::Router {
    axum::Router::new()
}
pub async fn serve(
    l: tokio::net::TcpListener,
    r: axum::Router,
    stop: tokio_util::sync::CancellationToken,
    _d: std::time::Duration,
) -> std::io::Result<()> {
    axum::serve(l, r).with_graceful_shutdown(async move { stop.cancelled().await }).await
}
