//! What operators ask: is everything there, and how far is the cold tier behind.

mod report;
mod status;

pub use report::{ColdReport, DaemonReport, HotReport, LagReport, ServerReport, ShardReport, StatusReport, TaskReport};
pub use status::{NotReady, Status, StatusSettings};
