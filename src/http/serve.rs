//! Connections: accepted, served, and ended in time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::impatient::Impatient;

/// Connections at a time; more wait to be accepted. Below the file limit that systemd gives (65,536).
const MAX_CONNECTIONS: usize = 16_384;

/// From the end of one request to the end of the next one's head; an idle connection ends then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// A client that takes nothing of its answer for so long is given up; whoever pages through one with
/// `less` is slower than any network.
const WRITE_PATIENCE: Duration = Duration::from_secs(300);

/// Bytes of an answer that wait for the client: with thousands of slow ones it is this that counts.
const MAX_BUFFER: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves the routes until `shutdown`; see [`serve_connections`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, drain: Duration) {
    serve_connections(listener, TowerToHyperService::new(router), shutdown, drain).await;
}

/// Serves until `shutdown`, then lets requests that are under way finish for at most `drain`.
/// Connections that are idle do not hold it up. Answers when all of them are closed.
///
/// Where the service answers with an error, the connection is closed without an answer.
pub async fn serve_connections<S, B>(listener: TcpListener, service: S, shutdown: CancellationToken, drain: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), shutdown.clone(), cut.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                // Out of files: without a pause this would spin until some are closed.
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    _ = tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()) => {}
                }
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(http.connections = connections.len(), "cutting off requests that did not finish in time");
        cut.cancel();
        connections.wait().await;
    }
}

async fn connection<S, B>(stream: TcpStream, service: S, shutdown: CancellationToken, cut: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    // Answers are written in one piece; waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_BUFFER);
    let stream = Impatient::new(stream, WRITE_PATIENCE);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection => result,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        // Clients go away at any time.
        tracing::debug!(error = %error, "connection ended");
    }
}
