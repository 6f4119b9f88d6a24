//! Places at which a test can stop a daemon and kill it, or go on with something else first.
//!
//! With `LOGTIER_PAUSE_AFTER=verify` in its environment a debug build says so and sleeps for ever
//! after that verb. A simulation is asked at each verb and around each transaction. A release
//! build has nothing of it.

use crate::clock::Clock;
#[cfg(debug_assertions)]
use crate::clock::Point;

/// Stops here for as long as the environment or the simulation says.
#[cfg(debug_assertions)]
pub async fn pause_after(verb: &'static str, clock: &Clock) {
    if let Some(world) = clock.world() {
        world.reached(Point::After(verb)).await;
        return;
    }
    if std::env::var("LOGTIER_PAUSE_AFTER").is_ok_and(|wanted| wanted == verb) {
        tracing::warn!("paused after {verb}");
        loop {
            clock.sleep(std::time::Duration::from_secs(3600)).await;
        }
    }
}

/// Whether a simulation cuts the daemon off from its database before this transaction.
#[cfg(debug_assertions)]
pub async fn cut_off_before(transaction: &'static str, clock: &Clock) -> bool {
    match clock.world() {
        Some(world) => world.reached(Point::Begin(transaction)).await,
        None => false,
    }
}

/// Whether a simulation cuts the daemon off before it learns how this transaction ended.
#[cfg(debug_assertions)]
pub async fn cut_off_after(transaction: &'static str, clock: &Clock) -> bool {
    match clock.world() {
        Some(world) => world.reached(Point::End(transaction)).await,
        None => false,
    }
}

#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "the other build waits")]
pub async fn pause_after(_verb: &'static str, _clock: &Clock) {}

#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "the other build waits")]
pub async fn cut_off_before(_transaction: &'static str, _clock: &Clock) -> bool {
    false
}

#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "the other build waits")]
pub async fn cut_off_after(_transaction: &'static str, _clock: &Clock) -> bool {
    false
}
