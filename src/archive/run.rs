//! One run: look at what is due, and do it.

use std::sync::Arc;
use std::time::Duration;

use super::build::Built;
use super::candidates::{Candidates, DueWork, Group};
use super::claim::{check_clock, claim, hold};
use super::gentle::Brake;
use super::objects::Writer;
use super::report::MAX_LISTED;
use super::rules::RulesInForce;
use super::{ArchiveError, Failure, Move, RunReport, Shared, Waiting};
use crate::catalog::{Lease, Published};
use crate::db::{Db, Home};
use crate::model::Millis;
use crate::pause::pause_after;

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Schedule,
    Request,
}

/// How long a run that someone asked for waits for another daemon's.
const REQUEST_PATIENCE: Duration = Duration::from_secs(600);

/// Rounds of one run: each moves at least one window of an attempt that is larger than an object.
const MAX_ROUNDS: usize = 100_000;

/// Bytes before compression per byte after, as on usual logs: to tell from rows how large a group's
/// object would be. Too low a guess only makes a group wait for `max_delay`.
const USUAL_RATIO: u64 = 8;

/// Runs on every server, and keeps the report. Answers why it was refused, if only a person can
/// change that.
pub(super) async fn run(shared: &Shared, id: i64, cause: Cause) -> Option<String> {
    let name = if cause == Cause::Schedule { "schedule" } else { "request" };
    let mut report = shared.new_report(id, name);
    let mut did_something = false;
    for db in shared.catalog.cluster.servers() {
        match run_server(shared, db, cause, &mut report).await {
            Ok(ran) => did_something |= ran,
            Err(error) => {
                did_something = true;
                fail(shared, &mut report, "archive", &error);
            }
        }
    }
    report.finished_at = Some(shared.clock.now().to_string());
    report.state = if report.failures.is_empty() { "done" } else { "failed" }.to_owned();
    if !did_something {
        return None;
    }
    report.next_due_at = next_due_anywhere(shared).await;
    shared.metrics.run_ended(&report.state);
    note_success(shared, &report).await;
    tracing::info!(
        run.id = id,
        run.cause = name,
        run.attempts = report.attempts,
        run.lines = report.lines,
        run.objects = report.objects,
        run.purged = report.purged,
        run.expired = report.expired,
        run.failures = report.failures.len(),
        "archive run ended"
    );
    if let Err(error) = shared.put_report(id, &report).await {
        tracing::warn!(run.id = id, error = error.chain(), "could not store the report of a run");
    }
    report.refused
}

/// Metrics and `status` show when the archiver last did all it had to do.
async fn note_success(shared: &Shared, report: &RunReport) {
    let error = report.failures.first().map(|failure| format!("{}: {}", failure.what, failure.error));
    for db in shared.catalog.cluster.servers() {
        if let Err(error) = shared.catalog.task_ended(db, "archive", shared.clock.now(), error.as_deref()).await {
            tracing::debug!(error = %error, "could not note how the run ended");
        }
    }
}

fn fail(shared: &Shared, report: &mut RunReport, what: &str, error: &ArchiveError) {
    tracing::warn!(run.id = report.run_id, error = error.chain(), "{what} failed");
    shared.metrics.error("archive");
    if error.is_refusal() {
        report.refused = Some(error.chain());
    }
    report.failures.push(Failure { what: what.to_owned(), error: error.chain() });
}

/// Answers false where another daemon is at it and nobody insisted.
async fn run_server(shared: &Shared, db: &Arc<Db>, cause: Cause, report: &mut RunReport) -> Result<bool, ArchiveError> {
    let patience = if cause == Cause::Request { REQUEST_PATIENCE } else { Duration::ZERO };
    check_clock(shared, db).await?;
    let Some(lease) = claim(shared, db, patience).await? else { return Ok(false) };
    pause_after("claim", &shared.clock).await;
    let work = async {
        super::bucket::check(shared).await?;
        let rules = RulesInForce::agree(shared, db, &lease).await?;
        let mover = Mover { shared, db, lease: &lease, rules: &rules };
        mover.rounds(cause, report).await
    };
    hold(shared, db, lease.clone(), work).await.map(|()| true)
}

/// A run on one server, which it holds the lease of.
struct Mover<'a> {
    shared: &'a Shared,
    db: &'a Arc<Db>,
    lease: &'a Lease,
    rules: &'a RulesInForce,
}

