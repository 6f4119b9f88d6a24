//! The store against S3 over HTTP: real requests, signatures, status codes, in process.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::TryStreamExt as _;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use tokio::task::JoinSet;

use super::*;

/// A server that lives as long as this value.
struct S3 {
    address: SocketAddr,
    _folder: tempfile::TempDir,
    _server: JoinSet<()>,
}

/// A dialect of S3.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// Like Alibaba OSS: 403 to path-style requests, 501 to conditional puts.
    Oss,
}

async fn serve(kind: Kind) -> S3 {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::create_dir(folder.path().join("logs")).expect("bucket");
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).expect("file system"));
    builder.set_auth(SimpleAuth::from_single("id", "secret"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    if kind == Kind::Oss {
        builder.set_host(SingleDomain::new(&format!("localhost:{}", address.port())).expect("domain"));
    }
    let service = builder.build();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            let dialect = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (service, refusal) = (service.clone(), refusal(kind, &request));
                async move {
                    match refusal {
                        Some(status) => {
                            let mut response = Response::new(s3s::Body::empty());
                            *response.status_mut() = status;
                            Ok(response)
                        }
                        None => service.call(request.map(s3s::Body::from)).await,
                    }
                }
            });
            connections.spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), dialect).await;
            });
        }
    });
    S3 { address, _folder: folder, _server: server }
}

fn refusal(kind: Kind, request: &Request<hyper::body::Incoming>) -> Option<StatusCode> {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    match kind {
        Kind::Plain => None,
        Kind::Oss if request.headers().contains_key("if-none-match") => Some(StatusCode::NOT_IMPLEMENTED),
        Kind::Oss if !host.starts_with("logs.") => Some(StatusCode::FORBIDDEN),
        Kind::Oss => None,
    }
}

fn settings(s3: &S3, url: &str) -> StoreSettings {
    let host = if url.starts_with("oss") { "localhost" } else { "127.0.0.1" };
    StoreSettings {
        endpoint: Some(format!("http://{host}:{}", s3.address.port()).parse().expect("URL")),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        allow_http: true,
        ..StoreSettings::new(url.parse().expect("URL"))
    }
}

#[tokio::test]
async fn every_call_works_in_both_dialects() {
    for (kind, url) in [(Kind::Plain, "s3://logs/some/prefix"), (Kind::Oss, "oss://logs")] {
        let s3 = serve(kind).await;
        let store = Store::open(&settings(&s3, url)).expect("store");
        let key = Key::stored("v1/app=a%2Fb%25/x");
        assert!(matches!(store.head(&key).await, Err(Error::NotFound { .. })), "{url}");
        store.put(&key, Bytes::from_static(b"0123456789")).await.expect("put");
        assert_eq!(store.get(&key).await.expect("get"), "0123456789");
        assert_eq!(store.get_range(&key, 2..5).await.expect("range"), "234");
        assert_eq!(store.head(&key).await.expect("head"), 10);
        for range in [5..11, 10..12] {
            let error = store.get_range(&key, range).await.expect_err("too long");
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        }
        let large: Vec<u8> = (0..20_000_000u32).map(|n| (n >> 7) as u8).collect();
        let mut upload = store.upload(&key);
        upload.write(&large).await.expect("write");
        let uploaded = upload.finish().await.expect("finish");
        let stream = store.stream_range(&key, 0..uploaded.byte_length).await.expect("stream");
        let read = stream.try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        assert!(read.await.expect("read") == large);
        let listed: Vec<_> = store.list(Key::v1_folder()).try_collect().await.expect("list");
        assert_eq!(listed, [Listed { key: key.clone(), byte_length: 20_000_000 }]);
        let mut upload = store.upload(&Key::stored("v1/given-up"));
        upload.write(&large).await.expect("write");
        upload.abort().await.expect("abort");
        store.delete(&key).await.expect("delete");
        store.delete(&key).await.expect("delete again");
        assert_eq!(store.list(Key::v1_folder()).try_collect::<Vec<_>>().await.expect("list"), []);
        assert_eq!(store.counters().puts.load(Ordering::Relaxed), 1 + 5 + 4);
    }
}

#[tokio::test]
async fn refusals_are_permanent() {
    let s3 = serve(Kind::Plain).await;
    let key = Key::cluster();
    let mut wrong_secret = settings(&s3, "s3://logs");
    wrong_secret.secret_access_key = Some("guess".to_owned());
    let error = Store::open(&wrong_secret).expect("store").get(&key).await.expect_err("wrong secret");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let oss = serve(Kind::Oss).await;
    let mut path_style = settings(&oss, "oss://logs");
    path_style.virtual_hosted_style = Some(false);
    let error = Store::open(&path_style).expect("store").get(&key).await.expect_err("path style");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_no_missing_object() {
    let s3 = serve(Kind::Plain).await;
    let settings = settings(&s3, "s3://logs");
    drop(s3);
    let error = Store::open(&settings).expect("store").get(&Key::cluster()).await.expect_err("away");
    assert!(matches!(error, Error::Unavailable { .. }) && !error.is_permanent(), "{error:?}");
}
