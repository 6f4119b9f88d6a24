//! What must be true, kept in plain memory: the oracle of the simulation.
//!
//! The model knows what clients asked for and what they were answered. A request that got no answer
//! may have been done or not: it is *open*, until an answer or a read shows it. From then on it is a
//! fact like any other. So the model never guesses, and every answer that contradicts it is a
//! violation of I1 or I2.

use std::collections::BTreeMap;

use bytes::Bytes;
use logtier::ingest::{AppendError, Appended};
use logtier::model::LineRange;
use logtier::read::ReadError;

/// An attempt's name: instance and number.
pub type Name = (String, u32);

/// What is wrong.
pub type Violation = String;

/// How far two clocks may differ: each daemon's is wrong by at most half of it.
pub const TOLERANCE: i64 = 10 * 60_000;

/// Some lines that a client sent together.
#[derive(Debug, Clone)]
pub struct Batch {
    pub name: Name,
    pub lines: Vec<Bytes>,
    /// Without a key it is never sent again.
    pub has_key: bool,
    pub first_asked: i64,
    pub at_line: Option<u64>,
    /// Where it stands, once that is known.
    stored_at: Option<u64>,
    /// Of the attempt when it was first asked for.
    incarnation: u32,
    /// Requests for it that got no answer.
    is_open: bool,
}

/// What is known of a yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    #[default]
    No,
    Maybe,
    Yes,
}

#[derive(Debug, Clone, Default)]
struct Attempt {
    /// Rises when the row was forgotten and the name is used again.
    incarnation: u32,
    /// Whether anything of it was acknowledged.
    exists: bool,
    lines: Vec<Option<Bytes>>,
    /// When the client first asked to finish it, and whether that was answered.
    finish_asked: Option<i64>,
    finish_known: bool,
    /// The last time that something was acknowledged that keeps it open: as early as it can be.
    alive_at: i64,
    deleted: Known,
    delete_asked: Option<i64>,
    /// The last time, also of one that was answered.
    delete_asked_last: Option<i64>,
    /// Deletes that may still be done: under way, or without an answer.
    deletes_open: u32,
    held: Known,
    /// It is certainly held since then.
    held_since: Option<i64>,
}

impl Attempt {
    fn end(&self) -> u64 {
        self.lines.len() as u64
    }
}

/// The ages of the retention rule that all attempts come under.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub cold_for: i64,
    pub forget_after: i64,
    pub dedup_window: i64,
}

/// What was certain when a request began.
#[derive(Debug, Clone)]
pub struct Before {
    incarnation: u32,
    exists: bool,
    end: u64,
    is_deleted: bool,
}

/// The circumstances of an answer.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// When the request began.
    pub began: i64,
    pub now: i64,
    /// A fault was met on the way.
    pub excused: bool,
}

/// What a read gave.
#[derive(Debug, Clone)]
pub struct Read {
    pub name: Name,
    /// What was asked for, as far as the view had it.
    pub range: LineRange,
    /// What the view said of the attempt's end.
    pub end: u64,
    pub lines: Vec<(u64, Bytes)>,
}

#[derive(Debug)]
pub struct Model {
    pub batches: Vec<Batch>,
    attempts: BTreeMap<Name, Attempt>,
    ages: Ages,
    pub reads: u64,
    pub lines_checked: u64,
}

impl Model {
    pub fn new(ages: Ages) -> Self {
        Self { batches: Vec::new(), attempts: BTreeMap::new(), ages, reads: 0, lines_checked: 0 }
    }

    pub fn names(&self) -> Vec<Name> {
        self.attempts.keys().cloned().collect()
    }

    fn attempt(&mut self, name: &Name) -> &mut Attempt {
        self.attempts.entry(name.clone()).or_default()
    }

    pub fn before(&mut self, name: &Name) -> Before {
        let attempt = self.attempt(name);
        let is_deleted = attempt.deleted == Known::Yes;
        Before { incarnation: attempt.incarnation, exists: attempt.exists, end: attempt.end(), is_deleted }
    }

    pub fn end_of(&self, name: &Name) -> u64 {
        self.attempts.get(name).map_or(0, Attempt::end)
    }

    // What clients ask for.

    /// A batch that is about to be sent for the first time; its number.
    pub fn new_batch(&mut self, name: Name, lines: Vec<Bytes>, has_key: bool, at_line: Option<u64>, now: i64) -> usize {
        let incarnation = self.attempt(&name).incarnation;
        self.batches.push(Batch {
            name,
            lines,
            has_key,
            first_asked: now,
            at_line,
            stored_at: None,
            incarnation,
            is_open: true,
        });
        self.batches.len() - 1
    }

