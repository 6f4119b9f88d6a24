//! An S3 endpoint that PowerJob takes for its MinIO: log files become instances, everything else stays a file.
//!
//! # Overview
//!
//! The crate `s3s` speaks S3 and checks signatures, of requests and of every chunk of a body; what a request means
//! is decided here. `PUT {bucket}/log/oms-{id}.log` is taken apart into lines ([`logs`]), `GET` and `HEAD` put them
//! together again with the same bytes. Any other key (`container/…` is all that PowerJob has) is a file that is
//! kept as it is, outside of all retention ([`files`]). A body is received whole and checked before a byte of it
//! is stored ([`spool`]).
//!
//! # Invariants
//!
//! - A `PUT` is answered after its last commit (I1).
//! - **Absence is said only when it is certain** (I8). PowerJob takes every refusal of `GET` and `HEAD`, 404 as well as
//!   403 and 503, for "there is no log", and remembers that for ever. So where a tier cannot be asked, the
//!   connection is closed without an answer: its client tries again, and PowerJob remembers nothing.
//! - A log that is still growing is not given out either: PowerJob would keep the part that it got for the whole.
//!
//! # Crash consistency
//!
//! A file whose lines are stored in part is an unfinished attempt with a prefix of the file. The next `PUT` of the
//! same file finds that prefix and goes on behind it.

mod compare;
mod files;
mod logs;
mod spool;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, ETag, GetBucketAclInput, GetBucketAclOutput, GetObjectInput,
    GetObjectOutput, Grant, Grantee, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, Owner,
    Permission, PutBucketPolicyInput, PutBucketPolicyOutput, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
    Type,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::sync::Semaphore;

use files::Files;
use logs::Logs;
use spool::{Promised, Spool};

use super::{InstanceId, LOG_BUCKET};
use crate::config;
use crate::model::Millis;
use crate::protocol::{HungUp, Parts, Surface};

/// Bodies that are received and stored at a time. A PowerJob server stores one file after the other.
const MAX_PUTS: usize = 16;

/// The one key that opens it.
struct OneKey {
    access_key: String,
    secret: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key { Ok(self.secret.clone()) } else { Err(s3_error!(InvalidAccessKeyId)) }
    }
}

/// The endpoint that `[protocol.powerjob_s3]` opens.
pub fn surface(settings: &config::PowerJobS3, parts: &Parts) -> anyhow::Result<Surface> {
    let endpoint = Endpoint {
        bucket: settings.bucket.clone(),
        logs: Logs::new(parts.clone(), settings.app.clone(), settings.timezone),
        files: Files::new(parts.clone()),
        spool: Spool::new(parts.clone(), settings.max_file_size),
        puts: Semaphore::new(MAX_PUTS),
    };
    let mut builder = S3ServiceBuilder::new(endpoint);
    builder.set_auth(OneKey { access_key: settings.access_key.clone(), secret: settings.secret_key.expose().into() });
    let service = builder.build();
    Ok(Surface {
        name: "powerjob_s3",
        address: settings.listen,
        handler: Arc::new(move |request| Box::pin(serve(service.clone(), request))),
        background: None,
    })
}

async fn serve(service: S3Service, request: Request<Incoming>) -> Result<axum::response::Response, HungUp> {
    let asks_for_object = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path().to_owned();
    let answer = service.call(request.map(s3s::Body::from)).await;
    let answer = answer.map_err(|error| HungUp(format!("{path}: {error:?}")))?;
    let status = answer.status();
    // What this endpoint does not know is no statement on what it has.
    let is_unproved = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    if asks_for_object && is_unproved {
        return Err(HungUp(format!("{path}: nobody can say now what is there")));
    }
    Ok(answer.map(Body::new))
}

struct Endpoint {
    bucket: String,
    logs: Logs,
    files: Files,
    spool: Spool,
    puts: Semaphore,
}

/// What a key means.
enum Meaning {
    Log(InstanceId),
    File,
}

impl Meaning {
    fn of(key: &str) -> Self {
        let name = key.strip_prefix(LOG_BUCKET).and_then(|name| name.strip_prefix('/'));
        let id = name.and_then(|name| InstanceId::of_file(name).filter(|id| id.stored_name() == name));
        id.map_or(Self::File, Self::Log)
    }
}

/// An object as `HEAD` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    bytes: u64,
    md5: [u8; 16],
    modified: Millis,
}

impl Described {
    fn e_tag(&self) -> ETag {
        ETag::Strong(hex(&self.md5))
    }

