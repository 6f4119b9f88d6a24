//! Marks: what people said of an attempt, as the bucket keeps it.

use serde::{Deserialize, Serialize};

use super::{App, AttemptNo, Instance};

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    Delete,
    Hold,
    Release,
}

/// The content of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub mark: MarkKind,
    pub app: App,
    pub instance: Instance,
    pub attempt: AttemptNo,
    /// The catalog's id: a later attempt of the same name is another one.
    pub attempt_id: i64,
    pub at: String,
}