impl Mover<'_> {
    /// Again and again until nothing moves: an attempt larger than an object moves one object a round.
    async fn rounds(&self, cause: Cause, report: &mut RunReport) -> Result<(), ArchiveError> {
        let Mover { shared, db, rules, .. } = *self;
        super::reage::reage(shared, db, self.lease, rules, report).await?;
        let mut brake = Brake::new(shared, db, self.lease);
        for round in 0..MAX_ROUNDS {
            let now = shared.clock.now();
            let mut work = shared.due_work(db, rules, now).await?;
            // Archiving early makes no room while nothing is purged.
            if round == 0 && (shared.settings.pressure_bytes.is_none() || brake.may_go_on().await?) {
                super::pressure::relieve(shared, db, rules, &mut work, now).await?;
                report.pressure = work.pressure.clone().or(report.pressure.take());
            }
            let before = (report.objects, report.expired, report.purged);
            let is_cut = work.is_cut;
            let stuck = self.round(work, cause, &mut brake, report).await?;
            let moved = (report.objects, report.expired, report.purged) != before;
            if stuck || !(moved || is_cut) {
                break;
            }
        }
        let swept = super::sweep::sweep(shared, db, report).await;
        let error = swept.as_ref().err().map(ArchiveError::chain);
        shared.catalog.task_ended(db, "sweep", shared.clock.now(), error.as_deref()).await?;
        super::rewrite::rewrite(shared, db, self.lease, swept?, report).await
    }

    /// Does what is due; true where going on is of no use.
    async fn round(
        &self,
        mut work: DueWork,
        cause: Cause,
        brake: &mut Brake<'_>,
        report: &mut RunReport,
    ) -> Result<bool, ArchiveError> {
        let Mover { shared, db, lease, rules } = *self;
        report.inferred += work.inferred.len() as u64;
        let inferred = std::mem::take(&mut work.inferred);
        by_home(inferred, |home, rows| async move { shared.catalog.infer_finish(&home, lease, rows).await }).await?;
        super::retire::retire(shared, lease, rules, brake, &mut work, report).await?;
        report.waiting.clear();
        let mut stuck = false;
        let now = shared.clock.now();
        for (group, candidates) in std::mem::take(&mut work.groups) {
            let may_wait = cause == Cause::Schedule && !work.is_cut && work.pressure.is_none();
            if let Some(waiting) = not_yet(shared, &group, &candidates, now).filter(|_| may_wait) {
                report.waiting.push(waiting);
                continue;
            }
            let writer = Writer { shared, db, lease, rules };
            if let Err(error) = writer.archive_group(&group, candidates.attempts, report, count).await {
                if matches!(error, ArchiveError::LeaseLost | ArchiveError::Stopping) {
                    return Err(error);
                }
                fail(shared, report, &format!("archive app {} rule {}", group.app, group.rule), &error);
                stuck |= error.stops_the_run();
                if stuck {
                    break;
                }
            }
        }
        let purges = std::mem::take(&mut work.purges);
        shared.metrics.purge_backlog.set(purges.len() as i64);
        let purged = super::purge::purge(shared, lease, brake, purges).await?;
        report.purged += purged.attempts;
        report.purged_chunks += purged.chunks;
        report.purge_stopped = brake.stopped.clone().or(report.purge_stopped.take());
        pause_after("purge", &shared.clock).await;
        by_home(std::mem::take(&mut work.idle), |home, rows| async move {
            shared.catalog.postpone(&home, lease, rows).await
        })
        .await?;
        shared.metrics.purge_backlog.set(0);
        Ok(stuck)
    }
}

/// Calls `change` once for each shard.
async fn by_home<F, R>(rows: Vec<(Home, crate::catalog::Attempt, Millis)>, change: F) -> Result<(), ArchiveError>
where
    F: Fn(Home, Vec<(crate::catalog::Seen, Millis)>) -> R,
    R: Future<Output = Result<(), crate::catalog::LeaseError>>,
{
    for of_shard in rows.chunk_by(|a, b| a.0.shard == b.0.shard) {
        let some = of_shard.iter().map(|(_, attempt, at)| (attempt.seen(), *at)).collect();
        change(of_shard[0].0.clone(), some).await?;
    }
    Ok(())
}

/// Why a group should wait for company, if it should.
fn not_yet(shared: &Shared, group: &Group, candidates: &Candidates, now: Millis) -> Option<Waiting> {
    let until = candidates.oldest.after(shared.settings.max_delay);
    let large = candidates.bytes / USUAL_RATIO >= shared.settings.object_bytes;
    if large || until <= now {
        return None;
    }
    Some(Waiting {
        app: group.app.to_string(),
        rule: group.rule.to_string(),
        finish_day: Millis::of_day(group.finish_day).to_string()[..10].to_owned(),
        attempts: candidates.attempts.len() as u64,
        bytes: candidates.bytes,
        until: until.to_string(),
        why: "too small for an object of its own; waits for company until archive.max_delay is over".to_owned(),
    })
}

fn count(shared: &Shared, report: &mut RunReport, published: Published, built: Built) {
    shared.metrics.attempts_archived.inc_by(published.attempts);
    shared.metrics.lines_archived.inc_by(published.lines);
    report.attempts += published.attempts;
    report.lines += published.lines;
    report.bytes += published.raw_bytes;
    report.objects += 1;
    report.object_bytes += built.written.byte_length;
    for entry in built.entries.iter().filter(|entry| !(entry.damage.is_some() && entry.lines.is_empty())) {
        if report.moves.len() >= MAX_LISTED {
            report.moves_not_listed += 1;
            continue;
        }
        report.moves.push(Move {
            app: built.planned.app.to_string(),
            instance: entry.attempt.instance.to_string(),
            attempt: entry.attempt.attempt.get(),
            rule: entry.rule.clone(),
            lines: entry.lines.len(),
            bytes: entry.raw_bytes,
            why: why(entry.early, entry.due.is_window, entry.lines.is_empty()),
        });
    }
}

