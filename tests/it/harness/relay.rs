//! A TCP relay in front of a server, which the test can cut and mend: a database that goes away and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Forwards connections to a server as long as it is not cut.
pub struct Relay {
    pub address: SocketAddr,
    /// Cancelled when the line is cut; a new one from then on.
    line: Arc<std::sync::Mutex<Option<CancellationToken>>>,
    pub connections: Arc<AtomicU64>,
}

impl Relay {
    pub async fn start(target: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let line = Arc::new(std::sync::Mutex::new(Some(CancellationToken::new())));
        let connections = Arc::new(AtomicU64::new(0));
        let relay = Relay { address, line: Arc::clone(&line), connections: Arc::clone(&connections) };
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let token = line.lock().unwrap().clone();
                // A line that is cut: the connection breaks at once.
                let (Some(token), Ok(mut outside)) = (token, TcpStream::connect(&target).await) else { continue };
                let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        () = token.cancelled() => {}
                    }
                });
            }
        });
        relay
    }

    /// Breaks every connection, and every new one, until [`Relay::mend`].
    pub fn cut(&self) {
        if let Some(token) = self.line.lock().unwrap().take() {
            token.cancel();
        }
    }

    pub fn mend(&self) {
        *self.line.lock().unwrap() = Some(CancellationToken::new());
    }
}
