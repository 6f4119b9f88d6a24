//! Which attempt something belongs to that PowerJob reports without saying.
//!
//! A re-run has the id of the run before it, and a reported line has no attempt in it. What tells them apart is
//! time: PowerJob starts an instance again ten seconds after it failed at the earliest, and a line that was on its
//! way when its instance finished was written before that.

use std::time::Duration;

use crate::model::{App, AttemptNo, AttemptState, Instance, Millis};
use crate::read::{ReadError, Reader, View};

/// How far the clocks of workers and daemons may be apart.
const SKEW: Duration = Duration::from_secs(5);

/// The attempt that something of this `moment`, by a worker's clock, belongs to: the newest, or the one after it.
/// With what is known of that attempt, if it is there.
pub async fn attempt_at(
    reader: &Reader,
    app: &App,
    instance: &Instance,
    moment: Millis,
) -> Result<(AttemptNo, Option<View>), ReadError> {
    let view = match reader.show(app, instance, None).await {
        Ok(view) => view,
        Err(ReadError::NeverLogged) => return Ok((AttemptNo::FIRST, None)),
        Err(error) => return Err(error),
    };
    let attempt = &view.attempt;
    let is_over = match attempt.state_at(view.at) {
        AttemptState::Finished => attempt.finished_at.is_some_and(|at| moment > at.after(SKEW)),
        state => state.is_gone(),
    };
    Ok(if is_over { (next(attempt.attempt), None) } else { (attempt.attempt, Some(view)) })
}

/// The attempt after this one; the last number stays the last.
pub fn next(attempt: AttemptNo) -> AttemptNo {
    AttemptNo::try_from(i64::from(attempt.get()) + 1).unwrap_or(attempt)
}
