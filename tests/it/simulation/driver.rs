//! Drives some daemons and checks everything that they answer.
//!
//! At any moment one actor is at work; all others are held or over. So a seed gives one run,
//! whatever the machine does.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt;
use logtier::archive::{ArchiveError, Marked};
use logtier::catalog::BatchKey;
use logtier::hot::Lines;
use logtier::ingest::{AppendError, Appended, Declared, EndError, Facts};
use logtier::model::{AttemptKey, AttemptNo, Labels, LineRange, Millis, Outcome, Record, Timestamp};
use logtier::read::{PageRequest, ReadError, Reader};

use super::daemon::{Daemon, LEASE_TTL, Place};
use super::model::{Ages, Before, Model, Name, Read, Violation, When, message};
use super::world::{Actor, Fate, Stop, point};

/// What an actor was asked to do.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Batches by number, each with what was certain before.
    Append(Vec<(usize, Before)>),
    Finish(Name, Before),
    Delete(Name, Before),
    Hold(Name, bool, Before),
    Run,
    Read(Name, Before),
}

enum Answer {
    Appended(Vec<Result<Appended, AppendError>>),
    Finished(Result<Declared, EndError>),
    Marked(Result<Marked, ArchiveError>),
    Ran,
    Read(Result<Read, ReadError>),
}

type Future = Pin<Box<dyn std::future::Future<Output = Answer>>>;

/// A request or run under way.
pub struct Task {
    pub daemon: usize,
    pub ask: Ask,
    pub began: i64,
    pub actor: Arc<Actor>,
    future: Future,
}

/// What a read asks for.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    All,
    Range(u64, u64),
    /// The last so many lines before a line, as one page backwards.
    Back(u64, usize),
}

pub struct Driver {
    pub place: Place,
    pub fate: Arc<Fate>,
    pub model: Model,
    pub daemons: Vec<Option<Daemon>>,
    pub tasks: Vec<Task>,
    pub trace: VecDeque<String>,
    pub crashes: u64,
    pub steps: u64,
    restarts: u64,
    /// The catalog's rows go into the trace after each step.
    pub shows_rows: bool,
}

/// Nobody is slow for longer: each renewal costs a statement.
const MAX_RENEWALS: i64 = 60;

/// Lines of the trace that are shown with a violation.
const TRACE: usize = 2_000;

impl Driver {
    pub async fn new(place: Place, fate: Arc<Fate>, daemons: usize, ages: Ages) -> Self {
        let mut driver = Self {
            place,
            fate,
            model: Model::new(ages),
            daemons: (0..daemons).map(|_| None).collect(),
            tasks: Vec::new(),
            trace: VecDeque::new(),
            crashes: 0,
            steps: 0,
            restarts: 0,
            shows_rows: std::env::var_os("LOGTIER_SEED").is_some(),
        };
        for at in 0..daemons {
            driver.start(at).await;
        }
        driver
    }

