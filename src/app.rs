//! Builds a daemon out of its settings, runs it, and brings it down in order.
//!
//! Down goes in the order of the data's way: no new requests, then accepted ones finish, then what
//! is queued is committed, then the archiver gives up its object and its lease, then connections close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::archive::{ArchiveSettings, Archiver, PurgeSettings, RewriteSettings, Worker, rules_digest};
use crate::audit::{Audit, Scrub, ScrubSettings, Status, StatusSettings};
use crate::catalog::{Catalog, DaemonRow};
use crate::clock::Clock;
use crate::cold::Store;
use crate::cold::segment::SegmentSettings;
use crate::config::Config;
use crate::http::{self, Api, HttpSettings, Token};
use crate::ingest::{Ingest, IngestSettings, Lane};
use crate::model::Millis;
use crate::pairing;
use crate::protocol::{self, Parts, Surface};
use crate::read::Reader;
use crate::supervisor::Supervisor;
use crate::telemetry::{Metrics, chain};
use crate::tiers::open_replicas;
pub(crate) use crate::tiers::open_store;
pub use crate::tiers::{open_and_migrate, open_as_is, open_hot_tier, open_if_there, take_databases};

/// A daemon that is up.
pub struct App {
    pub address: SocketAddr,
    /// Where the protocols of other systems listen, by name.
    pub surfaces: Vec<(&'static str, SocketAddr)>,
    pub ingest: Ingest,
    pub reader: Reader,
    pub archiver: Archiver,
    pub store: Store,
    pub catalog: Catalog,
    pub metrics: Arc<Metrics>,
    name: String,
    supervisor: Supervisor,
    inlets: Inlets,
    drain_timeout: Duration,
}

/// What records can still come through. The lanes stop once the last of it is closed.
#[derive(Clone, Default)]
struct Inlets {
    open: Arc<AtomicUsize>,
    drained: CancellationToken,
}

impl Inlets {
    fn open(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    fn close(&self) {
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.drained.cancel();
        }
    }
}

/// How often a daemon says that it lives, and its gauges are brought up to date.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A daemon that has been silent for so long is taken off the list.
const FORGET_DAEMON: Duration = Duration::from_secs(24 * 3600);

/// Starts a daemon. Fails where the settings and what they point at do not fit.
pub async fn start(config: &Config, clock: Clock) -> anyhow::Result<App> {
    start_on(listen("server.listen", config.server.listen).await?, config, clock).await
}

/// The same on a socket that listens already.
pub async fn start_on(listener: TcpListener, config: &Config, clock: Clock) -> anyhow::Result<App> {
    let cluster = open_hot_tier(config, &clock).await?;
    pairing::refuse_unfinished(&cluster).await?;
    let store = open_store(config)?;
    let metrics = Arc::new(Metrics::default());
    let catalog = Catalog::new(cluster);
    let supervisor = Supervisor::new(clock.clone(), Arc::clone(&metrics));
    let name = daemon_name(&clock);

    let (cluster_id, is_new) = pairing::cluster_id(&catalog.cluster, &clock).await?;
    pair_at_start(&catalog, &store, &cluster_id, is_new).await?;

    let address = listener.local_addr()?;

    let ingest_settings =
        IngestSettings { queue_bytes: config.ingest.queue_size, idle_after: config.archive.idle_after };
    let (ingest, lanes) = Ingest::new(catalog.clone(), clock.clone(), Arc::clone(&metrics), &ingest_settings);
    let inlets = Inlets::default();
    supervise_lanes(&supervisor, lanes, &inlets.drained);

    let mut settings = archive_settings(config, &cluster_id, &name);
    settings.purge.replicas = open_replicas(config, &clock).await?;
    let (archiver, worker) = Archiver::new(
        catalog.clone(),
        store.clone(),
        clock.clone(),
        Arc::clone(&metrics),
        settings,
        supervisor.stop().clone(),
    );
    let reader = Reader::new(catalog.clone(), store.clone(), clock.clone(), Arc::clone(&metrics));
    let mut app = App {
        address,
        surfaces: Vec::new(),
        ingest: ingest.clone(),
        reader: reader.clone(),
        archiver: archiver.clone(),
        store,
        catalog,
        metrics,
        name,
        supervisor,
        inlets,
        drain_timeout: config.server.drain_timeout,
    };
    app.supervise_archiver(worker, cluster_id.clone(), is_new, clock.clone());
    app.supervise_scrub(config, cluster_id.clone(), clock.clone());
    let status = app.status(config, &cluster_id, clock.clone());
    app.supervise_heartbeat(config, status.clone(), clock.clone());
    let api = Api {
        ingest,
        reader,
        archiver,
        status,
        metrics: Arc::clone(&app.metrics),
        clock,
        settings: http_settings(config),
        tasks: app.supervisor.tasks().clone(),
        shutdown: app.supervisor.stop().clone(),
    };
    let parts = app.parts(config, api.clock.clone());
    app.supervise_http(listener, api);
    for surface in protocol::surfaces(&config.protocol, &parts)? {
        app.supervise_surface(surface).await?;
    }
    tracing::info!(http.address = %address, daemon.name = app.name, "logtier is up");
    Ok(app)
}

impl App {
    /// Tells the daemon to stop; [`App::shut_down`] waits for it.
    pub fn stop(&self) {
        self.supervisor.stop().cancel();
    }

