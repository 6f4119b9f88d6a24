//! One look at the catalog for all who follow the same attempt.
//!
//! While an attempt has followers on this daemon, one task asks the catalog about it at a steady
//! pace and tells all of them; when the last follower leaves, the task ends. So the database sees
//! one small query a second and attempt, however many people watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::Chain;
use crate::clock::Clock;
use crate::model::{App, AttemptNo, Instance};
use crate::read::{ReadError, Reader, View};

/// With the read that follows, lines are seen within a second of their commit.
const PACE: Duration = Duration::from_millis(800);

/// What is followed; no attempt means the newest, while none is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    pub app: App,
    pub instance: Instance,
    pub attempt: Option<AttemptNo>,
}

/// The attempt at the last look; `None` while nothing was logged under the id.
pub type Seen = Option<Arc<View>>;

/// All topics that have followers.
#[derive(Clone)]
pub struct Hub {
    reader: Reader,
    clock: Clock,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// A receiver of each topic, to give clones of; it counts as one.
    topics: Arc<Mutex<HashMap<Topic, watch::Receiver<Seen>>>>,
}

impl Hub {
    pub fn new(reader: Reader, clock: Clock, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { reader, clock, tasks, shutdown, topics: Arc::default() }
    }

    /// What is seen of the topic from now on. The channel closes when the daemon stops.
    pub fn follow(&self, topic: Topic, seen: Seen) -> watch::Receiver<Seen> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed one is left from a task that died.
        if let Some(receiver) = topics.get(&topic).filter(|receiver| receiver.has_changed().is_ok()) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(seen);
        topics.insert(topic.clone(), receiver.clone());
        self.tasks.spawn(self.clone().watch(topic, sender));
        receiver
    }

    /// Topics that are being watched.
    pub fn topics(&self) -> usize {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn watch(self, topic: Topic, sender: watch::Sender<Seen>) {
        while !self.is_left(&topic, &sender) {
            tokio::select! {
                () = self.clock.sleep(PACE) => {}
                () = self.shutdown.cancelled() => break,
            }
            match self.reader.show(&topic.app, &topic.instance, topic.attempt).await {
                Ok(view) => drop(sender.send_if_modified(|seen| replace(seen, view))),
                Err(ReadError::NeverLogged) => drop(sender.send_if_modified(|seen| seen.take().is_some())),
                // Followers keep what they have; the next look may succeed.
                Err(error) => tracing::debug!(error = %Chain(&error), "cannot look at a followed attempt"),
            }
        }
    }

    /// Whether the last follower has gone; then the topic is given up in the same moment, and a
    /// follower that comes a moment later starts a task of its own.
    fn is_left(&self, topic: &Topic, sender: &watch::Sender<Seen>) -> bool {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = sender.receiver_count() <= 1;
        if is_left {
            topics.remove(topic);
        }
        is_left
    }
}

/// Tells followers only of what matters to them: more lines, another state or attempt.
fn replace(seen: &mut Seen, view: View) -> bool {
    let relevant = |view: &View| (view.attempt.id, view.attempt.next_line, view.attempt.state_at(view.at));
    let changed = seen.as_deref().map(relevant) != Some(relevant(&view));
    if changed {
        *seen = Some(Arc::new(view));
    }
    changed
}
