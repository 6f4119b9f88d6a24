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
    pub retention: RetentionReport,
    /// Daemons that were seen in the last minutes.
    pub daemons: Vec<DaemonReport>,
    pub tasks: Vec<TaskReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HotReport {
    pub reachable: bool,
    /// As the databases estimate, over the servers that answered.
    pub chunks: u64,
    pub bytes: u64,
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
    /// Live objects as the catalog knows them, counted up to 100,000 a server.
    pub objects: u64,
    pub bytes: u64,
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
}

/// What the archiver has yet to look at.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LagReport {
    /// Counted up to 10,000 a shard.
    pub due_attempts: u64,
    pub oldest_due_at: Option<String>,
    pub oldest_due_seconds: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DaemonReport {
    pub name: String,
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
