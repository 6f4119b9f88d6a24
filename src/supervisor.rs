//! The one owner of every background task.
//!
//! A task that panics is started again with a growing pause and counted; a task that returns is done.
//! Nothing else in logtier spawns tasks that outlive a request, but for transactions (`db::tx`) and
//! the poll of a followed log, which have trackers of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::telemetry::{ByTask, Metrics};

/// The pause before a task is started again doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A task that lived for so long starts again after the shortest pause.
const LONG_LIFE: Duration = Duration::from_secs(300);

/// Owns the tasks and the token that tells them to stop.
#[derive(Clone)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Supervisor {
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), clock, metrics }
    }

    /// Cancelled when the daemon is to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Owns the tasks that requests start.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs what `make` gives until it returns; after a panic runs it again.
    pub fn supervise<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        // Shown as zero from the first second on.
        let _ = self.metrics.task_restarts.get_or_create(&ByTask { task: name.to_owned() });
        self.tasks.spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                let began = this.clock.instant();
                match this.tasks.spawn(make()).await {
                    Err(error) if error.is_panic() => {
                        tracing::error!(task = name, "background task died; starting it again");
                        this.metrics.task_restarts.get_or_create(&ByTask { task: name.to_owned() }).inc();
                    }
                    _ => return,
                }
                if began.elapsed() >= LONG_LIFE {
                    pause = Duration::from_millis(100);
                }
                tokio::select! {
                    () = this.clock.sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = this.stop.cancelled() => return,
                }
            }
        });
    }

    /// Waits for all tasks, at most `within`; false where some did not end.
    pub async fn drain(&self, within: Duration) -> bool {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => true,
            () = self.clock.sleep(within) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_dies_is_started_again_and_counted() {
        let supervisor = Supervisor::new(Clock::default(), Arc::default());
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        supervisor.supervise("test", move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(run >= 2, "dies twice") }
        });
        assert!(supervisor.drain(Duration::from_secs(10)).await);
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        let task = ByTask { task: "test".to_owned() };
        assert_eq!(supervisor.metrics.task_restarts.get_or_create(&task).get(), 2);
    }

    #[tokio::test]
    async fn a_task_that_hangs_does_not_hold_up_the_end() {
        let supervisor = Supervisor::new(Clock::default(), Arc::default());
        supervisor.supervise("test", std::future::pending);
        assert!(!supervisor.drain(Duration::from_millis(20)).await);
    }
}
