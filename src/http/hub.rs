//! One look at the catalog for all who follow, and one read of new lines for all who follow the same attempt.
//!
//! While anybody follows anything on this daemon, one task asks at a steady pace how all followed
//! attempts stand, by one query a shard, reads the lines that are new, and hands them to the
//! followers. So the database sees less than one query a second and attempt, however many people
//! watch. A follower that is behind reads what it lacks by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::model::{App, AttemptNo, Instance, LineRange};
use crate::read::{Block, ReadError, Reader, View};
use crate::telemetry::chain;

/// With the look and the read that follow, lines are seen within a second of their commit.
const PACE: Duration = Duration::from_millis(800);

/// Looks and reads under way at a time: a slow server must not keep others waiting, and a daemon
/// has 16 connections.
const AT_ONCE: usize = 8;

/// New lines that are held for all followers of an attempt, as events; who wants more reads it alone.
const MAX_FRESH_BYTES: usize = 256 * 1024;

/// What is followed; no attempt means the newest, while none is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    pub app: App,
    pub instance: Instance,
    pub attempt: Option<AttemptNo>,
}

/// What the last look saw.
#[derive(Clone, Default)]
pub struct Seen {
    /// `None` while nothing was logged under the id.
    pub view: Option<Arc<View>>,
    pub fresh: Option<Fresh>,
}

/// The newest lines as events.
#[derive(Clone)]
pub struct Fresh {
    pub lines: LineRange,
    pub events: Bytes,
}

/// All topics that have followers.
#[derive(Clone)]
pub struct Hub {
    reader: Reader,
    clock: Clock,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    topics: Arc<Mutex<Topics>>,
}

#[derive(Default)]
struct Topics {
    senders: HashMap<Topic, watch::Sender<Seen>>,
    /// A task looks at them.
    watched: bool,
}

impl Hub {
    pub fn new(reader: Reader, clock: Clock, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { reader, clock, tasks, shutdown, topics: Arc::default() }
    }

