//! Places at which a test can stop a daemon and kill it, or go on with something else first.
//!
//! With `LOGTIER_PAUSE_AFTER=verify` in its environment a debug build says so and sleeps for ever
//! after that verb. A release build has nothing of it.

use crate::clock::Clock;

/// Stops here for ever if the environment says so.
#[cfg(debug_assertions)]
pub async fn pause_after(verb: &str, clock: &Clock) {
    if std::env::var("LOGTIER_PAUSE_AFTER").is_ok_and(|wanted| wanted == verb) {
        tracing::warn!("paused after {verb}");
        loop {
            clock.sleep(std::time::Duration::from_secs(3600)).await;
        }
    }
}

#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "the other build waits")]
pub async fn pause_after(_verb: &str, _clock: &Clock) {}