    pub fn note(&mut self, what: String) {
        if self.trace.len() >= TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>4} {} {what}", self.steps, Millis::new(self.fate.now())));
    }

    pub fn now(&self) -> i64 {
        self.fate.now()
    }

    pub fn daemon(&self, at: usize) -> &Daemon {
        self.daemons[at].as_ref().expect("the daemon is up")
    }

    /// Starts a daemon that is down, under a new name, as a restarted process has.
    pub async fn start(&mut self, at: usize) {
        if self.daemons[at].is_none() {
            self.restarts += 1;
            let name = format!("d{at}-{}", self.restarts);
            self.daemons[at] = Some(Daemon::start(&self.place, &self.fate, name).await);
        }
    }

    /// Kills a daemon: what it was doing is never heard of again.
    pub async fn kill(&mut self, at: usize) {
        let Some(daemon) = self.daemons[at].take() else { return };
        self.note(format!("kill d{at}"));
        self.crashes += 1;
        self.tasks.retain(|task| task.daemon != at);
        daemon.close().await;
    }

    /// Drops what is held and closes all connections.
    pub async fn close(&mut self) {
        self.tasks.clear();
        for daemon in self.daemons.drain(..).flatten() {
            daemon.close().await;
        }
    }

    /// Whether a new task of this kind can be started beside those that are held.
    pub fn is_free(&self, daemon: usize, ask: &Ask) -> bool {
        !self.tasks.iter().any(|task| match (&task.ask, ask) {
            // One call drives the lanes.
            (Ask::Append(_), Ask::Append(_)) => task.daemon == daemon,
            // Answers in another order than the changes would mislead the model.
            (Ask::Hold(one, ..), Ask::Hold(other, ..)) => one == other,
            (Ask::Run, Ask::Run) => task.daemon == daemon,
            _ => false,
        })
    }

    // What daemons are asked for.

    /// A batch that was never sent before.
    pub fn new_batch(&mut self, name: &Name, sizes: &[usize], has_key: bool, at_line: Option<u64>) -> usize {
        let id = self.model.batches.len();
        let lines = sizes.iter().enumerate().map(|(index, padding)| {
            let mut line = Lines::default();
            line.push(&record(id, &message(id, index, *padding)), None);
            let json = line.json();
            Bytes::copy_from_slice(&json[..json.len() - 1])
        });
        let lines = lines.collect();
        self.model.new_batch(name.clone(), lines, has_key, at_line, self.fate.now())
    }

    pub async fn append(&mut self, daemon: usize, ids: &[usize], stop: Stop) -> Result<bool, Violation> {
        let known_before = ids.iter().map(|id| (*id, self.model.before(&self.model.batches[*id].name.clone())));
        let ask = Ask::Append(known_before.collect::<Vec<_>>());
        let batches = ids.iter().map(|id| self.batch(*id)).collect();
        let future = self.daemon(daemon).append(batches).map(Answer::Appended);
        self.begin(daemon, ask, future.boxed_local(), stop).await
    }

    fn batch(&self, id: usize) -> logtier::ingest::Batch {
        let batch = &self.model.batches[id];
        let mut lines = Lines::default();
        for json in &batch.lines {
            lines.push(&Record::parse_json(json).expect("a record"), None);
        }
        let key = BatchKey { hash: (id as u128 + 1).to_be_bytes(), content: id as i64 };
        logtier::ingest::Batch {
            key: key_of(&batch.name),
            job: None,
            labels: Labels::default(),
            lines,
            batch_key: batch.has_key.then_some(key),
            at_line: batch.at_line,
        }
    }

    pub async fn finish(
        &mut self,
        daemon: usize,
        name: &Name,
        outcome: Option<Outcome>,
        lines: Option<u64>,
        stop: Stop,
    ) -> Result<bool, Violation> {
        let before = self.model.before(name);
        self.model.ask_finish(name, self.now());
        let ingest = self.daemon(daemon).ingest();
        let facts = Facts { key: key_of(name), job: None, labels: Labels::default(), started_at: None };
        let future = async move { Answer::Finished(ingest.finish(facts, outcome, lines).await) };
        self.begin(daemon, Ask::Finish(name.clone(), before), future.boxed_local(), stop).await
    }

    pub async fn delete(&mut self, daemon: usize, name: &Name, stop: Stop) -> Result<bool, Violation> {
        let before = self.model.before(name);
        self.model.ask_delete(name, self.now());
        let (archiver, key) = (self.daemon(daemon).archiver.clone(), key_of(name));
        let future = async move { Answer::Marked(archiver.delete(&key.app, &key.instance, Some(key.attempt)).await) };
        self.begin(daemon, Ask::Delete(name.clone(), before), future.boxed_local(), stop).await
    }

    pub async fn hold(&mut self, daemon: usize, name: &Name, on: bool, stop: Stop) -> Result<bool, Violation> {
        let before = self.model.before(name);
        self.model.ask_hold(name);
        let (archiver, key) = (self.daemon(daemon).archiver.clone(), key_of(name));
        let future = async move { Answer::Marked(archiver.hold(&key.app, &key.instance, Some(key.attempt), on).await) };
        self.begin(daemon, Ask::Hold(name.clone(), on, before), future.boxed_local(), stop).await
    }

    /// One scheduled run of a daemon's archiver.
    pub async fn run(&mut self, daemon: usize, stop: Stop) -> Result<bool, Violation> {
        let future = self.daemon(daemon).run().map(|()| Answer::Ran);
        self.begin(daemon, Ask::Run, future.boxed_local(), stop).await
    }

    pub async fn read(&mut self, daemon: usize, name: &Name, want: Want, stop: Stop) -> Result<bool, Violation> {
        let before = self.model.before(name);
        let reader = self.daemon(daemon).reader.clone();
        let asked = name.clone();
        let future = async move { Answer::Read(read(reader, asked, want).await) };
        self.begin(daemon, Ask::Read(name.clone(), before), future.boxed_local(), stop).await
    }

    /// Starts an actor and drives it until it is held or over; true where it is over.
    async fn begin(&mut self, daemon: usize, ask: Ask, future: Future, stop: Stop) -> Result<bool, Violation> {
        self.note(format!("d{daemon} {ask:?} {stop:?}"));
        let actor = Actor::new(stop);
        let future = actor.acts(future).boxed_local();
        let task = Task { daemon, ask, began: self.now(), actor, future };
        self.drive(task).await
    }

    /// Lets a held task go on.
    pub async fn go_on(&mut self, at: usize, stop: Stop) -> Result<bool, Violation> {
        let task = self.tasks.remove(at);
        self.note(format!("d{} goes on from {:?} with {:?} {stop:?}", task.daemon, task.actor.held_at(), task.ask));
        task.actor.go_on(stop);
        self.drive(task).await
    }

    async fn drive(&mut self, mut task: Task) -> Result<bool, Violation> {
        let actor = Arc::clone(&task.actor);
        let answer = tokio::select! {
            biased;
            answer = &mut task.future => Some(answer),
            () = actor.arrived() => None,
        };
        match answer {
            Some(answer) => {
                self.note_rows().await;
                self.check(task, answer).map(|()| true)
            }
            None => {
                self.note(format!("d{} is held at {}", task.daemon, actor.held_at().unwrap_or_default()));
                self.tasks.push(task);
                Ok(false)
            }
        }
    }

    /// What the catalog says, into the trace of a seed that somebody looks at.
    async fn note_rows(&mut self) {
        if !self.shows_rows {
            return;
        }
        let db = Arc::clone(&self.daemons.iter().flatten().next().expect("one is up").catalog.cluster.servers()[0]);
        for shard in db.shards() {
            let rows = format!(
                "SELECT CONCAT(CAST(instance AS CHAR), ' ', attempt, ': state ', state, ', lines ', next_line, ', archived ', \
                 archived_line, ', purged ', purged_line, ', written ', written_at, ', finished ', \
                 COALESCE(finished_at, '-'), ', expires ', COALESCE(expires_at, '-'), ', due ', due_at) FROM attempt_{shard}"
            );
            let rows = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(rows)).fetch_all(db.pool()).await;
            for row in rows.expect("attempts") {
                self.note(format!("  {row}"));
            }
        }
    }

    fn check(&mut self, task: Task, answer: Answer) -> Result<(), Violation> {
        let (now, excused) = (self.now(), task.actor.faults() > 0);
        let (daemon, when) = (task.daemon, When { began: task.began, now, excused });
        match (task.ask, answer) {
            (Ask::Append(asked), Answer::Appended(answers)) => {
                for ((id, before), answer) in asked.iter().zip(&answers) {
                    self.note(format!("d{daemon} batch {id}: {}", short(answer)));
                    self.model.appended(*id, before, when, answer)?;
                }
            }
            (Ask::Finish(name, before), Answer::Finished(answer)) => {
                self.note(format!("d{daemon} finish {name:?}: {}", short(&answer)));
                match answer {
                    Ok(done) => self.model.finished(&name, &before, when, done.attempt.next_line)?,
                    // Nothing was changed; the request may be no more than a wrong count of lines.
                    Err(EndError::OtherLines { .. } | EndError::OtherOutcome { .. } | EndError::Gone { .. }) => {}
                    Err(_) if excused => {}
                    Err(error) => return Err(format!("finish failed without a fault: {error:?}")),
                }
            }
            (Ask::Delete(name, before), Answer::Marked(answer)) => {
                self.note(format!("d{daemon} delete {name:?}: {}", short(&answer)));
                match answer {
                    Ok(Marked::Done) => self.model.deleted(&name, &before)?,
                    Ok(Marked::Held) => self.model.delete_refused(&name)?,
                    Ok(Marked::Unknown) => self.model.unknown(&name, &before, now)?,
                    Ok(Marked::Gone { .. }) => return Err(format!("{name:?}: a delete was refused as gone")),
                    Err(_) if excused => {}
                    Err(error) => return Err(format!("delete failed without a fault: {error:?}")),
                }
            }
            (Ask::Hold(name, on, before), Answer::Marked(answer)) => {
                self.note(format!("d{daemon} hold {name:?} {on}: {}", short(&answer)));
                match answer {
                    Ok(Marked::Done) => self.model.held(&name, on, &before, now),
                    Ok(Marked::Unknown) => self.model.unknown(&name, &before, now)?,
                    Ok(Marked::Held) => return Err(format!("{name:?}: a hold was refused as held")),
                    // Nothing was changed; what reads say of it is checked there.
                    Ok(Marked::Gone { .. }) => {}
                    Err(_) if excused => {}
                    Err(error) => return Err(format!("hold failed without a fault: {error:?}")),
                }
            }
            (Ask::Read(name, before), Answer::Read(answer)) => {
                let shown = answer.as_ref().map(|read| (read.range, read.end));
                self.note(format!("d{daemon} read {name:?}: {}", short(&shown)));
                self.model.check_read(&name, &before, now, answer, excused)?;
            }
            (Ask::Run, Answer::Ran) => {}
            (ask, _) => unreachable!("{ask:?} was answered as something else"),
        }
        Ok(())
    }

    // Time.

    /// Time passes. Daemons whose run is held are slow, and keep their lease; a `zombie` stands still.
    ///
    /// A request that would last longer than its key is remembered ends first: nobody promises anything else.
    pub async fn advance(&mut self, millis: i64, zombies: &[usize]) -> Result<(), Violation> {
        let until = self.now() + millis;
        let too_long = |task: &Task| match &task.ask {
            Ask::Append(asked) => asked.iter().any(|(id, _)| self.model.outlives_its_key(*id, until)),
            _ => false,
        };
        let late: Vec<bool> = self.tasks.iter().map(too_long).collect();
        for at in (0..late.len()).rev().filter(|at| late[*at]) {
            self.go_on(at, Stop::Never).await?;
        }
        self.note(format!("{} s pass; zombies {zombies:?}", millis / 1000));
        // A lease that is renewed every half of its time does not end.
        let step = LEASE_TTL.as_millis() as i64 / 2;
        let is_alive = |task: &&Task| matches!(task.ask, Ask::Run) && !zombies.contains(&task.daemon);
        let mut alive: Vec<usize> = self.tasks.iter().filter(is_alive).map(|task| task.daemon).collect();
        if millis > MAX_RENEWALS * step {
            alive.clear();
        }
        let mut left = millis;
        while left > 0 {
            let part = if alive.is_empty() { left } else { left.min(step) };
            self.fate.advance(part);
            left -= part;
            for daemon in &alive {
                self.daemon(*daemon).renew().await;
            }
        }
        Ok(())
    }

    pub fn set_skew(&mut self, daemon: usize, millis: i64) {
        self.note(format!("the clock of d{daemon} is wrong by {millis} ms"));
        self.daemon(daemon).surroundings.skew.store(millis, Ordering::SeqCst);
    }
}