    /// Stops in order: requests, queue, archiver, connections. False where something hung.
    pub async fn shut_down(self) -> bool {
        self.stop();
        // The HTTP server ends first by itself; the lanes empty their queues when it has.
        let in_time = self.supervisor.drain(self.drain_timeout + Duration::from_secs(5)).await;
        for db in self.catalog.cluster.servers() {
            let _ = self.catalog.forget_daemons(db, &self.name, Millis::ZERO).await;
        }
        self.catalog.cluster.close().await;
        tracing::info!(in_time, "logtier is down");
        in_time
    }

    fn supervise_http(&self, listener: TcpListener, api: Api) {
        let router = http::router(api);
        self.supervise_listener("http", listener, move |listener, stop, drain| {
            http::serve(listener, router.clone(), stop, drain)
        });
    }

    /// Opens a protocol's port and runs what it does beside its requests.
    async fn supervise_surface(&mut self, surface: Surface) -> anyhow::Result<()> {
        let Surface { name, address, handler, background } = surface;
        let listener = listen(&format!("protocol.{name}.listen"), address).await?;
        let address = listener.local_addr()?;
        tracing::info!(http.address = %address, "protocol {name} is up");
        self.surfaces.push((name, address));
        self.supervise_listener(name, listener, move |listener, stop, drain| {
            let handler = Arc::clone(&handler);
            http::serve_connections(listener, service_fn(move |request| handler(request)), stop, drain)
        });
        if let Some(work) = background {
            let (inlets, stop) = (self.inlets.clone(), self.supervisor.stop().clone());
            inlets.open();
            self.supervisor.supervise(name, move || {
                let (work, inlets) = (work(stop.clone()), inlets.clone());
                async move {
                    work.await;
                    inlets.close();
                }
            });
        }
        Ok(())
    }

    fn supervise_listener<F>(
        &self,
        name: &'static str,
        listener: TcpListener,
        serve: impl Fn(TcpListener, CancellationToken, Duration) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, inlets, drain) = (self.supervisor.stop().clone(), self.inlets.clone(), self.drain_timeout);
        inlets.open();
        // The socket outlives a server that died, so that the next one listens at the same place.
        let listener = listener.into_std();
        self.supervisor.supervise(name, move || {
            let socket = listener.as_ref().map(|socket| socket.try_clone().and_then(TcpListener::from_std));
            let serving = match socket {
                Ok(Ok(listener)) => Some(serve(listener, stop.clone(), drain)),
                _ => None,
            };
            let inlets = inlets.clone();
            async move {
                match serving {
                    Some(serving) => serving.await,
                    None => tracing::error!("the listening socket of {name} is lost"),
                }
                inlets.close();
            }
        });
    }