fn why(is_early: bool, is_window: bool, is_empty: bool) -> String {
    match (is_window, is_empty) {
        _ if is_early => "the hot tier is under pressure",
        (true, _) => "open for longer than max_open_for",
        (false, true) => "no lines; its end and outcome are recorded",
        (false, false) => "finished longer ago than hot_for",
    }
    .to_owned()
}

/// What a run that is asked for would do now, which moves all that is due and lets nothing wait for
/// company. Changes nothing and needs no lease.
pub(super) async fn rehearse(shared: &Shared) -> Result<RunReport, ArchiveError> {
    let now = shared.clock.now();
    let mut report = RunReport { dry_run: true, state: "done".to_owned(), ..shared.new_report(0, "request") };
    report.run_id.clear();
    report.finished_at = Some(now.to_string());
    let mut next_at: Option<Millis> = None;
    for db in shared.catalog.cluster.servers() {
        let rules = RulesInForce::load(shared, db).await?;
        let (mut work, is_all) = super::reage::foresee(shared, db, &rules, now).await?;
        if !is_all {
            let error = "there are more than a look takes time for; a run goes on until it has seen all".to_owned();
            report.failures.push(Failure { what: "look at all attempts for the changed rules".to_owned(), error });
        }
        super::pressure::relieve(shared, db, &rules, &mut work, now).await?;
        list_ends(shared, db, &rules, &work, &mut report).await?;
        next_at = [next_at, work.next_at].into_iter().flatten().min();
        report.inferred += work.inferred.len() as u64;
        report.purged += work.purges.len() as u64;
        report.forgotten += work.forgets.len() as u64;
        for (group, candidates) in &work.groups {
            report.objects += 1;
            report.attempts += candidates.attempts.len() as u64;
            report.lines += candidates.attempts.iter().map(|candidate| candidate.lines).sum::<u64>();
            report.bytes += candidates.bytes;
            list_moves(shared, group, candidates, &mut report).await?;
        }
        report.pressure = work.pressure.clone().or(report.pressure.take());
        let idle = work.idle.iter().map(|(_, _, at)| *at).min();
        next_at = [next_at, idle, next_due(shared, db).await?].into_iter().flatten().min();
    }
    report.next_due_at = next_at.filter(|at| *at < Millis::NEVER).map(|at| at.to_string());
    Ok(report)
}

/// Which attempts would expire, and which objects would be rewritten or deleted.
async fn list_ends(
    shared: &Shared,
    db: &Arc<Db>,
    rules: &RulesInForce,
    work: &DueWork,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    for (home, attempt) in &work.expiries {
        if super::retire::is_kept(shared, rules, home, attempt).await? {
            continue;
        }
        report.expired += 1;
        if report.ends.len() < MAX_LISTED {
            report.ends.push(super::retire::end_of(shared, rules, home, attempt).await?);
        }
    }
    if let Some(why) = rules.stop.as_ref().filter(|_| report.expired > 0) {
        let what = format!("expire {} attempts", report.expired);
        report.failures.push(Failure { what, error: why.clone() });
    }
    super::sweep::rehearse(shared, db, report).await
}

async fn list_moves(
    shared: &Shared,
    group: &Group,
    candidates: &Candidates,
    report: &mut RunReport,
) -> Result<(), ArchiveError> {
    for candidate in &candidates.attempts {
        if report.moves.len() >= MAX_LISTED {
            report.moves_not_listed += 1;
            continue;
        }
        for attempt in shared.catalog.attempts(&candidate.home, &[candidate.id]).await? {
            report.moves.push(Move {
                app: group.app.to_string(),
                instance: attempt.instance.to_string(),
                attempt: attempt.attempt.get(),
                rule: group.rule.to_string(),
                lines: attempt.hot_lines().len(),
                bytes: candidate.bytes,
                why: why(
                    candidate.early,
                    !attempt.state.is_finished() && attempt.finished_at.is_none(),
                    attempt.hot_lines().is_empty(),
                ),
            });
        }
    }
    Ok(())
}

/// When something more will be due after a run; none where that cannot be asked or will never be.
async fn next_due_anywhere(shared: &Shared) -> Option<String> {
    let mut next = None;
    for db in shared.catalog.cluster.servers() {
        next = [next, next_due(shared, db).await.ok().flatten()].into_iter().flatten().min();
    }
    next.filter(|at| *at < Millis::NEVER).map(|at| at.to_string())
}

/// When the first attempt that is not due now will be.
async fn next_due(shared: &Shared, db: &Arc<Db>) -> Result<Option<Millis>, ArchiveError> {
    let mut next = None;
    for &shard in db.shards() {
        let home = Home { db: Arc::clone(db), shard };
        let at = shared.catalog.next_due(&home, shared.clock.now()).await?;
        next = [next, at].into_iter().flatten().min();
    }
    Ok(next)
}
