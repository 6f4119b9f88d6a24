//! The life of an attempt.
//!
//! ```text
//!            line             line (late: stays finished)
//!           ┌────┐            ┌────┐
//!           │    ▼   finish   │    ▼
//!   ──────► Open ───────────► Finished ───────┐ expire
//!           │  ▲                 ▲            ▼
//!      idle │  │ line     finish │         Expired ──► (forgotten)
//!           ▼  │                 │            ▲
//!           Inferred ────────────┘            │
//!              └──────────────────────────────┘ expire
//!
//!   any of them ── delete ──► Deleted ──► (forgotten)
//! ```
//!
//! "Archived" is no state of its own: it is a finished attempt whose lines are all in the cold tier.

use std::fmt;

/// What the catalog says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// May get lines at any time.
    Open,
    /// The client said that it is over.
    Finished,
    /// Nothing was written for `idle_after`. A line opens it again.
    Inferred,
    /// Its retention is over: every read answers 410.
    Expired,
    /// Someone deleted it by name: every read answers 410.
    Deleted,
}

/// What can happen to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Line,
    Finish,
    Idle,
    Expire,
    Delete,
}

impl AttemptState {
    /// The one transition function; `None` where the event is refused.
    pub fn on(self, event: Event) -> Option<Self> {
        use AttemptState::{Deleted, Expired, Finished, Inferred, Open};
        match (self, event) {
            (Deleted | Expired, Event::Line | Event::Finish | Event::Idle | Event::Expire) => None,
            (_, Event::Delete) => Some(Deleted),
            (Open | Inferred, Event::Line) => Some(Open),
            (Finished, Event::Line | Event::Finish) => Some(Finished),
            (Open | Inferred, Event::Finish) => Some(Finished),
            (Open | Inferred, Event::Idle) => Some(Inferred),
            (Finished, Event::Idle) => Some(Finished),
            (Finished | Inferred, Event::Expire) => Some(Expired),
            (Open, Event::Expire) => None,
        }
    }

    /// Whether the attempt is over, as far as anyone knows.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Finished | Self::Inferred)
    }

    /// Whether its lines may be neither read nor written any more.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Expired | Self::Deleted)
    }

    /// The number that tables and segment indexes hold.
    pub fn code(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Finished => 1,
            Self::Inferred => 2,
            Self::Expired => 3,
            Self::Deleted => 4,
        }
    }

    pub fn from_code(code: i64) -> Option<Self> {
        [Self::Open, Self::Finished, Self::Inferred, Self::Expired, Self::Deleted]
            .into_iter()
            .find(|state| state.code() == code)
    }
}

/// The word for an attempt's state in answers: `archived` is told apart from `finished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownState {
    Open,
    Finished,
    Archived,
    Expired,
    Deleted,
}

impl ShownState {
    /// `hot_lines` is how many lines stand in the hot tier alone.
    pub fn of(state: AttemptState, lines: u64, hot_lines: u64) -> Self {
        match state {
            AttemptState::Open => Self::Open,
            AttemptState::Finished | AttemptState::Inferred if lines > 0 && hot_lines == 0 => Self::Archived,
            AttemptState::Finished | AttemptState::Inferred => Self::Finished,
            AttemptState::Expired => Self::Expired,
            AttemptState::Deleted => Self::Deleted,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Finished => "finished",
            Self::Archived => "archived",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }
}

/// A word that stands for no state or outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} \"{word}\", expected one of {expected}")]
pub struct UnknownWord {
    pub kind: &'static str,
    pub word: String,
    pub expected: &'static str,
}

/// How a finished attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The number that tables and segment indexes hold; 0 stands for "nobody said".
    pub fn code(outcome: Option<Self>) -> i64 {
        match outcome {
            None => 0,
            Some(Self::Succeeded) => 1,
            Some(Self::Failed) => 2,
            Some(Self::Cancelled) => 3,
        }
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| Self::code(Some(*outcome)) == code)
    }
}

impl std::str::FromStr for Outcome {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word).ok_or_else(|| UnknownWord {
            kind: "outcome",
            word: word.to_owned(),
            expected: "succeeded, failed, cancelled",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reopens_only_what_nobody_finished() {
        assert_eq!(AttemptState::Inferred.on(Event::Line), Some(AttemptState::Open));
        assert_eq!(AttemptState::Finished.on(Event::Line), Some(AttemptState::Finished));
        assert_eq!(AttemptState::Expired.on(Event::Line), None);
        assert_eq!(AttemptState::Deleted.on(Event::Finish), None);
        assert_eq!(AttemptState::Open.on(Event::Expire), None);
    }

    #[test]
    fn codes_round_trip() {
        for code in 0..5 {
            assert_eq!(AttemptState::from_code(code).map(AttemptState::code), Some(code));
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_code(Outcome::code(Some(outcome))), Some(outcome));
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
        assert_eq!(Outcome::from_code(0), None);
    }

    #[test]
    fn archived_means_that_nothing_is_hot() {
        assert_eq!(ShownState::of(AttemptState::Finished, 5, 1).as_str(), "finished");
        assert_eq!(ShownState::of(AttemptState::Finished, 5, 0).as_str(), "archived");
        assert_eq!(ShownState::of(AttemptState::Finished, 0, 0).as_str(), "finished");
        assert_eq!(ShownState::of(AttemptState::Open, 5, 0).as_str(), "open");
    }
}