    fn supervise_archiver(&self, worker: Worker, cluster_id: String, is_new: bool, clock: Clock) {
        let (catalog, store, stop) = (self.catalog.clone(), self.store.clone(), self.supervisor.stop().clone());
        self.supervisor.supervise("archive", move || {
            let (catalog, store, worker) = (catalog.clone(), store.clone(), worker.clone());
            let (stop, clock, id) = (stop.clone(), clock.clone(), cluster_id.clone());
            async move {
                while let Err(error) = pairing::pair(&catalog, &store, &id, is_new).await {
                    if !error.is_passing() {
                        tracing::error!(error = chain(&error), "nothing is archived");
                        return;
                    }
                    tokio::select! {
                        () = clock.sleep(HEARTBEAT) => {}
                        () = stop.cancelled() => return,
                    }
                }
                worker.run().await;
            }
        });
    }

    fn supervise_scrub(&self, config: &Config, cluster_id: String, clock: Clock) {
        let scrub = Scrub {
            audit: Audit { catalog: self.catalog.clone(), store: self.store.clone(), clock: clock.clone() },
            metrics: Arc::clone(&self.metrics),
            settings: ScrubSettings {
                every: config.scrub.every,
                bytes_per_second: config.scrub.rate,
                daemon: self.name.clone(),
            },
            stop: self.supervisor.stop().clone(),
        };
        self.supervisor.supervise("scrub", move || {
            let (scrub, id, clock) = (scrub.clone(), cluster_id.clone(), clock.clone());
            async move {
                // The archiver says what is wrong; of another bucket nothing would be right.
                while pairing::pair(&scrub.audit.catalog, &scrub.audit.store, &id, false).await.is_err() {
                    tokio::select! {
                        () = clock.sleep(HEARTBEAT) => {}
                        () = scrub.stop.cancelled() => return,
                    }
                }
                scrub.run().await;
            }
        });
    }

