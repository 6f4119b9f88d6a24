//! What happens next: one seed's sequence of operations.

use std::sync::atomic::Ordering;
use std::time::Duration;

use logtier::archive::RewriteSettings;
use logtier::model::{Age, Outcome};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::driver::{Ask, Driver, Want};
use super::model::{Name, Violation};
use super::world::Stop;

/// One step.
#[derive(Debug, Clone)]
pub enum Op {
    Write {
        names: Vec<Name>,
        has_key: bool,
        at_line: bool,
    },
    Retry,
    Finish(Name, Option<Outcome>, bool),
    Delete(Name),
    Hold(Name, bool),
    Read(Name, Want),
    /// A scheduled run of the archiver: archive, purge, expire, forget, sweep.
    Run,
    /// Something that is held goes on.
    GoOn,
    /// A process is killed, wherever it is.
    Crash,
    Start,
    /// So many milliseconds; whether those that are held stand still meanwhile.
    Advance(i64, bool),
    ClockJump(i64),
}

/// How a seed's world is.
pub struct Plan {
    rng: StdRng,
    instances: Vec<String>,
    attempts: u32,
    /// Of 100 tasks, so many are held somewhere.
    holds: u32,
    steps: u32,
    time_went_back: bool,
}

/// Tasks that are held at once.
const MAX_HELD: usize = 5;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let instances = (0..rng.random_range(1..=5)).map(|n| format!("i{n}")).collect();
        let attempts = rng.random_range(1..=2);
        let holds = *[0, 15, 30, 60].choose(&mut rng).expect("some");
        let steps = rng.random_range(30..=90);
        Self { rng, instances, attempts, holds, steps, time_went_back: false }
    }

    pub fn daemons(&mut self) -> usize {
        self.rng.random_range(1..=3)
    }

    /// How often store and database fail: in a third of the seeds never.
    pub fn set_faults(&mut self, driver: &Driver) {
        let store = *[0, 50, 250].choose(&mut self.rng).expect("some");
        let database = *[0, 10, 50].choose(&mut self.rng).expect("some");
        driver.fate.store_faults.store(store, Ordering::SeqCst);
        driver.fate.database_faults.store(database, Ordering::SeqCst);
    }

    /// Objects are rewritten early, late, or not before they are empty.
    pub fn rewrite(&mut self) -> RewriteSettings {
        let dead_share = *[0.01, 0.5, 1.0].choose(&mut self.rng).expect("some");
        let hours = *[2, 20, 10_000].choose(&mut self.rng).expect("some");
        RewriteSettings { dead_share, erase_within: Age::For(Duration::from_secs(hours * 3600)) }
    }

    pub fn object_bytes(&mut self) -> u64 {
        *[1, 600, 3_000, 1 << 20].choose(&mut self.rng).expect("some")
    }

    pub fn frame_size(&mut self) -> usize {
        *[64, 1_000, 1 << 20].choose(&mut self.rng).expect("some")
    }

    pub async fn play(&mut self, driver: &mut Driver) -> Result<(), Violation> {
        for _ in 0..self.steps {
            driver.steps += 1;
            let op = self.next(driver);
            self.step(driver, op).await?;
        }
        Ok(())
    }

    fn name(&mut self) -> Name {
        let instance = self.instances.choose(&mut self.rng).expect("some").clone();
        (instance, self.rng.random_range(1..=self.attempts))
    }

    fn next(&mut self, driver: &Driver) -> Op {
        let held = !driver.tasks.is_empty();
        let some_down = driver.daemons.iter().any(Option::is_none);
        match self.rng.random_range(0..100) {
            0..=21 => {
                let names = (0..self.rng.random_range(1..=3)).map(|_| self.name()).collect();
                Op::Write { names, has_key: self.rng.random_ratio(4, 5), at_line: self.rng.random_ratio(1, 10) }
            }
            22..=27 => Op::Retry,
            28..=34 => {
                let outcome =
                    *[None, Some(Outcome::Succeeded), Some(Outcome::Failed)].choose(&mut self.rng).expect("some");
                Op::Finish(self.name(), outcome, self.rng.random_ratio(1, 3))
            }
            35..=37 => Op::Delete(self.name()),
            38 => Op::Hold(self.name(), self.rng.random_ratio(2, 3)),
            39..=54 => Op::Read(self.name(), self.want()),
            55..=68 => Op::Run,
            69..=78 if held => Op::GoOn,
            69..=71 => Op::Run,
            79..=82 => Op::Crash,
            83..=86 if some_down => Op::Start,
            87..=88 => self.clock_jump(),
            _ => self.advance(),
        }
    }

    fn want(&mut self) -> Want {
        match self.rng.random_range(0..4) {
            0 | 1 => Want::All,
            2 => {
                let from = self.rng.random_range(0..20);
                Want::Range(from, from + self.rng.random_range(0..10))
            }
            _ => Want::Back(self.rng.random_range(0..40), self.rng.random_range(1..12)),
        }
    }

    fn advance(&mut self) -> Op {
        let millis = match self.rng.random_range(0..10) {
            0..=2 => self.rng.random_range(1..20 * SECOND),
            3..=5 => self.rng.random_range(MINUTE..15 * MINUTE),
            6..=8 => self.rng.random_range(15 * MINUTE..5 * HOUR),
            _ => self.rng.random_range(5 * HOUR..40 * HOUR),
        };
        Op::Advance(millis, self.rng.random())
    }

    fn clock_jump(&mut self) -> Op {
        Op::ClockJump(self.rng.random_range(-3 * MINUTE..=3 * MINUTE))
    }

    /// Where the next task is held, if it is.
    fn stop(&mut self, driver: &Driver) -> Stop {
        if driver.tasks.len() < MAX_HELD && self.rng.random_ratio(self.holds, 100) {
            let most = *[3, 12, 50].choose(&mut self.rng).expect("some");
            Stop::After(self.rng.random_range(0..most))
        } else {
            Stop::Never
        }
    }

    /// A daemon that is up and free for a task.
    fn daemon(&mut self, driver: &Driver, ask: &Ask) -> Option<usize> {
        let free = |at: &usize| driver.daemons[*at].is_some() && driver.is_free(*at, ask);
        (0..driver.daemons.len()).filter(free).collect::<Vec<_>>().choose(&mut self.rng).copied()
    }

    async fn step(&mut self, driver: &mut Driver, op: Op) -> Result<(), Violation> {
        match op {
            Op::Write { names, has_key, at_line } => self.write(driver, &names, has_key, at_line).await,
            Op::Retry => self.retry(driver).await,
            Op::Crash => {
                let at = self.rng.random_range(0..driver.daemons.len());
                driver.kill(at).await;
                // Mostly a supervisor starts it again at once.
                if self.rng.random_ratio(2, 3) || driver.daemons.iter().all(Option::is_none) {
                    driver.start(at).await;
                }
                Ok(())
            }
            Op::Start => {
                for at in 0..driver.daemons.len() {
                    driver.start(at).await;
                }
                Ok(())
            }
            Op::GoOn => {
                let at = self.rng.random_range(0..driver.tasks.len());
                let stop = self.stop(driver);
                driver.go_on(at, stop).await.map(drop)
            }
            Op::Advance(millis, as_zombies) => {
                let all: Vec<usize> = (0..driver.daemons.len()).collect();
                driver.advance(millis, if as_zombies { &all } else { &[] }).await
            }
            Op::ClockJump(millis) => {
                let at = self.rng.random_range(0..driver.daemons.len());
                if driver.daemons[at].is_some() {
                    driver.set_skew(at, millis);
                }
                if !self.time_went_back && self.rng.random_ratio(1, 10) {
                    self.time_went_back = true;
                    driver.note("everybody's clock goes back".to_owned());
                    driver.fate.advance(-2 * MINUTE);
                }
                Ok(())
            }
            Op::Run | Op::Read(..) | Op::Finish(..) | Op::Delete(..) | Op::Hold(..) => self.ask(driver, op).await,
        }
    }

    async fn ask(&mut self, driver: &mut Driver, op: Op) -> Result<(), Violation> {
        let before = driver.model.before(&("i0".to_owned(), 1));
        let ask = match &op {
            Op::Run => Ask::Run,
            Op::Hold(name, on) => Ask::Hold(name.clone(), *on, before),
            Op::Finish(name, ..) | Op::Delete(name) | Op::Read(name, _) => Ask::Read(name.clone(), before),
            _ => return Ok(()),
        };
        let Some(at) = self.daemon(driver, &ask) else { return Ok(()) };
        let stop = self.stop(driver);
        let ended = match op {
            Op::Run => driver.run(at, stop).await,
            Op::Hold(name, on) => driver.hold(at, &name, on, stop).await,
            Op::Delete(name) => driver.delete(at, &name, stop).await,
            Op::Read(name, want) => driver.read(at, &name, want, stop).await,
            Op::Finish(name, outcome, counts) => {
                let lines = counts.then(|| driver.model.end_of(&name));
                driver.finish(at, &name, outcome, lines, stop).await
            }
            _ => return Ok(()),
        };
        ended.map(drop)
    }

    async fn write(
        &mut self,
        driver: &mut Driver,
        names: &[Name],
        has_key: bool,
        at_line: bool,
    ) -> Result<(), Violation> {
        let Some(at) = self.daemon(driver, &Ask::Append(Vec::new())) else { return Ok(()) };
        let mut ids = Vec::new();
        for name in names {
            let sizes: Vec<usize> = (0..self.rng.random_range(1..6)).map(|_| self.rng.random_range(0..120)).collect();
            let at_line = at_line.then(|| driver.model.end_of(name));
            ids.push(driver.new_batch(name, &sizes, has_key, at_line));
        }
        let stop = self.stop(driver);
        driver.append(at, &ids, stop).await.map(drop)
    }

    /// Some batches again: those without an answer, and those that were answered.
    async fn retry(&mut self, driver: &mut Driver) -> Result<(), Violation> {
        let Some(at) = self.daemon(driver, &Ask::Append(Vec::new())) else { return Ok(()) };
        let all = driver.model.repeatable(driver.now());
        if all.is_empty() {
            return Ok(());
        }
        // The same twice in one request, now and then.
        let ids: Vec<usize> =
            (0..self.rng.random_range(1..4)).map(|_| *all.choose(&mut self.rng).expect("some")).collect();
        let stop = self.stop(driver);
        driver.append(at, &ids, stop).await.map(drop)
    }
}
