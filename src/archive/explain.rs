//! Which rule applies to an attempt, and when what happens to it.

use serde::Serialize;

use super::agenda::{add, ends_at, shown_expiry};
use super::rules::{RulesInForce, Ruling};
use super::{ArchiveError, Archiver, Shared};
use crate::catalog::Attempt;
use crate::model::{Age, App, AttemptNo, AttemptState, Instance, Job, LineRange, Millis};

/// What becomes of an attempt, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub app: String,
    pub instance: String,
    pub attempt: u32,
    pub job: Option<String>,
    pub state: &'static str,
    /// The first rule that matches.
    pub rule: String,
    /// Where another rule's ages count, because it was removed after the attempt was archived under it.
    pub ages_of_removed_rule: Option<String>,
    pub hot_for: String,
    pub cold_for: String,
    pub max_open_for: String,
    pub keep_at_least: u32,
    pub held_by_request: bool,
    pub held_by_rule: bool,
    /// In order; those that are over are left out.
    pub steps: Vec<Step>,
    /// Why nothing at all expires for now.
    pub expiry_is_stopped: Option<String>,
    /// Until when ages that the rules had before still count where they are longer.
    pub longer_ages_until: Option<String>,
    /// How often in a row archiving has failed; it is tried again when the archiver looks next.
    pub failures: u32,
    pub next_look_at: Option<String>,
}

/// Something that will happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub what: &'static str,
    /// The schedule's next run after that does it; none while something holds it up.
    pub at: Option<String>,
    pub why: String,
}

impl Archiver {
    /// Explains an attempt, the newest where none is named; `None` where there is none.
    pub async fn explain(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
    ) -> Result<Option<Explanation>, ArchiveError> {
        let shared = &self.shared;
        let nothing = LineRange::new(0, 0);
        let Some(found) = shared.catalog.snapshot(app, instance, attempt, nothing).await? else { return Ok(None) };
        let (home, attempt) = (found.home, found.attempt);
        let rules = RulesInForce::load(shared, &home.db).await?;
        let job: Option<Job> = shared.catalog.optional_name(&home.db, attempt.job_id).await?;
        let rule = rules.ruling_of(shared, &home.db, app, job.as_ref(), &attempt).await?;
        let later = rules.ruling_after_grace(shared, &home.db, app, job.as_ref(), &attempt).await?;
        // As readers see it, whatever the next run makes of it.
        let state = attempt.shown_state(shared.clock.now()).as_str();
        let mut attempt = attempt;
        if rules.stop.is_none() && attempt.expires_at.is_some() {
            // As the next run leaves it, where the rules have not reached it yet.
            attempt.expires_at = shown_expiry(&attempt, &rule);
        }
        let kept = rule.keep_at_least > 0 && super::retire::is_kept(shared, &rules, &home, &attempt).await?;
        let look_at = Some(attempt.due_at).filter(|at| *at < Millis::NEVER);
        Ok(Some(Explanation {
            app: app.to_string(),
            instance: instance.to_string(),
            attempt: attempt.attempt.get(),
            job: job.map(|job| job.to_string()),
            state,
            rule: rule.name.to_string(),
            ages_of_removed_rule: rule.removed.as_ref().map(ToString::to_string),
            hot_for: shown(rule.hot_for),
            cold_for: shown(rule.cold_for),
            max_open_for: shown(rule.max_open_for),
            keep_at_least: rule.keep_at_least,
            held_by_request: attempt.held,
            held_by_rule: rule.hold,
            steps: steps(shared, &attempt, &rule, kept, later),
            expiry_is_stopped: rules.stop,
            longer_ages_until: rules.grace_until.map(|at| at.to_string()),
            failures: attempt.failures,
            next_look_at: look_at.map(|at| at.to_string()),
        }))
    }
}