    fn last_modified(&self) -> Timestamp {
        let since = Duration::from_millis(u64::try_from(self.modified.get()).unwrap_or(0));
        Timestamp::from(SystemTime::UNIX_EPOCH + since)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cause is logged here: the client only learns that it should try again.
fn unavailable(what: &str, error: &(dyn std::error::Error + 'static)) -> S3Error {
    tracing::warn!(error = super::log_file::chain(error), "{what}");
    S3Error::with_message(S3ErrorCode::ServiceUnavailable, "a tier does not answer; nothing is lost, try again")
}

impl Endpoint {
    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.bucket {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket, "the one bucket here is {}", self.bucket))
        }
    }

    async fn describe(&self, bucket: &str, key: &str) -> S3Result<Described> {
        self.check_bucket(bucket)?;
        match Meaning::of(key) {
            Meaning::Log(id) => Ok(self.logs.open(id).await?.described),
            Meaning::File => Ok(self.files.find(key).await?.described()),
        }
    }
}

/// The calls that PowerJob's `MinioOssService` makes, and `HEAD` of a bucket. Everything else is 501.
#[async_trait::async_trait]
impl S3 for Endpoint {
    async fn get_bucket_acl(&self, request: S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
        self.check_bucket(&request.input.bucket)?;
        let owner = "logtier".to_owned();
        let grantee = Grantee {
            id: Some(owner.clone()),
            display_name: None,
            email_address: None,
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        };
        let grant =
            Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) };
        let owner = Owner { id: Some(owner), display_name: None };
        Ok(S3Response::new(GetBucketAclOutput { grants: Some(vec![grant]), owner: Some(owner) }))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if request.input.bucket != self.bucket {
            return Err(s3_error!(AccessDenied, "the one bucket here is {}", self.bucket));
        }
        let location = Some(format!("/{}", self.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    /// PowerJob asks that everyone may read. Nobody may without the keys, whatever the policy says.
    async fn put_bucket_policy(
        &self,
        request: S3Request<PutBucketPolicyInput>,
    ) -> S3Result<S3Response<PutBucketPolicyOutput>> {
        self.check_bucket(&request.input.bucket)?;
        Ok(S3Response::new(PutBucketPolicyOutput {}))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let trailers = request.trailing_headers.clone();
        let mut input = request.input;
        self.check_bucket(&input.bucket)?;
        let body = input.body.take().ok_or(S3ErrorCode::IncompleteBody)?;
        let promised = Promised::of(&input, trailers);
        let Ok(_put) = self.puts.acquire().await else { return Err(s3_error!(ServiceUnavailable)) };
        let mut received = self.spool.receive(body, promised).await?;
        let e_tag = Some(ETag::Strong(hex(&received.md5)));
        match Meaning::of(&input.key) {
            Meaning::Log(id) => self.logs.put(id, &mut received).await?,
            Meaning::File => self.files.put(&input.key, &mut received).await?,
        }
        Ok(S3Response::new(PutObjectOutput { e_tag, ..PutObjectOutput::default() }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let found = self.describe(&request.input.bucket, &request.input.key).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(found.bytes).ok(),
            content_type: Some(CONTENT_TYPE.to_owned()),
            e_tag: Some(found.e_tag()),
            last_modified: Some(found.last_modified()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, .. } = request.input;
        self.check_bucket(&bucket)?;
        let (found, body) = match Meaning::of(&key) {
            Meaning::Log(id) => {
                let log = self.logs.open(id).await?;
                let body = Body::from_stream(self.logs.stream(&log));
                (log.described, body)
            }
            Meaning::File => {
                let file = self.files.find(&key).await?;
                let body = Body::from_stream(self.files.stream(&file).await?);
                (file.described(), body)
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::from(s3s::Body::http_body_unsync(body))),
            content_length: i64::try_from(found.bytes).ok(),
            content_type: Some(CONTENT_TYPE.to_owned()),
            e_tag: Some(found.e_tag()),
            last_modified: Some(found.last_modified()),
            ..GetObjectOutput::default()
        }))
    }
}

const CONTENT_TYPE: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stored_log_files_are_logs() {
        assert!(matches!(Meaning::of("log/oms-148084482785968256.log"), Meaning::Log(_)));
        for key in ["log/148084482785968256-stable.log", "log/oms-x.log", "container/oms-1.log", "oms-1.log", "log/"] {
            assert!(matches!(Meaning::of(key), Meaning::File), "{key}");
        }
    }

    #[test]
    fn an_e_tag_is_the_md5_in_hex() {
        let found = Described { bytes: 0, md5: [0xab; 16], modified: Millis::new(0) };
        assert_eq!(found.e_tag(), ETag::Strong("ab".repeat(16)));
    }
}
