//! What operators see: log lines and metrics. Any folder may use this one.

mod chain;
mod logging;
mod metrics;

pub use chain::chain;
pub use logging::{LogFormat, init_logging};
pub use metrics::{ByKind, ByShard, ByTask, Metrics};
