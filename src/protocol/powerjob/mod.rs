//! PowerJob 4.x and 5.x: what its workers report, what its server stores, and what its console asks for.
//!
//! # How the surfaces meet
//!
//! Live lines, stored files and imports are ways to one and the same log. What makes them meet:
//!
//! - all of them write the one app that the configuration or `--app` names (PowerJob's own app ids are labels);
//! - an instance is called by PowerJob's 64-bit id in decimal ([`InstanceId`]), whatever file it came from;
//! - `jobId` is the job, `appId` and `wfInstanceId` are labels ([`InstanceFacts`]);
//! - a line is its millisecond, level, worker address and text ([`Line`]), whether it was reported or read from a
//!   file: so a line that is stored already is recognised ([`KnownLines`](super::known::KnownLines)) and not
//!   stored again, in whatever order it comes;
//! - what PowerJob writes where it found no log ([`is_placeholder`]) is no log, anywhere.
//!
//! A reported line has no attempt in it; PowerJob's `running_times` tells it only afterwards. So a file is compared
//! with the lines of *all* attempts of its instance, and only what is in none of them is stored.
//!
//! # Exact bytes
//!
//! A file that was parsed by [`Parser`] is rendered by [`Renderer`] to the same bytes, in the same time zone. A line
//! whose rendering would differ (no header, a date that does not exist, an address that is no text) is kept raw: a
//! record without a source, which is rendered as its message alone.

mod attempts;
mod console;
mod forward;
pub(super) mod front;
mod gaps;
mod instance;
mod line;
mod log_file;
mod parse;
mod render;
mod report;
pub(super) mod s3;
mod status;

pub use instance::{InstanceFacts, InstanceId, InvalidInstanceId, Status, attempt_of, is_placeholder};
pub use line::{Line, LineLevel, parse_zone};
pub use parse::Parser;
pub use render::Renderer;

/// The bucket that holds log files.
pub const LOG_BUCKET: &str = "log";
/// The bucket that holds jars, which are none of our business.
pub const CONTAINER_BUCKET: &str = "container";