    /// What is seen of the topic from now on. The channel closes when nobody looks any more.
    pub fn follow(&self, topic: Topic, view: Option<Arc<View>>) -> watch::Receiver<Seen> {
        let mut topics = self.lock();
        let receiver = match topics.senders.get(&topic) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(Seen { view, fresh: None });
                topics.senders.insert(topic, sender);
                receiver
            }
        };
        if !std::mem::replace(&mut topics.watched, true) {
            let unwatched = Unwatched { hub: self.clone(), armed: true };
            self.tasks.spawn(self.clone().watch(unwatched));
        }
        receiver
    }

    /// Topics that are being watched.
    pub fn topics(&self) -> usize {
        self.lock().senders.len()
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(self, mut unwatched: Unwatched) {
        loop {
            tokio::select! {
                () = self.clock.sleep(PACE) => {}
                () = self.shutdown.cancelled() => return,
            }
            let Some(followed) = self.followed() else {
                unwatched.armed = false;
                return;
            };
            let (known, unknown) = by_place(followed);
            let look = known.into_values().map(Look::Known).chain(unknown.into_iter().map(Look::Unknown));
            futures::stream::iter(look).for_each_concurrent(AT_ONCE, |look| self.look(look)).await;
        }
    }

    /// What still has followers. Where that is nothing, nobody is watching from this moment on, and
    /// a follower that comes a moment later starts a task of its own.
    fn followed(&self) -> Option<Vec<(Topic, watch::Sender<Seen>)>> {
        let mut topics = self.lock();
        topics.senders.retain(|_, sender| sender.receiver_count() > 0);
        topics.watched = !topics.senders.is_empty();
        topics.watched.then(|| topics.senders.iter().map(|(topic, sender)| (topic.clone(), sender.clone())).collect())
    }

    async fn look(&self, look: Look) {
        let looked = match look {
            Look::Known(known) => self.look_at_known(known).await,
            Look::Unknown((topic, sender)) => self.look_for(topic, sender).await,
        };
        if let Err(error) = looked {
            // Followers keep what they have; the next look may succeed.
            tracing::debug!(error = chain(&error), "cannot look at followed attempts");
        }
    }

    async fn look_for(&self, topic: Topic, sender: watch::Sender<Seen>) -> Result<(), ReadError> {
        match self.reader.show(&topic.app, &topic.instance, topic.attempt).await {
            Ok(view) => drop(sender.send_replace(Seen { view: Some(Arc::new(view)), fresh: None })),
            Err(ReadError::NeverLogged) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Attempts of one shard.
    async fn look_at_known(&self, known: Vec<Known>) -> Result<(), ReadError> {
        let views: Vec<_> = known.iter().map(|known| Arc::clone(&known.view)).collect();
        let looked = self.reader.look_at(&views).await?;
        let changed = known.into_iter().zip(looked).filter_map(|(known, now)| {
            let now = now?;
            (relevant(&known.view) != relevant(&now)).then(|| (known, Arc::new(now)))
        });
        let changed: Vec<(Known, Arc<View>)> = changed.collect();
        let new: Vec<(&View, LineRange)> =
            changed.iter().map(|(known, now)| (&**now, new_lines(&known.view, now))).collect();
        let newest = self.reader.newest(&new).await.unwrap_or_else(|_| vec![None; new.len()]);
        let tell = |((known, now), blocks): ((Known, Arc<View>), Option<Vec<Block>>)| async move {
            let fresh = match blocks {
                Some(blocks) => events_of(&now, blocks),
                // Without the lines followers read them by themselves, and say so if that fails.
                None => self.fresh(&known.view, &now).await.unwrap_or_default(),
            };
            known.sender.send_replace(Seen { view: Some(now), fresh });
        };
        futures::stream::iter(changed.into_iter().zip(newest)).for_each_concurrent(AT_ONCE, tell).await;
        Ok(())
    }

    /// The lines that are new since the last look, read by themselves.
    async fn fresh(&self, before: &View, now: &View) -> Result<Option<Fresh>, ReadError> {
        let (mut lines, mut blocks, mut bytes) = (self.reader.lines(now, new_lines(before, now)), Vec::new(), 0);
        while bytes < MAX_FRESH_BYTES
            && let Some(block) = lines.next().await?
        {
            bytes += block.records.len();
            blocks.push(block);
        }
        Ok(events_of(now, blocks))
    }
}

/// Lines that came between two looks at an attempt, while it can be read.
fn new_lines(before: &View, now: &View) -> LineRange {
    let start = before.attempt.next_line;
    let is_gone = now.attempt.state_at(now.at).is_gone();
    LineRange::new(start, if is_gone { start } else { now.attempt.next_line.max(start) })
}

/// Consecutive blocks as events, as far as they are held for all.
fn events_of(view: &View, blocks: Vec<Block>) -> Option<Fresh> {
    let (start, mut events) = (blocks.first()?.lines.start(), Vec::new());
    let mut end = start;
    for block in blocks {
        if events.len() >= MAX_FRESH_BYTES {
            break;
        }
        push_events(&mut events, view.attempt.attempt, &block);
        end = block.lines.end();
    }
    Some(Fresh { lines: LineRange::new(start, end), events: events.into() })
}

/// What one query looks at.
enum Look {
    Known(Vec<Known>),
    Unknown((Topic, watch::Sender<Seen>)),
}

struct Known {
    view: Arc<View>,
    sender: watch::Sender<Seen>,
}

type ByPlace = HashMap<(usize, u16), Vec<Known>>;

/// Attempts that were seen, by the shard that holds them, and topics of which nothing was seen.
fn by_place(followed: Vec<(Topic, watch::Sender<Seen>)>) -> (ByPlace, Vec<(Topic, watch::Sender<Seen>)>) {
    let (mut known, mut unknown) = (ByPlace::new(), Vec::new());
    for (topic, sender) in followed {
        let view = sender.borrow().view.clone();
        match view.filter(|_| topic.attempt.is_some()) {
            Some(view) => known.entry(view.place()).or_default().push(Known { view, sender }),
            None => unknown.push((topic, sender)),
        }
    }
    (known, unknown)
}

/// What matters to followers: more lines, another state.
pub fn relevant(view: &View) -> impl PartialEq + use<> {
    (view.attempt.next_line, view.attempt.state_at(view.at))
}

/// Writes the lines of a block as server-sent events.
pub fn push_events(events: &mut Vec<u8>, attempt: AttemptNo, block: &Block) {
    events.reserve(block.records.len() * 3 / 2);
    for (line, json) in block.records() {
        push_event(events, attempt, line, json);
    }
}

pub fn push_event(events: &mut Vec<u8>, attempt: AttemptNo, line: u64, json: &[u8]) {
    events.extend_from_slice(format!("event: record\nid: {attempt}:{line}\ndata: {{\"line\":{line},").as_bytes());
    events.extend_from_slice(json.get(1..).unwrap_or_default());
    events.extend_from_slice(b"\n\n");
}

/// Closes all channels when the task ends for any reason but want of followers, so that followers
/// end too and their clients come again.
struct Unwatched {
    hub: Hub,
    armed: bool,
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if self.armed {
            *self.hub.lock() = Topics::default();
        }
    }
}
