//! An S3 server over a folder on loopback, for measurements on a machine without one.
//!
//! ```text
//! cargo run --release --example s3_server -- FOLDER PORT    # keys "bench" / "bench-secret"; buckets are subfolders
//! ```

use std::process::ExitCode;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, port] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    match serve(folder, port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve(folder: &str, port: &str) -> Result<(), Box<dyn std::error::Error>> {
    let files = s3s_fs::FileSystem::new(folder).map_err(|error| format!("open {folder}: {error:?}"))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single("bench", "bench-secret"));
    let service = service.build();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        // Answers go out in two writes; Nagle's algorithm would hold the second back.
        connection.set_nodelay(true)?;
        let service = service.clone();
        connections.spawn(async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
