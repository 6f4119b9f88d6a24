//! What an attempt needs next: a pure function of its row, its rule and the time.
//!
//! `due_at` of a row is when someone must look at it again, for whatever reason. Looking is
//! harmless: whatever is not due yet is put off. So a wrong or early `due_at` costs a look, and
//! nothing in an attempt's life can be forgotten by a crash.

use std::time::Duration;

use super::rules::Ruling;
use crate::catalog::Attempt;
use crate::model::{Age, AttemptState, LineRange, Millis};

/// What applies to all attempts alike.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// No line for so long counts as finished.
    pub idle_after: Duration,
    /// How long chunks stay after their lines were published, for readers that are under way.
    pub purge_grace: Duration,
    /// How long an expired or deleted attempt answers 410 before it is unknown.
    pub forget_after: Age,
}

/// What is to be done with an attempt now, and when to look again if nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Agenda {
    /// Nobody wrote for long: it counts as finished since then.
    pub infer_finish: Option<Millis>,
    pub archive: Option<Due>,
    /// Chunks that begin below this line may go.
    pub purge_below: Option<u64>,
    pub expire: bool,
    pub forget: bool,
    /// The next moment at which something will be due; `Millis::NEVER` if never.
    pub next_at: Option<Millis>,
}

/// Lines that are due to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub lines: LineRange,
    pub since: Millis,
    /// Which objects it belongs to: days since 1970.
    pub finish_day: i64,
    pub expires_at: Option<Millis>,
    /// The attempt is still open: a window of a never-ending one.
    pub is_window: bool,
}

impl Agenda {
    fn later(&mut self, at: Millis) {
        self.next_at = Some(self.next_at.map_or(at, |next| next.min(at)));
    }

    /// Whether the row has nothing to do now and can be put off.
    pub fn is_idle(&self) -> bool {
        *self == Self { next_at: self.next_at, ..Self::default() }
    }

    pub fn next_look(&self) -> Millis {
        self.next_at.unwrap_or(Millis::NEVER)
    }
}

pub(super) fn agenda(attempt: &Attempt, rule: &Ruling, policy: &Policy, now: Millis) -> Agenda {
    match attempt.state {
        AttemptState::Expired | AttemptState::Deleted => of_gone(attempt, policy, now),
        AttemptState::Open => of_open(attempt, rule, policy, now),
        AttemptState::Finished | AttemptState::Inferred => of_finished(attempt, rule, policy, now),
    }
}

fn of_gone(attempt: &Attempt, policy: &Policy, now: Millis) -> Agenda {
    let mut agenda = Agenda::default();
    let forget_at = add(attempt.gone_at.unwrap_or(now), policy.forget_after);
    if attempt.purged_line < attempt.next_line {
        agenda.purge_below = Some(attempt.next_line);
        // Whoever purges it puts it off until then.
        agenda.later(forget_at);
    } else if forget_at <= now {
        agenda.forget = true;
    } else {
        agenda.later(forget_at);
    }
    agenda
}

fn of_open(attempt: &Attempt, rule: &Ruling, policy: &Policy, now: Millis) -> Agenda {
    let mut agenda = Agenda::default();
    let idle_since = attempt.written_at.max(attempt.created_at);
    match idle_since.after(policy.idle_after) {
        at if at <= now => {
            agenda.infer_finish = Some(idle_since);
            return agenda;
        }
        at => agenda.later(at),
    }
    let window_at = add(attempt.published_at.unwrap_or(attempt.created_at), rule.max_open_for);
    if !attempt.hot_lines().is_empty() {
        if window_at <= now {
            agenda.archive = Some(Due {
                lines: attempt.hot_lines(),
                since: window_at,
                finish_day: attempt.written_at.day(),
                expires_at: None,
                is_window: true,
            });
        } else {
            agenda.later(window_at);
        }
    }
    purge(&mut agenda, attempt, policy, now);
    agenda
}