fn steps(shared: &Shared, attempt: &Attempt, rule: &Ruling, kept: bool, later: Option<(Millis, Ruling)>) -> Vec<Step> {
    let settings = &shared.settings;
    let step = |what, at: Option<Millis>, why: String| {
        let at = at.filter(|at| *at < Millis::NEVER).map(|at| at.to_string());
        Step { what, at, why }
    };
    let mut steps = Vec::new();
    match attempt.state {
        AttemptState::Open => {
            let idle_at = attempt.written_at.max(attempt.created_at).after(settings.idle_after);
            steps.push(step("counts as finished", Some(idle_at), "no line for archive.idle_after".to_owned()));
            let window_at = add(attempt.published_at.unwrap_or(attempt.created_at), rule.max_open_for);
            if !attempt.hot_lines().is_empty() {
                steps.push(step("a window of it is archived", Some(window_at), "open for max_open_for".to_owned()));
            }
            steps.push(step("expires", None, "not before it is finished; cold_for counts from then".to_owned()));
        }
        AttemptState::Finished | AttemptState::Inferred => {
            let finished_at = attempt.finished_at.unwrap_or(attempt.written_at);
            if !attempt.hot_lines().is_empty() {
                let at = add(finished_at, rule.hot_for);
                let why = "finished, and hot_for is over; a small group waits for archive.max_delay".to_owned();
                steps.push(step("is archived", Some(at), why));
            }
            steps.push(expiry(attempt, rule, kept, &step));
            steps.extend(later.and_then(|(until, later)| {
                // The row's own end is that of the longer age.
                let ends_at = ends_at(&Attempt { expires_at: None, ..attempt.clone() }, &later).max(until);
                let shortened = !attempt.held && !later.hold && ends_at < super::agenda::ends_at(attempt, rule);
                let why = format!("the rules are shorter now, and what they were counts until {until}");
                shortened.then(|| step("expires, unless the rules change again", Some(ends_at), why))
            }));
        }
        AttemptState::Expired | AttemptState::Deleted => {
            let at = attempt.gone_at.map(|at| add(at, settings.forget_after));
            steps.push(step("is forgotten", at, "gone for retention.forget_after; then it is unknown".to_owned()));
            if let (AttemptState::Deleted, Some(at)) = (attempt.state, attempt.gone_at) {
                let at = add(at, settings.rewrite.erase_within);
                let why = "deleted; objects that hold it are rewritten within retention.erase_within".to_owned();
                steps.push(step("its bytes have left the bucket", Some(at), why));
            }
        }
    }
    if attempt.purged_line < attempt.archived_line {
        let at = attempt.published_at.map(|at| at.after(settings.purge_grace));
        let why = "archived, and archive.purge_grace is over".to_owned();
        steps.insert(0, step("its archived lines leave the database", at, why));
    }
    steps
}

fn expiry(
    attempt: &Attempt,
    rule: &Ruling,
    kept: bool,
    step: &impl Fn(&'static str, Option<Millis>, String) -> Step,
) -> Step {
    let at = ends_at(attempt, rule);
    match (attempt.held, rule.hold) {
        (true, _) => step("expires", None, "held by request: not before the hold is taken off".to_owned()),
        (_, true) => step("expires", None, format!("rule \"{}\" holds it", rule.name)),
        _ if at == Millis::NEVER => step("expires", None, "never: cold_for is forever".to_owned()),
        _ if kept => {
            let why = format!("among the newest {} runs of its job, which stay", rule.keep_at_least);
            step("expires", None, why)
        }
        _ => step("expires", Some(at), "finished, and cold_for is over".to_owned()),
    }
}

/// As the configuration writes it, in days where they come out even.
fn shown(age: Age) -> String {
    match age {
        Age::Forever => "forever".to_owned(),
        Age::For(span) => match span.as_millis() {
            millis if millis % 86_400_000 == 0 && millis > 0 => format!("{}d", millis / 86_400_000),
            millis if millis % 3_600_000 == 0 && millis > 0 => format!("{}h", millis / 3_600_000),
            millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
            millis => format!("{millis}ms"),
        },
    }
}
