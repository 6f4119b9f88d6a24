//! The test stores themselves: what the other tests assume of them holds.

use std::time::Duration;

use futures::TryStreamExt;
use hyper::{Method, StatusCode};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};

use crate::harness::s3::{Fault, Flavour, S3Server, place_for_a_test};

/// Larger than the smallest part that S3 allows, so that a multipart upload has two.
const PART: usize = 5 * 1024 * 1024;

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

/// What the cold tier needs of a store, without conditional writes.
async fn check_store(store: &dyn ObjectStore, prefix: &str) {
    let key = Path::from(format!("{prefix}/v1/app=a/rule=r/x.ndjson.zst"));
    store.put(&key, PutPayload::from_static(b"0123456789")).await.unwrap();
    assert_eq!(&store.get_range(&key, 2..5).await.unwrap()[..], b"234");
    assert_eq!(store.head(&key).await.unwrap().size, 10);

    let large = Path::from(format!("{prefix}/v1/large"));
    let mut upload = store.put_multipart(&large).await.unwrap();
    upload.put_part(PutPayload::from(vec![1_u8; PART])).await.unwrap();
    upload.put_part(PutPayload::from(vec![2_u8; 10])).await.unwrap();
    upload.complete().await.unwrap();
    let edge = PART as u64;
    assert_eq!(&store.get_range(&large, edge - 2..edge + 2).await.unwrap()[..], [1, 1, 2, 2]);

    let under = Path::from(prefix);
    let mut listed: Vec<_> = store.list(Some(&under)).map_ok(|object| object.location).try_collect().await.unwrap();
    listed.sort();
    assert_eq!(listed, [key.clone(), large.clone()]);

    for key in [&key, &large] {
        store.delete(key).await.unwrap();
    }
    assert!(matches!(store.get(&key).await, Err(object_store::Error::NotFound { .. })));
}

#[tokio::test]
async fn the_s3_store_does_what_the_cold_tier_needs() {
    let (place, _server) = place_for_a_test();
    let store = place.store();
    check_store(&store, &place.prefix).await;

    let key = Path::from(format!("{}/once", place.prefix));
    store.put_opts(&key, "first".into(), create()).await.unwrap();
    let again = store.put_opts(&key, "second".into(), create()).await;
    assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
    store.delete(&key).await.unwrap();
}

#[tokio::test]
async fn an_s3_that_is_not_s3_works_with_the_matching_settings_only() {
    let server = S3Server::start(Flavour::NotS3);
    let place = server.place();
    check_store(&place.store(), &place.prefix).await;

    let key = Path::from("logs/once");
    place.store().put_opts(&key, "text".into(), create()).await.unwrap_err();
    assert_eq!(server.take_seen().last().unwrap().status, Some(StatusCode::NOT_IMPLEMENTED));

    let path_style = place.client().with_virtual_hosted_style_request(false).build().unwrap();
    path_style.put(&key, "text".into()).await.unwrap_err();
    assert_eq!(server.take_seen().last().unwrap().status, Some(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn the_store_counts_its_requests_and_fails_on_demand() {
    let server = S3Server::start(Flavour::S3);
    let one_try = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let store = server.place().client().with_retry(one_try).build().unwrap();
    let key = Path::from("logs/x");

    server.fail_next(1, Some(Method::PUT), Fault::Refuse);
    store.put(&key, "text".into()).await.unwrap_err();
    assert!(matches!(store.head(&key).await, Err(object_store::Error::NotFound { .. })), "refused before it was done");

    server.fail_next(1, Some(Method::PUT), Fault::LoseAnswer);
    store.put(&key, "text".into()).await.unwrap_err();
    assert_eq!(store.head(&key).await.unwrap().size, 4, "done, and only the answer was lost");

    server.fail_next(1, None, Fault::Delay(Duration::from_millis(50)));
    server.take_seen();
    let start = std::time::Instant::now();
    store.get_range(&key, 1..3).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));

    let seen = server.take_seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0].method, seen[0].range.as_deref()), (&Method::GET, Some("bytes=1-2")));
    assert_eq!(seen[0].status, Some(StatusCode::PARTIAL_CONTENT));
    assert_eq!(server.count(&Method::GET), 0);
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let server = S3Server::start(Flavour::S3);
    let store = server.place().client().with_secret_access_key("wrong").build().unwrap();
    let refused = store.put(&Path::from("logs/x"), "text".into()).await;
    assert!(matches!(refused, Err(object_store::Error::PermissionDenied { .. })), "{refused:?}");
}