    fn supervise_heartbeat(&self, config: &Config, status: Status, clock: Clock) {
        let (catalog, stop) = (self.catalog.clone(), self.supervisor.stop().clone());
        let row = DaemonRow {
            name: self.name.clone(),
            rules: rules_digest(&config.retention.rules, config.retention.shrink_grace),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: clock.now(),
            seen_at: clock.now(),
        };
        self.supervisor.supervise("heartbeat", move || {
            let (catalog, stop, clock, status, row) =
                (catalog.clone(), stop.clone(), clock.clone(), status.clone(), row.clone());
            async move {
                while !stop.is_cancelled() {
                    let row = DaemonRow { seen_at: clock.now(), ..row.clone() };
                    let before = Millis::new(clock.now().get() - FORGET_DAEMON.as_millis() as i64);
                    for db in catalog.cluster.servers() {
                        // A database that is away is noticed and told by those who need it.
                        let _ = catalog.heartbeat(db, &row).await;
                        let _ = catalog.forget_daemons(db, "", before).await;
                    }
                    status.refresh_metrics().await;
                    tokio::select! {
                        () = clock.sleep(HEARTBEAT) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        });
    }

    /// What protocols are made of.
    fn parts(&self, config: &Config, clock: Clock) -> Parts {
        Parts {
            ingest: self.ingest.clone(),
            reader: self.reader.clone(),
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            clock,
            tasks: self.supervisor.tasks().clone(),
            stop: self.supervisor.stop().clone(),
            max_body_bytes: config.server.max_body_size,
            max_record_bytes: config.ingest.max_record_size as usize,
            data_dir: config.data_dir.clone(),
        }
    }

    fn status(&self, config: &Config, cluster_id: &str, clock: Clock) -> Status {
        let settings = StatusSettings {
            daemon: self.name.clone(),
            cluster_id: cluster_id.to_owned(),
            hot_urls: config.hot.servers.iter().map(|server| server.url.to_string()).collect(),
            cold_url: config.cold.url.to_string(),
            shrink_grace: config.retention.shrink_grace,
        };
        Status::new(self.catalog.clone(), self.store.clone(), clock, Arc::clone(&self.metrics), settings)
    }
}

/// Recent logs are taken in and shown while the bucket is away.
async fn pair_at_start(catalog: &Catalog, store: &Store, id: &str, is_new: bool) -> anyhow::Result<()> {
    match pairing::pair(catalog, store, id, is_new).await {
        Err(error) if error.is_passing() => {
            tracing::warn!(error = chain(&error), "the cold tier does not answer; archiving waits for it");
            Ok(())
        }
        result => Ok(result?),
    }
}

fn supervise_lanes(supervisor: &Supervisor, lanes: Vec<Lane>, drained: &CancellationToken) {
    for lane in lanes {
        let drained = drained.clone();
        supervisor.supervise("ingest", move || {
            let (lane, drained) = (lane.clone(), drained.clone());
            async move { lane.run(drained).await }
        });
    }
}

fn http_settings(config: &Config) -> HttpSettings {
    HttpSettings {
        token: config.server.token.as_ref().map(|token| Token::new(token.expose())),
        allow_anonymous: config.server.allow_anonymous,
        max_body_bytes: config.server.max_body_size,
        max_record_bytes: config.ingest.max_record_size as usize,
        schedule: config.archive.schedule.to_string(),
        ..HttpSettings::new(Arc::new(config.retention.rules.clone()))
    }
}

/// What the archiver is told of the configuration.
pub fn archive_settings(config: &Config, cluster_id: &str, daemon: &str) -> ArchiveSettings {
    let (schedule, window) = (config.archive.schedule.clone(), config.purge.window);
    let utc = |now: Millis| chrono::DateTime::from_timestamp_millis(now.get());
    ArchiveSettings {
        rules: Arc::new(config.retention.rules.clone()),
        idle_after: config.archive.idle_after,
        object_bytes: config.archive.object_size,
        max_delay: config.archive.max_delay,
        purge_grace: config.archive.purge_grace,
        forget_after: config.retention.forget_after,
        dedup_window: config.ingest.dedup_window,
        lease_ttl: config.archive.lease_ttl,
        abandoned_after: config.archive.abandoned_after,
        doomed_for: config.archive.doomed_for,
        shrink_grace: config.retention.shrink_grace,
        pressure_bytes: config.archive.pressure_size,
        purge: PurgeSettings {
            rest: f64::from(config.purge.rest) / 100.0,
            max_lock_waits: config.purge.max_lock_waits.into(),
            max_replica_lag: config.purge.max_replica_lag,
            replicas: Vec::new(),
            in_window: Arc::new(move |now| window.is_none_or(|window| utc(now).is_some_and(|now| window.holds(now)))),
        },
        rewrite: RewriteSettings {
            dead_share: f64::from(config.archive.rewrite_at) / 100.0,
            erase_within: config.retention.erase_within,
        },
        segment: SegmentSettings {
            level: config.cold.zstd_level,
            frame_size: config.cold.frame_size as usize,
            filters: config.cold.search_filters,
            // One waits, so that no processor does while the next frame is packed (docs/performance.md).
            parallelism: std::thread::available_parallelism().map_or(1, usize::from) + 1,
        },
        cluster_id: cluster_id.to_owned(),
        daemon: daemon.to_owned(),
        next_run: Arc::new(move |now| schedule.next_after(utc(now)?).map(|next| Millis::new(next.timestamp_millis()))),
    }
}

/// Takes a port, so that whoever cannot have it leaves no trace of having tried.
pub async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("listen on {address} ({setting}); another daemon may, or it is to be another port"))
}

/// Unlike any other process's: two daemons on one machine, or one that was restarted, differ.
fn daemon_name(clock: &Clock) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(30).collect();
    let unique = clock.new_ulid().to_string().to_lowercase();
    format!("{}-{}", if host.is_empty() { "logtier" } else { &host }, &unique[unique.len() - 10..])
}
