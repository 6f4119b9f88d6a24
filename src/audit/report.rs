//! The answer of `GET /status`. Holds no secret; times are RFC 3339.

use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StatusReport {
    pub version: &'static str,
    pub daemon: String,
    pub cluster_id: String,
    pub started_at: String,
    pub uptime_seconds: u64,
    pub hot: HotReport,
    pub cold: ColdReport,
    pub lag: LagReport,
    pub scrub: ScrubReport,
    pub retention: RetentionReport,
    pub leases: Vec<LeaseReport>,
    pub set_aside: AsideReport,
    /// Daemons that were seen in the last minutes.
    pub daemons: Vec<DaemonReport>,
    pub tasks: Vec<TaskReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HotReport {
    pub reachable: bool,
    /// As the databases estimate; unknown where a server does not answer.
    pub chunks: Option<u64>,
    pub bytes: Option<u64>,
    pub servers: Vec<ServerReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ServerReport {
    pub url: String,
    pub engine: &'static str,
    pub reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub shards: Vec<ShardReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardReport {
    pub shard: u16,
    pub chunks: u64,
    pub bytes: u64,
    pub due_attempts: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ColdReport {
    pub url: String,
    pub reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Live objects as the catalog knows them, counted up to 100,000 a server; unknown where a server
    /// of the hot tier, where the catalog stands, does not answer.
    pub objects: Option<u64>,
    pub bytes: Option<u64>,
}

/// What failed by itself and is left alone for a while.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AsideReport {
    /// Counted up to 10,000 a server.
    pub count: u64,
    /// The first hundred of each server.
    pub first: Vec<AsideItem>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AsideItem {
    pub what: String,
    pub reason: String,
    /// In a row.
    pub failures: u32,
    pub last_failure_at: String,
    /// None after too many failures: `logtier archive --retry` tries again.
    pub next_try_at: Option<String>,
}

/// Which retention rules count, by their digests.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RetentionReport {
    /// All daemons hold to the rules that were published; nothing expires while they do not.
    pub agreed: bool,
    pub published: Option<String>,
    pub published_at: Option<String>,
    /// Until then, ages that the rules before had longer still count.
    pub longer_ages_until: Option<String>,
    /// Why someone paused purging and expiring, if they did.
    pub purge_paused: Option<String>,
}

/// Who may archive on a server of the hot tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LeaseReport {
    pub server: String,
    pub task: String,
    /// The daemon that is at it; none between runs.
    pub held_by: Option<String>,
    pub expires_at: Option<String>,
}

/// How far the objects have been read again, over all servers, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ScrubReport {
    /// Of the oldest pass that lasts or was the last; none before the first.
    pub pass_began_at: Option<String>,
    /// None while it lasts.
    pub pass_ended_at: Option<String>,
    pub pass_objects: u64,
    pub pass_bytes: u64,
    /// The newest, up to 100 a server.
    pub findings: Vec<FindingReport>,
}

/// An object that is not what the catalog says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FindingReport {
    pub kind: String,
    pub object: String,
    pub what: String,
    /// How many attempts have lines in it.
    pub attempts: u64,
    pub found_at: String,
}

/// What the archiver has yet to look at; unknown where a server of the hot tier does not answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LagReport {
    /// Counted up to 10,000 a shard.
    pub due_attempts: Option<u64>,
    pub oldest_due_at: Option<String>,
    /// 0 where nothing is due.
    pub oldest_due_seconds: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DaemonReport {
    pub name: String,
    /// `up`, or `silent`: it missed its last heartbeats, and is taken off the list a minute after the last.
    pub state: &'static str,
    pub version: String,
    /// A digest of the retention rules it holds to; all daemons should show the same.
    pub rules: String,
    pub started_at: String,
    pub seen_at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TaskReport {
    pub name: String,
    /// On any daemon; none before the first time.
    pub last_success_at: Option<String>,
    pub last_failure_at: Option<String>,
    /// Of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
