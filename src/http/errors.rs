//! What the errors of the parts behind this one mean to a client.

use axum::http::StatusCode;

use super::Problem;
use crate::archive::ArchiveError;
use crate::ingest::{AppendError, EndError, NoRoom};
use crate::model::{AttemptState, Millis, ShownState};
use crate::read::ReadError;

const TRY_AGAIN_SECONDS: u32 = 2;

/// Nothing was ever logged under an id, as far as anyone knows now.
pub const UNKNOWN: &str = "nothing was logged under this id, or so long ago that it is forgotten";

pub fn never_logged(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "never-logged", "Never logged", detail).with("state", "never_logged")
}

pub fn gone(state: AttemptState, at: Option<Millis>) -> Problem {
    let shown = ShownState::of(state, 0, 0).as_str();
    let when = at.map(|at| format!(" since {at}")).unwrap_or_default();
    let (title, member) = match state {
        AttemptState::Deleted => ("The log is deleted", "deleted_at"),
        _ => ("The log is expired", "expired_at"),
    };
    let detail = format!("the log is {shown}{when}; it can be neither read nor written");
    let problem = Problem::new(StatusCode::GONE, "gone", title, detail).with("state", shown);
    problem.with(member, at.map(|at| at.to_string()))
}

/// A tier cannot be asked; that is not the same as an empty log.
fn unavailable(tier: &'static str) -> Problem {
    let detail = format!("the {tier} tier does not answer; nothing was lost, try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "A tier is away", detail)
        .with("tier", tier)
        .retry_after(TRY_AGAIN_SECONDS)
}

/// A database that does not answer now, or has no room.
fn database_away(is_full: bool) -> Problem {
    let problem = unavailable("hot");
    if !is_full {
        return problem;
    }
    problem.detailed("the hot tier has no room left on its disk; nothing was stored, make room and try again")
}

pub fn stopping() -> Problem {
    let detail = "the daemon is stopping; try again, another one will answer";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The daemon is stopping", detail).retry_after(1)
}

pub fn conflict(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, kind, title, detail)
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NeverLogged => never_logged(UNKNOWN),
            ReadError::Gone { state, at } => gone(state, at),
            error if error.is_unavailable() => {
                let tier = if matches!(error, ReadError::Cold(_)) { "cold" } else { "hot" };
                unavailable(tier).caused_by(error)
            }
            error if let Some(key) = error.missing_object() => {
                let detail = format!(
                    "the lines are in object \"{key}\", which is not in the cold store; `logtier verify` lists all \
                     that is missing, and a copy under the same name makes it readable again"
                );
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "missing", "Stored data is missing", detail)
                    .caused_by(error)
            }
            error if error.is_damage() => {
                let detail = "what is stored is not what was written; the daemon's log has more under this request id";
                let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "corrupt", "Stored data is damaged", detail);
                problem.caused_by(error)
            }
            error => Self::internal(error),
        }
    }
}

impl From<NoRoom> for Problem {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::TooLarge { limit } => {
                let detail = format!(
                    "the body's records would take more than {limit} bytes of memory, which is all that \
                     ingest.queue_size allows; nothing was stored: send it in pieces"
                );
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
                    .with("limit", limit)
            }
            NoRoom::Taken => {
                let detail = "more records are waiting to be stored than the daemon may hold; try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much at once", detail).retry_after(1)
            }
        }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => NoRoom::Taken.into(),
            AppendError::Gone { state, at } => gone(state, at),
            AppendError::NotNextLine { next_line } => {
                let detail = format!("at_line is not the next line, which is {next_line}");
                conflict("not-next-line", "Not the next line", detail).with("next_line", next_line)
            }
            AppendError::KeyReused => {
                let detail =
                    "the Idempotency-Key was used before for other content; nothing of this attempt was stored";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The key was used before", detail)
            }
            AppendError::Db(ref cause) if cause.is_permanent() => Self::internal(error),
            AppendError::Db(ref cause) => database_away(cause.is_full()).caused_by(error),
            AppendError::Stopping => stopping(),
        }
    }
}

impl From<EndError> for Problem {
    fn from(error: EndError) -> Self {
        match error {
            EndError::Gone { state, at } => gone(state, at),
            EndError::OtherOutcome { found, asked } => {
                let detail = format!("the attempt is finished as {found}; {asked} would change that");
                conflict("other-outcome", "Finished with another outcome", detail)
                    .with("outcome", found.as_str())
                    .with("asked", asked.as_str())
            }
            EndError::OtherLines { stored, claimed } => {
                let detail = format!(
                    "{stored} lines are stored and the request counts {claimed}; the attempt stays as it is: \
                     send what is missing, or finish without a count"
                );
                conflict("other-lines", "Another number of lines", detail)
                    .with("stored_lines", stored)
                    .with("claimed_lines", claimed)
            }
            EndError::Contended => unavailable("hot").caused_by(error),
            EndError::Db(ref cause) if cause.is_permanent() => Self::internal(error),
            EndError::Db(ref cause) => database_away(cause.is_full()).caused_by(error),
        }
    }
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        match &error {
            ArchiveError::Db(cause) if !cause.is_permanent() => database_away(cause.is_full()).caused_by(error),
            ArchiveError::Cold(cause) if !cause.is_permanent() => unavailable("cold").caused_by(error),
            ArchiveError::LeaseLost => unavailable("hot").caused_by(error),
            ArchiveError::Stopping => stopping(),
            ArchiveError::OtherBucket { .. } => {
                let detail = format!("nothing was done: {error}");
                unavailable("cold").detailed(detail).caused_by(error)
            }
            _ => Self::internal(error),
        }
    }
}
