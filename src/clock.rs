//! The one place that reads the wall clock, sleeps, or draws random numbers.
//!
//! Tests move time by handing a [`Clock`] an offset; everything else asks it. A simulation goes
//! further and takes the system's place as a [`World`]: the same seed gives the same run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use crate::model::Millis;

/// The daemon's clock: the system's, plus an offset that tests may move.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_millis: Arc<AtomicI64>,
    world: Option<Arc<dyn World>>,
}

/// What a simulation puts in the system's place. The system itself is the other implementation:
/// it stands in [`Clock`], where `world` is `None`.
pub trait World: Send + Sync + fmt::Debug {
    /// What this daemon's clock shows.
    fn now(&self) -> Millis;

    /// What the database's clock shows, by which leases end.
    fn database_now(&self) -> Millis;

    fn random(&self) -> u128;

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;

    /// The daemon has come to a point where it can be held, killed, or cut off from its database;
    /// true where it is cut off. Only debug builds ask (see `pause`).
    fn reached(&self, point: Point) -> BoxFuture<'static, bool>;
}

/// Where a daemon can be stopped between two things that must not depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// After a verb of the archiver.
    After(&'static str),
    /// Before a transaction begins.
    Begin(&'static str),
    /// After a transaction was committed or rolled back, before anybody knows.
    End(&'static str),
}

impl Clock {
    /// A clock that goes by a simulation's time and chance.
    pub fn simulated(world: Arc<dyn World>) -> Self {
        Self { offset_millis: Arc::default(), world: Some(world) }
    }

    pub(crate) fn world(&self) -> Option<&Arc<dyn World>> {
        self.world.as_ref()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(&self) -> Millis {
        match &self.world {
            Some(world) => world.now(),
            None => Millis::new(chrono::Utc::now().timestamp_millis() + self.offset_millis()),
        }
    }

    /// For measuring spans; never goes back.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub async fn sleep(&self, span: Duration) {
        match &self.world {
            Some(world) => world.sleep(span).await,
            None => tokio::time::sleep(span).await,
        }
    }

    /// A fresh name that no other writer can have: 48 bits of time, 80 random ones.
    pub fn new_ulid(&self) -> ulid::Ulid {
        let random = self.world.as_ref().map_or_else(rand::random, |world| world.random());
        ulid::Ulid::from_parts(self.now().get().unsigned_abs(), random)
    }

    /// 32 random bits for ids that must differ, not for secrets.
    pub fn random_u32(&self) -> u32 {
        self.world.as_ref().map_or_else(random_u32, |world| world.random() as u32)
    }

    /// Moves this clock and all its clones ahead; for tests.
    pub fn advance(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.offset_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// How far the clock runs ahead of the system's, which a database on the same system goes by.
    pub fn offset_millis(&self) -> i64 {
        self.offset_millis.load(Ordering::SeqCst)
    }
}

/// The same where nobody has a clock at hand.
pub fn random_u32() -> u32 {
    rand::random()
}