/// Reads, with a point between any two steps.
async fn read(reader: Reader, name: Name, want: Want) -> Result<Read, ReadError> {
    let key = key_of(&name);
    let view = reader.open(&key.app, &key.instance, Some(key.attempt)).await?;
    point("opened").await;
    let (all, mut found) = (view.attempt.lines(), Vec::new());
    let range = match want {
        Want::All => all,
        Want::Range(from, to) => LineRange::new(from, to).intersect(all),
        Want::Back(end, limit) => {
            let range = LineRange::new(0, end).intersect(all);
            let request = PageRequest { range: Some(range), limit, reverse: true, ..PageRequest::default() };
            let page = reader.page(&view, &request).await?;
            found.extend(page.lines.into_iter().rev().map(|line| (line.line, Bytes::from(line.json))));
            let start = range.end().saturating_sub(limit as u64).max(range.start());
            return Ok(Read { name, range: LineRange::new(start, range.end()), end: all.end(), lines: found });
        }
    };
    let mut lines = reader.lines(&view, range);
    while let Some(block) = lines.next().await? {
        found.extend(block.records().map(|(line, json)| (line, Bytes::copy_from_slice(json))));
        point("between blocks").await;
    }
    Ok(Read { name, range, end: all.end(), lines: found })
}

pub fn key_of((instance, attempt): &Name) -> AttemptKey {
    AttemptKey {
        app: "a".parse().expect("a name"),
        instance: instance.parse().expect("a name"),
        attempt: AttemptNo::try_from(i64::from(*attempt)).expect("a number"),
    }
}

fn record(batch: usize, message: &str) -> Record<'_> {
    Record {
        ts: Timestamp::from_nanos(1_800_000_000_000_000_000 + batch as i64),
        level: None,
        source: "w".into(),
        message: message.to_owned().into(),
        attrs: None,
        raw: None,
        partial: false,
    }
}

fn short(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take(160).collect()
}