    /// Batches with a key that a client may still send again without harm.
    pub fn repeatable(&self, now: i64) -> Vec<usize> {
        let fresh = |batch: &Batch| {
            let incarnation = self.attempts.get(&batch.name).map_or(0, |attempt| attempt.incarnation);
            batch.has_key
                && batch.incarnation == incarnation
                && now - batch.first_asked < self.ages.dedup_window - TOLERANCE
        };
        (0..self.batches.len()).filter(|id| fresh(&self.batches[*id])).collect()
    }

    pub fn ask_finish(&mut self, name: &Name, now: i64) {
        let attempt = self.attempt(name);
        attempt.finish_asked = Some(attempt.finish_asked.map_or(now, |asked| asked.min(now)));
    }

    pub fn ask_delete(&mut self, name: &Name, now: i64) {
        let attempt = self.attempt(name);
        attempt.delete_asked = Some(attempt.delete_asked.map_or(now, |asked| asked.min(now)));
        attempt.delete_asked_last = Some(now);
        attempt.deletes_open += 1;
        if attempt.deleted == Known::No {
            attempt.deleted = Known::Maybe;
        }
    }

    pub fn ask_hold(&mut self, name: &Name) {
        let attempt = self.attempt(name);
        attempt.held = Known::Maybe;
        attempt.held_since = None;
    }

    // What they are answered.

    /// The answer to an append.
    pub fn appended(
        &mut self,
        id: usize,
        before: &Before,
        when: When,
        answer: &Result<Appended, AppendError>,
    ) -> Result<(), Violation> {
        let When { began, now, excused } = when;
        let batch = self.batches[id].clone();
        let name = batch.name.clone();
        match answer {
            Ok(appended) => {
                if appended.lines != batch.lines.len() as u64 {
                    return Err(format!("batch {id}: {} lines were acknowledged", appended.lines));
                }
                if let Some(at_line) = batch.at_line.filter(|at_line| *at_line != appended.first_line) {
                    return Err(format!("batch {id} wanted line {at_line} and got {}", appended.first_line));
                }
                if before.is_deleted && before.incarnation == self.attempt(&name).incarnation && !appended.repeated {
                    self.begin_anew(&name, now, &format!("batch {id} was stored"))?;
                }
                self.stands_at(id, appended.first_line, now)?;
                let attempt = self.attempt(&name);
                attempt.exists = true;
                if !appended.repeated {
                    attempt.alive_at = attempt.alive_at.max(began);
                }
                Ok(())
            }
            // It stood still while the attempt that it found gone was forgotten, and its name used again.
            Err(AppendError::Gone { .. }) if before.incarnation != self.attempt(&name).incarnation => Ok(()),
            Err(AppendError::Gone { .. }) => self.may_be_gone(&name, now),
            Err(AppendError::NotNextLine { next_line }) => match batch.at_line {
                None => Err(format!("batch {id} named no line and was refused for it")),
                Some(at_line) if at_line == *next_line => Err(format!("line {at_line} is the next, yet refused")),
                Some(_) if *next_line < before.end && before.incarnation == self.attempt(&name).incarnation => {
                    self.begin_anew(&name, now, &format!("{name:?} has {next_line} lines"))
                }
                Some(_) => Ok(()),
            },
            Err(AppendError::KeyReused) => Err(format!("batch {id}: its own key is taken for another's")),
            Err(error) if excused => {
                let _ = error;
                Ok(())
            }
            Err(error) => Err(format!("batch {id} failed without a fault: {error:?}")),
        }
    }

    /// The attempt is finished and has `lines`.
    pub fn finished(&mut self, name: &Name, before: &Before, when: When, lines: u64) -> Result<(), Violation> {
        let When { began, now, .. } = when;
        if lines < before.end && before.incarnation == self.attempt(name).incarnation {
            self.begin_anew(name, now, &format!("{name:?} was finished with {lines} of {} lines", before.end))?;
            let attempt = self.attempt(name);
            attempt.finish_asked = Some(began);
            if let Some(asked) = attempt.delete_asked_last.filter(|asked| *asked >= began) {
                // It came after this request had begun the new one, though it was answered before.
                (attempt.deleted, attempt.delete_asked) = (Known::Maybe, Some(asked));
            }
        }
        let attempt = self.attempt(name);
        attempt.exists = true;
        attempt.finish_known = true;
        attempt.alive_at = attempt.alive_at.max(began);
        Ok(())
    }

    pub fn deleted(&mut self, name: &Name, before: &Before) -> Result<(), Violation> {
        let attempt = self.attempt(name);
        attempt.deletes_open -= 1;
        if before.incarnation != attempt.incarnation {
            // That one is gone; whether this one is as well depends on when the daemon looked.
            return Ok(());
        }
        if attempt.held == Known::Yes && attempt.deleted != Known::Yes {
            return Err(format!("{name:?} is held and was deleted"));
        }
        attempt.deleted = Known::Yes;
        Ok(())
    }