fn of_finished(attempt: &Attempt, rule: &Ruling, policy: &Policy, now: Millis) -> Agenda {
    let mut agenda = Agenda::default();
    let finished_at = attempt.finished_at.unwrap_or(attempt.written_at);
    let expires_at = ends_at(attempt, rule);
    let is_held = attempt.held || rule.hold;
    if expires_at <= now && !is_held {
        agenda.expire = true;
        return agenda;
    }
    if !is_held {
        agenda.later(expires_at);
    }
    // An entry without lines carries what was said of the attempt after its lines had moved.
    if !attempt.hot_lines().is_empty() || attempt.archived_meta < attempt.meta_version {
        match add(finished_at, rule.hot_for) {
            at if at <= now => {
                agenda.archive = Some(Due {
                    lines: attempt.hot_lines(),
                    since: at.max(attempt.due_at.min(now)),
                    finish_day: finished_at.day(),
                    expires_at: shown_expiry(attempt, rule),
                    is_window: false,
                });
            }
            at => agenda.later(at),
        }
    }
    purge(&mut agenda, attempt, policy, now);
    agenda
}

/// When a finished attempt's retention ends. The row may say later than the rules, until changed
/// rules have reached it, and the rules later than the row: the later counts.
pub(super) fn ends_at(attempt: &Attempt, rule: &Ruling) -> Millis {
    let finished_at = attempt.finished_at.unwrap_or(attempt.written_at);
    let ends_at = add(finished_at, rule.cold_for);
    attempt.expires_at.map_or(ends_at, |at| at.max(ends_at))
}

/// From when on readers call it expired without asking; `None` where they have to wait until it is.
pub(super) fn shown_expiry(attempt: &Attempt, rule: &Ruling) -> Option<Millis> {
    let finished_at = attempt.finished_at.unwrap_or(attempt.written_at);
    let ends_at = add(finished_at, rule.cold_for);
    // The newest runs of a job may stay longer: only a look at the others tells.
    (ends_at < Millis::NEVER && rule.keep_at_least == 0 && !rule.hold).then_some(ends_at)
}

fn purge(agenda: &mut Agenda, attempt: &Attempt, policy: &Policy, now: Millis) {
    if attempt.purged_line >= attempt.archived_line {
        return;
    }
    match attempt.published_at.unwrap_or(now).after(policy.purge_grace) {
        at if at <= now => agenda.purge_below = Some(attempt.archived_line),
        at => agenda.later(at),
    }
}

