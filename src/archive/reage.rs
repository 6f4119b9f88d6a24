//! Changed rules reach every attempt: a walk over all rows, in the order of their key.
//!
//! The walk remembers how far it came, so that a run does a share of it and the next goes on, whichever
//! daemon has that. Reads are small, and only rows that differ are written.

use std::sync::Arc;
use std::time::Duration;

use super::agenda::{agenda, shown_expiry};
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
}

/// Goes on with the walk if the rules in force are not those of the last one.
pub(super) async fn reage(
    shared: &Shared,
    db: &Arc<Db>,
    lease: &Lease,
    rules: &RulesInForce,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    if rules.stop.is_some() {
        return Ok(());
    }
    let known = db.meta(PLACE).await?.and_then(|text| Place::parse(&text));
    let mut place =
        known.filter(|place| place.version == rules.version).unwrap_or_else(|| Place::start(&rules.version));
    if place.done {
        return Ok(());
    }
    let began = shared.clock.instant();
    let first = place.shard;
    for &shard in db.shards().iter().filter(|shard| shard.number() >= first) {
        let home = Home { db: Arc::clone(db), shard };
        let after = if shard.number() == place.shard { place.after } else { i64::MIN };
        place = Place { shard: shard.number(), after, ..place };
        loop {
            let page = shared.catalog.attempts_after(&home, AttemptId::stored(place.after), PAGE).await?;
            let Some(last) = page.last().map(|attempt| attempt.id.get()) else { break };
            let is_last = page.len() < PAGE as usize;
            report.reaged += reage_some(shared, &home, lease, rules, page).await?;
            place.after = last;
            if is_last {
                break;
            }
            if shared.stop.is_cancelled() || began.elapsed() >= SHARE_OF_A_RUN {
                return Ok(db.set_meta(PLACE, &place.to_text()).await?);
            }
        }
    }
    place.done = true;
    Ok(db.set_meta(PLACE, &place.to_text()).await?)
}

async fn reage_some(
    shared: &Shared,
    home: &Home,
    lease: &Lease,
    rules: &RulesInForce,
    page: Vec<Attempt>,
) -> Result<u64, ArchiveError> {
    let mut changes = Vec::new();
    for attempt in page.into_iter().filter(|attempt| !attempt.state.is_gone()) {
        changes.extend(new_age(shared, home, rules, attempt).await?);
    }
    let changed = changes.len() as u64;
    shared.catalog.set_ages(home, lease, changes).await?;
    Ok(changed)
}

/// What is to be changed of a row, if anything is.
async fn new_age(
    shared: &Shared,
    home: &Home,
    rules: &RulesInForce,
    mut attempt: Attempt,
) -> Result<Option<NewAge>, ArchiveError> {
    let app: App =
        shared.catalog.name_of(&home.db, attempt.app_id).await?.parse().map_err(super::candidates::bad_name)?;
    let job: Option<Job> = shared.catalog.optional_name(&home.db, attempt.job_id).await?;
    let rule = rules.ruling_of(shared, &home.db, &app, job.as_ref(), &attempt).await?;
    let (seen, before) = (attempt.seen(), (attempt.expires_at, attempt.due_at));
    if attempt.state.is_finished() && attempt.published_at.is_some() {
        attempt.expires_at = shown_expiry(&attempt, &rule);
    }
    let now = shared.clock.now();
    let todo = agenda(&attempt, &rule, &shared.policy(), now);
    let look_at = if todo.is_idle() { todo.next_look() } else { now };
    // What was set aside is left alone until then, whatever the rules say.
    let due_at: Millis = if attempt.failures > 0 { attempt.due_at } else { attempt.due_at.min(look_at) };
    let after = (attempt.expires_at, due_at);
    Ok((after != before).then_some(NewAge { seen, expires_at: attempt.expires_at, due_at }))
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
