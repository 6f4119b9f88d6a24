//! An S3 server inside the test process (s3s over a folder), real HTTP on a loopback port.
//!
//! It counts and records the requests, fails on demand, and can be "an S3 that is not S3": no conditional
//! writes, no path-style addresses, as with Alibaba OSS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_NONE_MATCH, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as ConnectionBuilder;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};

use super::unique_name;

const ACCESS_KEY: &str = "logtier-test";
const SECRET_KEY: &str = "logtier-test-secret";
const BUCKET: &str = "lt-bucket";

/// How an S3 service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Conditional puts and path-style addresses, as Amazon's and most others.
    S3,
    /// 501 to `If-None-Match` on PUT, 403 to path-style addresses.
    ///
    /// A virtual host needs a name that resolves, and `*.localhost` does not everywhere. So the server's own
    /// address also counts as the bucket's host: `http://127.0.0.1:PORT/KEY`, which is what a client asks when
    /// it is told virtual-hosted style and that endpoint. A `Host` that begins with the bucket's name serves too.
    NotS3,
}

/// What a request meets instead of service.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 503 SlowDown; nothing was done.
    Refuse,
    /// 403 AccessDenied; nothing was done, and trying again will not help.
    Deny,
    /// Done, but the connection breaks before the answer.
    LoseAnswer,
    /// Done, after so long.
    Delay(Duration),
    /// Done, once the test lets it through: what happens meanwhile happens for certain at this point.
    Hold(Gate),
}

/// Where a request waits for the test.
#[derive(Clone, Debug)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Returns when a request waits here.
    pub async fn arrived(&self) {
        self.arrived.acquire().await.expect("never closed").forget();
    }

    /// Lets one request through.
    pub fn open(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query, as sent.
    pub target: String,
    pub range: Option<String>,
    /// `None` where the answer was lost on purpose.
    pub status: Option<StatusCode>,
}

#[derive(Default)]
struct Shared {
    seen: Vec<Seen>,
    faults: VecDeque<(Option<Method>, Fault)>,
}

/// A running server with one empty bucket; dropping it stops it and removes its folder.
pub struct S3Server {
    address: SocketAddr,
    flavour: Flavour,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    folder: TempDir,
}

impl S3Server {
    /// Starts on a free port. The server has a thread and a runtime of its own: a test may block.
    pub fn start(flavour: Flavour) -> S3Server {
        let folder = tempfile::tempdir().expect("make a temporary folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("make the bucket");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
        let address = listener.local_addr().expect("know the port");
        listener.set_nonblocking(true).expect("make the listener non-blocking");

        let files = s3s_fs::FileSystem::new(folder.path()).expect("open the folder");
        let mut service = S3ServiceBuilder::new(files);
        if flavour == Flavour::S3 {
            service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = service.build();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let front = Front { service, flavour, shared: shared.clone() };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Dropping the runtime ends the connections that are still open.
            runtime.expect("build a runtime").block_on(front.run(listener, stopped));
        });
        S3Server { address, flavour, shared, stop: Some(stop), thread: Some(thread), folder }
    }

    pub fn place(&self) -> S3Place {
        S3Place {
            endpoint: format!("http://{}", self.address),
            bucket: BUCKET.to_owned(),
            prefix: "logs".to_owned(),
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: SECRET_KEY.to_owned(),
            region: "us-east-1".to_owned(),
            virtual_hosted_style: self.flavour == Flavour::NotS3,
        }
    }

    /// The folder behind the bucket: to look at, or to damage, an object behind the server's back.
    pub fn bucket_folder(&self) -> std::path::PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The next `count` requests meet `fault`; only those of `method`, if one is given, and then not the
    /// question whose bucket it is.
    pub fn fail_next(&self, count: usize, method: Option<Method>, fault: Fault) {
        self.lock().faults.extend(std::iter::repeat_n((method, fault), count));
    }

    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// All requests since the start or the last call of this.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.lock().seen)
    }

    /// How many requests of a method there were since `take_seen`.
    pub fn count(&self, method: &Method) -> usize {
        self.lock().seen.iter().filter(|seen| seen.method == method).count()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where a test finds a bucket, whoever serves it.
#[derive(Clone, Debug)]
pub struct S3Place {
    pub endpoint: String,
    pub bucket: String,
    /// Nothing outside it belongs to the test.
    pub prefix: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub region: String,
    pub virtual_hosted_style: bool,
}

impl S3Place {
    /// The settings of the section `[cold]`, in the upper case of environment variables.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("URL", format!("s3://{}/{}", self.bucket, self.prefix)),
            ("ENDPOINT", self.endpoint.clone()),
            ("REGION", self.region.clone()),
            ("VIRTUAL_HOSTED_STYLE", self.virtual_hosted_style.to_string()),
            ("ACCESS_KEY_ID", self.access_key_id.clone()),
            ("SECRET_ACCESS_KEY", self.secret_access_key.clone()),
        ]
        .into_iter()
    }

    /// A client for the whole bucket, quick to give up.
    pub fn client(&self) -> AmazonS3Builder {
        // One process, one provider; a second installation fails and does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(self.virtual_hosted_style)
            .with_allow_http(true)
    }

    pub fn store(&self) -> AmazonS3 {
        self.client().build().expect("build an S3 client")
    }
}

