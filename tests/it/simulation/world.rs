//! What the simulation puts in the place of clock, chance and fate.
//!
//! Everything that a daemon does for one request or one run is an *actor*: a future that only the
//! driver polls. At each point (a verb, either end of a transaction, either end of a request to the
//! store) the actor may be held. A held actor is a process that does not get on: the driver lets the
//! others act meanwhile, moves time, and lets it go on, or drops it, which is a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use logtier::clock::{Point, World};
use logtier::model::Millis;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

/// What one seed's daemons have in common.
#[derive(Debug)]
pub struct Fate {
    /// True time, by which the database goes.
    now: AtomicI64,
    chance: Mutex<StdRng>,
    /// Of a thousand requests to the store, so many meet a fault.
    pub store_faults: AtomicU64,
    /// Of a thousand transactions, so many meet a database that is away.
    pub database_faults: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Fate {
    pub fn new(seed: u64, now: Millis) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicI64::new(now.get()),
            chance: Mutex::new(StdRng::seed_from_u64(seed ^ 0x5EED)),
            store_faults: AtomicU64::new(0),
            database_faults: AtomicU64::new(0),
            counts: Mutex::default(),
        })
    }

    pub fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Moves true time; also back, as clocks are set.
    pub fn advance(&self, millis: i64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    pub fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meets(&self, per_thousand: &AtomicU64) -> bool {
        let share = per_thousand.load(Ordering::SeqCst);
        share > 0 && self.chance().random_range(0..1000) < share
    }

    /// Whether this request to the store meets a fault.
    pub fn store_fails(&self) -> bool {
        self.meets(&self.store_faults)
    }

    pub fn count(&self, what: &'static str) {
        *self.counts().entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One daemon's surroundings: the common fate, and a clock that may be wrong.
#[derive(Debug)]
pub struct Surroundings {
    pub fate: Arc<Fate>,
    pub skew: AtomicI64,
}

/// Longer than any pause between two tries, shorter than any wait for something to do.
const SHORT: Duration = Duration::from_secs(2);

impl World for Surroundings {
    fn now(&self) -> Millis {
        Millis::new(self.fate.now() + self.skew.load(Ordering::SeqCst))
    }

    fn database_now(&self) -> Millis {
        Millis::new(self.fate.now())
    }

    fn random(&self) -> u128 {
        self.fate.chance().random()
    }

    /// Pauses take no time. Whoever would wait for long is woken by nothing: the driver starts
    /// runs itself, and renews the leases of those that are slow but alive.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(
            async move { if span < SHORT { tokio::task::yield_now().await } else { std::future::pending().await } },
        )
    }

    fn reached(&self, point: Point) -> BoxFuture<'static, bool> {
        let fate = Arc::clone(&self.fate);
        Box::pin(async move {
            let Some(actor) = Actor::current() else { return false };
            let (name, what) = match point {
                Point::After(verb) => (format!("after {verb}"), None),
                Point::Begin(name) => (format!("begin {name}"), Some("database away before")),
                Point::End(name) => (format!("end {name}"), Some("database answer lost")),
            };
            actor.at(&name).await;
            match what {
                Some(what) if fate.meets(&fate.database_faults) => {
                    fate.count(what);
                    actor.meets_fault();
                    true
                }
                _ => false,
            }
        })
    }
}

tokio::task_local! {
    static ACTOR: Arc<Actor>;
}

/// Where an actor is to be held next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    Never,
    /// At the point with so many points before it.
    After(u32),
    /// At the next point whose name begins so.
    At(String),
}

/// One request or run under way.
#[derive(Debug)]
pub struct Actor {
    stop: Mutex<Stop>,
    /// The point at which it is held.
    held_at: Mutex<Option<String>>,
    arrived: Notify,
    go: Notify,
    faults: AtomicU64,
}

impl Actor {
    pub fn new(stop: Stop) -> Arc<Self> {
        Arc::new(Self {
            stop: Mutex::new(stop),
            held_at: Mutex::new(None),
            arrived: Notify::new(),
            go: Notify::new(),
            faults: AtomicU64::new(0),
        })
    }

    fn current() -> Option<Arc<Self>> {
        ACTOR.try_with(Arc::clone).ok()
    }

    /// The future as this actor's.
    pub fn acts<F: Future>(self: &Arc<Self>, future: F) -> impl Future<Output = F::Output> + use<F> {
        ACTOR.scope(Arc::clone(self), future)
    }

    /// A point is reached; returns when the actor may go on.
    async fn at(&self, name: &str) {
        let is_here = {
            let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *stop {
                Stop::Never => false,
                Stop::After(0) => true,
                Stop::After(left) => {
                    *left -= 1;
                    false
                }
                Stop::At(wanted) => name.starts_with(wanted.as_str()),
            }
        };
        if is_here {
            *self.held_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
            self.arrived.notify_one();
            self.go.notified().await;
        }
    }

    /// Returns when the actor is held.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub fn held_at(&self) -> Option<String> {
        self.held_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets it go on, to the next stop.
    pub fn go_on(&self, stop: Stop) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
        if self.held_at.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.go.notify_one();
        }
    }

    fn meets_fault(&self) {
        self.faults.fetch_add(1, Ordering::SeqCst);
    }

    /// How many faults it has met: what excuses an error.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

/// A point outside of the daemon's code: in the store, or between two steps of a request.
pub async fn point(name: &str) {
    if let Some(actor) = Actor::current() {
        actor.at(name).await;
    }
}

/// The actor at work has met a fault.
pub fn fault_met() {
    if let Some(actor) = Actor::current() {
        actor.meets_fault();
    }
}
