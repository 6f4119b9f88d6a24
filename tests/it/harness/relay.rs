//! A TCP relay in front of a server, which the test can cut and mend: a database that goes away and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Forwards connections to a server as long as it is not cut.
pub struct Relay {
    pub address: SocketAddr,
    /// Cancelled when the line is cut; a new one from then on.
    line: Arc<std::sync::Mutex<Option<CancellationToken>>>,
    pub connections: Arc<AtomicU64>,
    /// Each piece that passes is held back for so many milliseconds.
    delay: Arc<AtomicU64>,
}

impl Relay {
    pub async fn start(target: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let line = Arc::new(std::sync::Mutex::new(Some(CancellationToken::new())));
        let connections = Arc::new(AtomicU64::new(0));
        let delay = Arc::new(AtomicU64::new(0));
        let (line_of_relay, delay_of_relay) = (Arc::clone(&line), Arc::clone(&delay));
        let relay =
            Relay { address, line: line_of_relay, connections: Arc::clone(&connections), delay: delay_of_relay };
        tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                let token = line.lock().unwrap().clone();
                // A line that is cut: the connection breaks at once.
                let (Some(token), Ok(outside)) = (token, TcpStream::connect(&target).await) else { continue };
                let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
                connections.fetch_add(1, Ordering::SeqCst);
                let delay = Arc::clone(&delay);
                tokio::spawn(async move {
                    let ((from_inside, to_inside), (from_outside, to_outside)) =
                        (inside.into_split(), outside.into_split());
                    let both = futures::future::join(
                        pass(from_inside, to_outside, &delay),
                        pass(from_outside, to_inside, &delay),
                    );
                    tokio::select! {
                        _ = both => {}
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

    /// Holds back each piece that passes; zero ends it.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        *self.line.lock().unwrap() = Some(CancellationToken::new());
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let delay = delay.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