/// The S3 that the environment names, else a fresh server in this process.
pub fn place_for_a_test() -> (S3Place, Option<S3Server>) {
    let variable = |name: &str| std::env::var(format!("LOGTIER_TEST_S3_{name}")).ok().filter(|value| !value.is_empty());
    let Some(endpoint) = variable("ENDPOINT") else {
        let server = S3Server::start(Flavour::S3);
        return (server.place(), Some(server));
    };
    let needed = |name: &str| {
        variable(name).unwrap_or_else(|| panic!("LOGTIER_TEST_S3_ENDPOINT is set, so LOGTIER_TEST_S3_{name} must be"))
    };
    let place = S3Place {
        endpoint,
        bucket: needed("BUCKET"),
        prefix: unique_name("lt-test-"),
        access_key_id: needed("ACCESS_KEY_ID"),
        secret_access_key: needed("SECRET_ACCESS_KEY"),
        region: variable("REGION").unwrap_or_else(|| "us-east-1".to_owned()),
        virtual_hosted_style: variable("VIRTUAL_HOSTED_STYLE").is_some_and(|value| value == "true" || value == "1"),
    };
    (place, None)
}

/// What stands between the socket and the S3 service.
#[derive(Clone)]
struct Front {
    service: S3Service,
    flavour: Flavour,
    shared: Arc<Mutex<Shared>>,
}

/// The answer is lost: hyper closes the connection on an error of the service.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost on purpose")]
struct Lost;

impl Front {
    async fn run(self, listener: std::net::TcpListener, mut stopped: oneshot::Receiver<()>) {
        let listener = tokio::net::TcpListener::from_std(listener).expect("register the listener");
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => return,
            };
            let Ok((socket, _)) = accepted else { continue };
            // Else a body waits 40 ms for the acknowledgement of its header.
            let _ = socket.set_nodelay(true);
            let front = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let front = front.clone();
                    async move { front.serve(request).await }
                });
                // An error here is a client that left, or an answer lost on purpose.
                let builder = ConnectionBuilder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, Lost> {
        let seen = Seen {
            method: request.method().clone(),
            target: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            range: request.headers().get(RANGE).and_then(|value| value.to_str().ok()).map(str::to_owned),
            status: None,
        };
        let fault = self.next_fault(&seen);
        let answer = match &fault {
            Some(Fault::Refuse) => Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Some(Fault::Deny) => Ok(error(StatusCode::FORBIDDEN, "AccessDenied")),
            Some(Fault::LoseAnswer) => {
                let _ = self.answer(request).await;
                Err(Lost)
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(*time).await;
                Ok(self.answer(request).await)
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                Ok(self.answer(request).await)
            }
            None => Ok(self.answer(request).await),
        };
        let status = answer.as_ref().ok().map(Response::status);
        self.lock().seen.push(Seen { status, ..seen });
        answer
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let request = match self.flavour {
            Flavour::S3 => request,
            Flavour::NotS3 => match from_virtual_host(request) {
                Ok(request) => request,
                Err(refused) => return *refused,
            },
        };
        match self.service.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(failure) => panic!("the S3 service failed: {failure:?}"),
        }
    }

    /// The first fault that applies, taken from the queue.
    fn next_fault(&self, seen: &Seen) -> Option<Fault> {
        let mut shared = self.lock();
        // Asked before each run; tests mean what the run does.
        let is_whose = seen.method == Method::GET && seen.target.contains("/cluster.json");
        let applies =
            |wanted: &Option<Method>| wanted.as_ref().is_none_or(|wanted| *wanted == seen.method && !is_whose);
        let at = shared.faults.iter().position(|(wanted, _)| applies(wanted))?;
        shared.faults.remove(at).map(|(_, fault)| fault)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what that service does not know, and puts the bucket into the path for the service behind, which takes
/// the host `127.0.0.1` for no bucket's. The new path does not fit the signature, so the key's id must do.
fn from_virtual_host(mut request: Request<Incoming>) -> Result<Request<Incoming>, Box<Response<Body>>> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let in_path = path.split(['/', '?']).nth(1) == Some(BUCKET) && !header(HOST).starts_with(&format!("{BUCKET}."));

    let refused = if request.method() == Method::PUT && request.headers().contains_key(IF_NONE_MATCH) {
        Some((StatusCode::NOT_IMPLEMENTED, "NotImplemented"))
    } else if in_path {
        Some((StatusCode::FORBIDDEN, "SecondLevelDomainForbidden"))
    } else if !header(AUTHORIZATION).contains(&format!("Credential={ACCESS_KEY}/")) {
        Some((StatusCode::FORBIDDEN, "InvalidAccessKeyId"))
    } else {
        None
    };
    if let Some((status, code)) = refused {
        return Err(Box::new(error(status, code)));
    }
    *request.uri_mut() = format!("/{BUCKET}{path}").parse().expect("a path with one more segment is a path");
    request.headers_mut().remove(AUTHORIZATION);
    Ok(request)
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the test</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    response
}
