//! What operators ask: is everything there, and how far is the cold tier behind.

mod compare;
mod finding;
mod lines;
mod marks;
mod object;
mod rebuild;
mod report;
mod scrub;
mod status;
mod verify;

pub use finding::{Finding, FindingKind, Phase, Progress};
pub use rebuild::{RebuildSettings, RebuildSummary, rebuild};
pub use report::{
    AsideItem, AsideReport, ColdReport, DaemonReport, FindingReport, HotReport, LagReport, LeaseReport,
    RetentionReport, ScrubReport, ServerReport, ShardReport, StatusReport, TaskReport,
};
pub use scrub::{Scrub, ScrubSettings};
pub use status::{NotReady, Status, StatusSettings};
pub use verify::{Scope, VerifySettings, VerifySummary, verify};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cold::Store;

/// Both tiers, opened for an audit.
#[derive(Clone)]
pub struct Audit {
    pub catalog: Catalog,
    pub store: Store,
    pub clock: Clock,
}

/// A tier that could not be asked: nothing is known of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("ask the hot tier")]
    Db(#[from] crate::db::Error),
    #[error("ask the cold tier")]
    Cold(#[from] crate::cold::Error),
    /// Its attempts would be on servers that each count it for themselves.
    #[error(
        "object {0} holds attempts of more than one server of this configuration: set hot.shards and the shards \
         of each [[hot.server]] as they were when it was written"
    )]
    OtherServers(String),
}