pub(super) fn add(from: Millis, age: Age) -> Millis {
    match age {
        Age::For(span) => from.after(span),
        Age::Forever => Millis::NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttemptId, AttemptNo, Labels, LevelSet};

    const HOUR: i64 = 3_600_000;

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    fn policy() -> Policy {
        Policy { idle_after: hours(24), purge_grace: hours(1), forget_after: Age::For(hours(1000)) }
    }

    /// Hot for 2 h, cold for 100 h, windows of 10 h.
    fn rule() -> Ruling {
        Ruling {
            name: "default".parse().expect("a name"),
            hot_for: Age::For(hours(2)),
            cold_for: Age::For(hours(100)),
            max_open_for: Age::For(hours(10)),
            keep_at_least: 0,
            hold: false,
            removed: None,
        }
    }

    /// Ten lines, written at hour 0.
    fn attempt(state: AttemptState) -> Attempt {
        Attempt {
            id: AttemptId::stored(1),
            app_id: 1,
            instance: "i".parse().expect("a name"),
            attempt: AttemptNo::FIRST,
            job_id: 0,
            labels: Labels::default(),
            state,
            outcome: None,
            held: false,
            meta_version: 2,
            archived_meta: 0,
            next_line: 10,
            archived_line: 0,
            purged_line: 0,
            trimmed_line: 0,
            raw_bytes: 100,
            archived_bytes: 0,
            first_ts: None,
            last_ts: None,
            levels: LevelSet::EMPTY,
            created_at: Millis::ZERO,
            written_at: Millis::ZERO,
            finished_at: state.is_finished().then_some(Millis::ZERO),
            published_at: None,
            expires_at: None,
            gone_at: state.is_gone().then_some(Millis::ZERO),
            failures: 0,
            rule_id: 0,
            due_at: Millis::ZERO,
        }
    }

    fn archived() -> Attempt {
        Attempt {
            archived_meta: 2,
            archived_line: 10,
            published_at: Some(Millis::new(3 * HOUR)),
            expires_at: Some(Millis::new(100 * HOUR)),
            ..attempt(AttemptState::Finished)
        }
    }

    fn at(attempt: &Attempt, hour: i64) -> Agenda {
        agenda(attempt, &rule(), &policy(), Millis::new(hour * HOUR))
    }

    fn looks_again(attempt: &Attempt, hour: i64, next_hour: i64) {
        let agenda = at(attempt, hour);
        assert!(agenda.is_idle(), "{agenda:?}");
        assert_eq!(agenda.next_look(), Millis::new(next_hour * HOUR));
    }

    #[test]
    fn an_open_attempt_waits_then_moves_in_windows_then_counts_as_finished() {
        let open = attempt(AttemptState::Open);
        looks_again(&open, 1, 10);
        let window = at(&open, 10).archive.expect("a window");
        assert!(window.is_window && window.expires_at.is_none() && window.lines == LineRange::new(0, 10));
        assert_eq!(at(&open, 24).infer_finish, Some(Millis::ZERO));
        let busy = Attempt { written_at: Millis::new(23 * HOUR), archived_line: 10, purged_line: 10, ..open };
        looks_again(&busy, 24, 47);
    }

    #[test]
    fn a_finished_attempt_stays_hot_for_its_time() {
        let finished = attempt(AttemptState::Finished);
        looks_again(&finished, 1, 2);
        let due = at(&finished, 2).archive.expect("due");
        assert_eq!((due.lines, due.expires_at), (LineRange::new(0, 10), Some(Millis::new(100 * HOUR))));
    }

    #[test]
    fn chunks_go_only_after_the_grace() {
        looks_again(&archived(), 3, 4);
        assert_eq!(
            at(&archived(), 4),
            Agenda { purge_below: Some(10), next_at: Some(Millis::new(100 * HOUR)), ..Agenda::default() }
        );
        looks_again(&Attempt { purged_line: 10, ..archived() }, 5, 100);
    }

    #[test]
    fn of_row_and_rules_the_later_end_counts() {
        let longer = Ruling { cold_for: Age::For(hours(300)), ..rule() };
        let shorter = Ruling { cold_for: Age::For(hours(50)), ..rule() };
        let purged = Attempt { purged_line: 10, ..archived() };
        let expires = |rule: &Ruling, hour: i64| agenda(&purged, rule, &policy(), Millis::new(hour * HOUR)).expire;
        assert!(!expires(&longer, 299) && expires(&longer, 300));
        assert!(!expires(&shorter, 99) && expires(&shorter, 100));
        assert_eq!(shown_expiry(&purged, &shorter), Some(Millis::new(50 * HOUR)));
        assert_eq!(shown_expiry(&purged, &Ruling { keep_at_least: 1, ..shorter }), None);
    }

    #[test]
    fn late_lines_and_late_words_move_too() {
        let late_line = Attempt { purged_line: 10, next_line: 12, ..archived() };
        assert_eq!(at(&late_line, 5).archive.expect("due").lines, LineRange::new(10, 12));
        let late_outcome = Attempt { purged_line: 10, meta_version: 3, ..archived() };
        assert!(at(&late_outcome, 5).archive.expect("due").lines.is_empty());
    }

    #[test]
    fn expiry_waits_for_a_hold_and_forgetting_for_the_purge() {
        assert!(at(&archived(), 100).expire);
        assert!(!at(&Attempt { held: true, ..archived() }, 100).expire);
        assert!(!agenda(&archived(), &Ruling { hold: true, ..rule() }, &policy(), Millis::new(100 * HOUR)).expire);
        let expired = attempt(AttemptState::Expired);
        assert_eq!(at(&expired, 5).purge_below, Some(10));
        assert_eq!(at(&expired, 5).next_look(), Millis::new(1000 * HOUR), "it is not lost after the purge");
        let purged = Attempt { purged_line: 10, ..expired };
        looks_again(&purged, 5, 1000);
        assert!(at(&purged, 1000).forget);
    }
}
