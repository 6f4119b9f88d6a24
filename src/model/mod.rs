//! The words of logtier as types: ids, records, levels, line ranges, attempt states, retention rules.
//!
//! Everything here is pure: no clock, no file, no network. A value that exists is valid, because
//! the only way to make one is a constructor that checks it ("parse, don't validate").

mod bounds;
mod ids;
mod level;
mod lines;
mod mark;
mod policy;
mod record;
mod state;
mod time;
mod utf8;

pub use bounds::Bounds;
pub use ids::{
    App, AttemptId, AttemptKey, AttemptNo, Identity, Instance, InvalidName, Job, Labels, MAX_LABELS_BYTES, RuleName,
    is_as_written, json_escaped,
};
pub use level::{Level, LevelSet, LevelTracker};
pub use lines::LineRange;
pub use mark::{Mark, MarkKind};
pub use policy::{Age, Rule, RuleSet};
pub use record::{Attrs, InvalidRecord, Record, tail_start};
pub use state::{AttemptState, Event, Outcome, ShownState, UnknownWord};
pub use time::{InvalidTimestamp, Millis, Timestamp};
pub use utf8::char_boundary;
