//! Changed rules reach every attempt: a walk over all rows, in the order of their key.
//!
//! The walk remembers how far it came, so that a run does a share of it and the next goes on, whichever
//! daemon has that. Reads are small, and only rows that differ are written.

use std::sync::Arc;
use std::time::Duration;

use super::agenda::{agenda, shown_expiry};
use super::candidates::{DueWork, MAX_PER_RUN};
use super::rules::RulesInForce;
use super::{ArchiveError, RunReport, Shared};
use crate::catalog::{Attempt, Lease, NewAge};
use crate::db::{Db, Home};
use crate::model::{App, AttemptId, Job, Millis};

/// Where the walk's place stands in the `meta` table.
const PLACE: &str = "reaged";

/// Rows read at a time.
const PAGE: u32 = 500;

/// A run walks for so long; at 500 rows in some 10 ms it passes over millions.
const SHARE_OF_A_RUN: Duration = Duration::from_secs(60);

/// Someone waits for the answer.
const SHARE_OF_A_LOOK: Duration = Duration::from_secs(10);

/// How far the walk came. `done` once it has seen all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    version: String,
    shard: u16,
    after: i64,
    done: bool,
}

impl Place {
    fn start(version: &str) -> Self {
        Self { version: version.to_owned(), shard: 0, after: i64::MIN, done: false }
    }

    fn to_text(&self) -> String {
        format!("{} {} {} {}", self.version, self.shard, self.after, self.done)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let version = words.next()?.to_owned();
        let (shard, after, done) = (words.next()?.parse(), words.next()?.parse(), words.next()?.parse());
        Some(Self { version, shard: shard.ok()?, after: after.ok()?, done: done.ok()? })
    }

    /// Where the walk for these rules stands.
    async fn load(db: &Db, rules: &RulesInForce) -> Result<Self, ArchiveError> {
        let known = db.meta(PLACE).await?.and_then(|text| Self::parse(&text));
        Ok(known.filter(|place| place.version == rules.version).unwrap_or_else(|| Self::start(&rules.version)))
    }

    /// The next rows; `None` once all were seen.
    async fn next(&mut self, shared: &Shared, db: &Arc<Db>) -> Result<Option<(Home, Vec<Attempt>)>, ArchiveError> {
        while let Some(&shard) = db.shards().iter().find(|shard| shard.number() >= self.shard && !self.done) {
            if shard.number() != self.shard {
                (self.shard, self.after) = (shard.number(), i64::MIN);
            }
            let home = Home { db: Arc::clone(db), shard };
            let page = shared.catalog.attempts_after(&home, AttemptId::stored(self.after), PAGE).await?;
            if let Some(last) = page.last() {
                self.after = last.id.get();
                return Ok(Some((home, page)));
            }
            (self.shard, self.after) = (self.shard + 1, i64::MIN);
        }
        self.done = true;
        Ok(None)
    }
}

/// Goes on with the walk if the rules in force are not those of the last one.
pub(super) async fn reage(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    rules: &RulesInForce,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    let mut place = Place::load(db, rules).await?;
    if rules.stop.is_some() || place.done {
        return Ok(());
    }
    let began = shared.clock.instant();
    while let Some((home, page)) = place.next(shared, db).await? {
        report.reaged += reage_some(shared, &home, lease, rules, page).await?;
        if shared.stop.is_cancelled() || began.elapsed() >= SHARE_OF_A_RUN {
            break;
        }
    }
    Ok(db.set_meta(PLACE, &place.to_text()).await?)
}

/// What is due once the walk has come by, and whether that is all of it: there may be more to see than a
/// look should take.
pub(super) async fn foresee(
    shared: &Shared,
    db: &Arc<Db>,
    rules: &RulesInForce,
    now: Millis,
) -> Result<(DueWork, bool), ArchiveError> {
    let mut place = Place::load(db, rules).await?;
    if place.done {
        return Ok((shared.due_work(db, rules, now).await?, true));
    }
    let (mut work, mut due, began) = (DueWork::default(), 0, shared.clock.instant());
    place = Place::start(&place.version);
    while let Some((home, page)) = place.next(shared, db).await? {
        for mut attempt in page {
            if !attempt.state.is_gone() {
                attempt = aged(shared, &home, rules, attempt, now).await?;
            }
            if attempt.due_at <= now {
                due += 1;
                shared.sort_in(&mut work, rules, &home, attempt, now).await?;
            }
        }
        if due >= MAX_PER_RUN || began.elapsed() >= SHARE_OF_A_LOOK {
            return Ok((work, false));
        }
    }
    Ok((work, true))
}

async fn reage_some(
    shared: &Shared,
    home: &Home,
    lease: &Lease,
    rules: &RulesInForce,
    page: Vec<Attempt>,
) -> Result<u64, ArchiveError> {
    let (mut changes, now) = (Vec::new(), shared.clock.now());
    for attempt in page.into_iter().filter(|attempt| !attempt.state.is_gone()) {
        let (seen, before) = (attempt.seen(), (attempt.expires_at, attempt.due_at));
        let Attempt { expires_at, due_at, .. } = aged(shared, home, rules, attempt, now).await?;
        if (expires_at, due_at) != before {
            changes.push(NewAge { seen, expires_at, due_at });
        }
    }
    let changed = changes.len() as u64;
    shared.catalog.set_ages(home, lease, changes).await?;
    Ok(changed)
}

/// The row as the rules in force want it.
async fn aged(
    shared: &Shared,
    home: &Home,
    rules: &RulesInForce,
    mut attempt: Attempt,
    now: Millis,
) -> Result<Attempt, ArchiveError> {
    let app: App =
        shared.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(super::candidates::bad_name)?;
    let job: Option<Job> = shared.catalog.optional_name(&home.db, attempt.job_id).await?;
    let rule = rules.ruling_of(shared, &home.db, &app, job.as_ref(), &attempt).await?;
    if attempt.state.is_finished() && attempt.published_at.is_some() {
        attempt.expires_at = shown_expiry(&attempt, &rule);
    }
    let todo = agenda(&attempt, &rule, &shared.policy(), now);
    let look_at = if todo.is_idle() { todo.next_look() } else { now };
    // What was set aside is left alone until then, whatever the rules say.
    if attempt.failures == 0 {
        attempt.due_at = attempt.due_at.min(look_at);
    }
    Ok(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip() {
        let place = Place { version: "ab".to_owned(), shard: 3, after: -7, done: true };
        assert_eq!(Place::parse(&place.to_text()), Some(place));
        assert_eq!(Place::parse("ab 3"), None);
    }
}