    pub fn delete_refused(&mut self, name: &Name) -> Result<(), Violation> {
        let attempt = self.attempt(name);
        if attempt.held == Known::No {
            return Err(format!("{name:?} is not held, yet its delete was refused"));
        }
        attempt.deletes_open -= 1;
        if attempt.deletes_open == 0 && attempt.deleted == Known::Maybe {
            (attempt.deleted, attempt.delete_asked) = (Known::No, None);
        }
        Ok(())
    }

    /// A hold was put on or taken off. Nothing is certain where the attempt may be gone.
    pub fn held(&mut self, name: &Name, on: bool, before: &Before, now: i64) {
        let is_another = before.incarnation != self.attempt(name).incarnation;
        let may_be_gone = is_another || self.may_be_gone(name, now).is_ok();
        let attempt = self.attempt(name);
        (attempt.held, attempt.held_since) = match (on, may_be_gone) {
            (_, true) => (Known::Maybe, None),
            (true, false) => (Known::Yes, Some(now)),
            (false, false) => (Known::No, None),
        };
    }

    /// Nobody has such an attempt.
    pub fn unknown(&mut self, name: &Name, before: &Before, now: i64) -> Result<(), Violation> {
        if !before.exists || before.incarnation != self.attempt(name).incarnation {
            return Ok(());
        }
        self.begin_anew(name, now, &format!("{name:?} was acknowledged and is called unknown"))
    }

    // Reads.

    pub fn check_read(
        &mut self,
        name: &Name,
        before: &Before,
        now: i64,
        read: Result<Read, ReadError>,
        excused: bool,
    ) -> Result<(), Violation> {
        self.reads += 1;
        if before.incarnation != self.attempt(name).incarnation {
            // It began with lines of an attempt that was forgotten while it stood still.
            return Ok(());
        }
        match read {
            Ok(read) => self.check_lines(before, now, &read),
            Err(ReadError::NeverLogged) => self.unknown(name, before, now),
            Err(ReadError::Gone { .. }) => self.may_be_gone(name, now),
            Err(ReadError::Missing { line }) => Err(format!("{name:?}: line {line} is in neither tier")),
            Err(_) if excused => Ok(()),
            Err(error) => Err(format!("{name:?} cannot be read, and no fault was met: {error:?}")),
        }
    }

    fn check_lines(&mut self, before: &Before, now: i64, read: &Read) -> Result<(), Violation> {
        let name = &read.name;
        let same = before.incarnation == self.attempt(name).incarnation;
        let contradicts = before.is_deleted || read.end < before.end;
        if same && contradicts {
            let what = if before.is_deleted { "was deleted and can be read" } else { "is shorter than acknowledged" };
            self.begin_anew(name, now, &format!("{name:?} {what}: {} of {} lines", read.end, before.end))?;
        }
        let (mut next, last) = (read.range.start(), read.range.end());
        for (line, json) in &read.lines {
            if *line != next {
                return Err(format!("{name:?}: line {line} comes where {next} should"));
            }
            next += 1;
            self.check_line(name, *line, json, now)?;
        }
        if next != last.max(read.range.start()) {
            return Err(format!("{name:?}: the read ends at {next}, not at {last}"));
        }
        self.lines_checked += read.lines.len() as u64;
        Ok(())
    }

    /// Line `line` must be what it was, or the line of a batch of which nobody knew whether it was stored.
    fn check_line(&mut self, name: &Name, line: u64, json: &Bytes, now: i64) -> Result<(), Violation> {
        let known = |this: &mut Self| this.attempt(name).lines.get(line as usize).cloned().flatten();
        if known(self).as_ref() == Some(json) {
            return Ok(());
        }
        let Some((id, index)) = parse(json) else { return Err(format!("{name:?}: line {line} is {json:?}")) };
        let Some(batch) = self.batches.get(id) else { return Err(format!("{name:?}: line {line} is of no batch")) };
        if batch.name != *name || batch.lines.get(index) != Some(json) {
            return Err(format!("{name:?}: line {line} is not as batch {id} of {:?} was sent: {json:?}", batch.name));
        }
        if known(self).is_some() {
            self.begin_anew(name, now, &format!("{name:?}: line {line} changed to line {index} of batch {id}"))?;
        }
        let Some(first) = line.checked_sub(index as u64) else {
            return Err(format!("{name:?}: batch {id} begins before the log"));
        };
        self.stands_at(id, first, now)
    }

