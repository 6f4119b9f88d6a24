//! An attempt as answers show it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{App, AttemptState, Instance, Job, Labels, Millis};
use crate::read::Attempt;

/// What lists and the answers to `PUT` and `finish` say of an attempt; a summary says more.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShownAttempt {
    #[schema(value_type = String)]
    app: App,
    #[schema(value_type = Option<String>)]
    job: Option<Job>,
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
    #[schema(value_type = String)]
    instance: Instance,
    attempt: u32,
    state: &'static str,
    outcome: Option<&'static str>,
    /// Nobody said that it is over; there was only long silence.
    finish_inferred: bool,
    lines: u64,
    /// Of all records as JSON, before compression.
    bytes: u64,
    first_ts: Option<String>,
    last_ts: Option<String>,
    created_at: String,
    finished_at: Option<String>,
    /// When lines last moved to the cold tier.
    archived_at: Option<String>,
    expires_at: Option<String>,
    hold: bool,
}

impl ShownAttempt {
    pub fn new(app: &App, job: Option<&Job>, attempt: &Attempt, now: Millis) -> Self {
        let shown = |at: Option<Millis>| at.map(|at| at.to_string());
        Self {
            app: app.clone(),
            job: job.cloned(),
            labels: attempt.labels.clone(),
            instance: attempt.instance.clone(),
            attempt: attempt.attempt.get(),
            state: attempt.shown_state(now).as_str(),
            outcome: attempt.outcome.map(|outcome| outcome.as_str()),
            finish_inferred: attempt.state == AttemptState::Inferred,
            lines: attempt.next_line,
            bytes: attempt.raw_bytes,
            first_ts: attempt.first_ts.map(|ts| ts.to_string()),
            last_ts: attempt.last_ts.map(|ts| ts.to_string()),
            created_at: attempt.created_at.to_string(),
            finished_at: shown(attempt.finished_at),
            archived_at: shown(attempt.published_at),
            expires_at: shown(attempt.expires_at),
            hold: attempt.held,
        }
    }

    pub fn expiring_at(self, expires_at: Option<Millis>) -> Self {
        Self { expires_at: expires_at.map(|at| at.to_string()), ..self }
    }
}

/// The answer to `GET` of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary {
    #[serde(flatten)]
    pub attempt: ShownAttempt,
    /// All attempts of the instance, ascending.
    pub attempts: Vec<u32>,
    pub rule: Option<String>,
    pub tiers: TierShares,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TierShares {
    pub hot: HotShare,
    pub cold: ColdShare,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HotShare {
    pub lines: u64,
    pub bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ColdShare {
    pub lines: u64,
    pub bytes: u64,
    /// Keys of the objects that hold them.
    pub segments: Vec<String>,
}

impl TierShares {
    pub fn new(attempt: &Attempt, segments: Vec<String>) -> Self {
        let hot_bytes = attempt.raw_bytes.saturating_sub(attempt.archived_bytes);
        let cold_lines = attempt.archived_line.saturating_sub(attempt.trimmed_line);
        Self {
            hot: HotShare { lines: attempt.hot_lines().len(), bytes: hot_bytes },
            cold: ColdShare { lines: cold_lines, bytes: attempt.archived_bytes, segments },
        }
    }
}
