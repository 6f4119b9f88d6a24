//! The one place that reads the wall clock, sleeps, or draws random numbers.
//!
//! Tests move time by handing a [`Clock`] an offset; everything else asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::model::Millis;

/// The daemon's clock: the system's, plus an offset that tests may move.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_millis: Arc<AtomicI64>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(&self) -> Millis {
        Millis::new(chrono::Utc::now().timestamp_millis() + self.offset_millis())
    }

    /// For measuring spans; never goes back.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// A fresh name that no other writer can have: 48 bits of time, 80 random ones.
    pub fn new_ulid(&self) -> ulid::Ulid {
        ulid::Ulid::from_parts(self.now().get().unsigned_abs(), rand::random())
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

/// 32 random bits for ids that must differ, not for secrets.
pub fn random_u32() -> u32 {
    rand::random()
}