    /// A batch is known to stand somewhere: from now on for ever.
    fn stands_at(&mut self, id: usize, first: u64, now: i64) -> Result<(), Violation> {
        let batch = self.batches[id].clone();
        let name = batch.name.clone();
        let incarnation = self.attempt(&name).incarnation;
        match batch.stored_at {
            Some(before) if batch.incarnation == incarnation && before != first => {
                return Err(format!("batch {id} of {name:?} stands at line {before} and at line {first}"));
            }
            Some(_) if batch.incarnation == incarnation => return Ok(()),
            _ => {}
        }
        let clashes = |attempt: &Attempt| {
            let known = |at: u64| attempt.lines.get(at as usize).cloned().flatten();
            (first..first + batch.lines.len() as u64).find(|at| known(*at).is_some())
        };
        if let Some(line) = clashes(self.attempt(&name)) {
            self.begin_anew(&name, now, &format!("batch {id} stands at line {line} of {name:?}, which another has"))?;
        }
        let attempt = self.attempt(&name);
        let (incarnation, end) = (attempt.incarnation, first as usize + batch.lines.len());
        if attempt.lines.len() < end {
            attempt.lines.resize(end, None);
        }
        for (index, json) in batch.lines.iter().enumerate() {
            attempt.lines[first as usize + index] = Some(json.clone());
        }
        attempt.exists = true;
        let stored = &mut self.batches[id];
        (stored.stored_at, stored.incarnation, stored.is_open) = (Some(first), incarnation, false);
        Ok(())
    }

    /// What contradicts the model can be right only where the attempt was forgotten and its name used again.
    fn begin_anew(&mut self, name: &Name, now: i64, what: &str) -> Result<(), Violation> {
        let ages = self.ages;
        let attempt = self.attempt(name);
        match gone_since(attempt, ages) {
            Some(since) if since + ages.forget_after <= now + TOLERANCE => {
                let incarnation = attempt.incarnation + 1;
                // What was asked of the one before and is not answered may still find this one.
                let Attempt { deletes_open, held, delete_asked, delete_asked_last, .. } = *attempt;
                let (deleted, delete_asked) = match deletes_open {
                    0 => (Known::No, None),
                    _ => (Known::Maybe, delete_asked),
                };
                let held = if held == Known::Maybe { held } else { Known::No };
                let before = Attempt { incarnation, deletes_open, delete_asked_last, ..Attempt::default() };
                *attempt = Attempt { deleted, delete_asked, held, ..before };
                Ok(())
            }
            _ => Err(format!("{what}; the model: {:?}", Summary(attempt))),
        }
    }

    fn may_be_gone(&mut self, name: &Name, now: i64) -> Result<(), Violation> {
        let ages = self.ages;
        let attempt = self.attempt(name);
        match gone_since(attempt, ages) {
            Some(since) if since <= now + TOLERANCE => Ok(()),
            _ => Err(format!("{name:?} is called gone; the model: {:?}", Summary(attempt))),
        }
    }

    /// Whether the memory of a key may end before this moment: then sending the batch again stores it again.
    pub fn outlives_its_key(&self, id: usize, at: i64) -> bool {
        let batch = &self.batches[id];
        batch.has_key && at - batch.first_asked >= self.ages.dedup_window - TOLERANCE
    }

    /// Whether an attempt must still be there in full whatever time has passed.
    pub fn is_kept_for_ever(&self, name: &Name) -> bool {
        self.attempts.get(name).is_some_and(|attempt| attempt.held == Known::Yes && attempt.deleted == Known::No)
    }
}

/// The first moment at which it may have become gone; `None` where it cannot be.
fn gone_since(attempt: &Attempt, ages: Ages) -> Option<i64> {
    let finished_at = match (attempt.finish_asked, attempt.finish_known) {
        (Some(asked), true) => asked,
        (Some(asked), false) => asked.min(attempt.alive_at),
        (None, _) => attempt.alive_at,
    };
    let expires = finished_at + ages.cold_for;
    let expires = Some(expires).filter(|at| attempt.held_since.is_none_or(|since| since > at - TOLERANCE));
    [expires, attempt.delete_asked].into_iter().flatten().min()
}

/// What an attempt is, without its lines.
struct Summary<'a>(&'a Attempt);

impl std::fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Attempt { incarnation, exists, lines, finish_asked, finish_known, alive_at, .. } = self.0;
        let Attempt { deleted, delete_asked, held, held_since, .. } = self.0;
        write!(f, "incarnation {incarnation}, exists {exists}, {} lines, finish {finish_asked:?} ", lines.len())?;
        write!(f, "known {finish_known}, alive at {alive_at}, deleted {deleted:?} asked {delete_asked:?}, ")?;
        write!(f, "held {held:?} since {held_since:?}")
    }
}

/// Each line's message begins `b{batch}.{index} `.
pub fn message(batch: usize, index: usize, padding: usize) -> String {
    format!("b{batch}.{index} {}", "x".repeat(padding))
}

fn parse(json: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, rest) = text.split_once("\"message\":\"b")?;
    let (batch, rest) = rest.split_once('.')?;
    let (index, _) = rest.split_once(' ')?;
    Some((batch.parse().ok()?, index.parse().ok()?))
}
