//! An object store that fails in every way that stores fail in.
//!
//! It also watches two promises: a segment is never written over (I5), and only what was written
//! is ever deleted.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::Rng;

use super::world::{Fate, fault_met, point};

/// What a request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing was done: no connection, a server error.
    Down,
    /// Nothing was done: too many requests.
    Throttled,
    /// Done, and nobody learns of it.
    AnswerLost,
    /// A body that ends early.
    Truncated,
    /// A body with a bit turned over.
    Flipped,
}

/// Any store, with faults.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    fate: Arc<Fate>,
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>, fate: Arc<Fate>) -> Arc<Self> {
        Arc::new(Self { inner, fate })
    }

    /// The point before the request, and what it meets.
    async fn begin(&self, request: &str, path: &Path) -> Result<Option<Fault>> {
        point(&format!("begin {request} {path}")).await;
        if !self.fate.store_fails() {
            return Ok(None);
        }
        fault_met();
        let is_get = request == "GET";
        let fault = match self.fate.chance().random_range(0..10) {
            0..=2 => Fault::Down,
            3 | 4 => Fault::Throttled,
            5..=7 if !is_get => Fault::AnswerLost,
            5..=7 => Fault::Truncated,
            _ if is_get => Fault::Flipped,
            _ => Fault::AnswerLost,
        };
        self.fate.count(match fault {
            Fault::Down => "store down",
            Fault::Throttled => "store throttles",
            Fault::AnswerLost => "store answer lost",
            Fault::Truncated => "store body truncated",
            Fault::Flipped => "store body damaged",
        });
        match fault {
            Fault::Down => Err(failure("error sending request: connection refused")),
            Fault::Throttled => Err(failure("Server returned non-2xx status code: 503 Slow Down")),
            _ => Ok(Some(fault)),
        }
    }

    async fn end<T>(&self, request: &str, path: &Path, fault: Option<Fault>, done: Result<T>) -> Result<T> {
        point(&format!("end {request} {path}")).await;
        match fault {
            Some(Fault::AnswerLost) => Err(failure("error sending request: connection reset by peer")),
            _ => done,
        }
    }
}

fn failure(words: &'static str) -> Error {
    Error::Generic { store: "simulated", source: words.into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults over {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.begin("PUT", path).await?;
        if path.as_ref().ends_with(".ndjson.zst") {
            assert!(self.inner.head(path).await.is_err(), "the segment {path} is written over");
        }
        let done = self.inner.put_opts(path, payload, options).await;
        self.end("PUT", path, fault, done).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.begin("GET", path).await?;
        let done = self.inner.get_opts(path, options).await;
        let done = match (done, fault) {
            (Ok(result), Some(fault)) => Ok(spoilt(result, fault, &self.fate).await?),
            (done, _) => done,
        };
        self.end("GET", path, None, done).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = Self { inner: Arc::clone(&self.inner), fate: Arc::clone(&self.fate) };
        let deleted = futures::stream::try_unfold((this, paths), |(this, mut paths)| async move {
            let Some(path) = paths.try_next().await? else { return Ok(None) };
            let fault = this.begin("DELETE", &path).await?;
            let done = this.inner.delete(&path).await;
            this.end("DELETE", &path, fault, done).await?;
            Ok(Some((path, (this, paths))))
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The same answer with a body that is cut, or in which a bit is turned over.
async fn spoilt(result: GetResult, fault: Fault, fate: &Fate) -> Result<GetResult> {
    let (meta, range, attributes, extensions) =
        (result.meta.clone(), result.range.clone(), result.attributes.clone(), result.extensions.clone());
    let mut body = result.bytes().await?.to_vec();
    if !body.is_empty() {
        let at = fate.chance().random_range(0..body.len());
        match fault {
            Fault::Truncated => body.truncate(at),
            _ => body[at] ^= 1 << (at % 8),
        }
    }
    Ok(GetResult { payload: pieces(body), meta, range, attributes, extensions })
}

fn pieces(body: Vec<u8>) -> GetResultPayload {
    let body = Bytes::from(body);
    let cuts: Vec<Range<usize>> = (0..body.len()).step_by(700).map(|at| at..(at + 700).min(body.len())).collect();
    GetResultPayload::Stream(futures::stream::iter(cuts.into_iter().map(move |cut| Ok(body.slice(cut)))).boxed())
}
