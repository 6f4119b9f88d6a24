//! The shape of the TOML file, before anything is checked but names and basic types.
//!
//! Values with a unit or a syntax of their own stay texts here, so that all that is wrong with
//! them is reported at once. A `None` means "not said": defaults belong to the checked settings.

use serde::Deserialize;

use super::secret::Secret;

macro_rules! table {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name { $(pub $field: Option<$kind>,)* }
    };
}

table!(File {
    data_dir: String,
    server: Server,
    hot: Hot,
    cold: Cold,
    archive: Archive,
    purge: Purge,
    scrub: Scrub,
    ingest: Ingest,
    retention: Retention,
    log: Log,
    protocol: Protocol,
});

table!(Server {
    listen: String,
    token: Secret,
    token_file: String,
    allow_anonymous: bool,
    max_body_size: String,
    drain_timeout: String,
});

table!(Hot {
    url: String,
    password: Secret,
    password_file: String,
    shards: i64,
    connections: i64,
    replicas: String,
    server: Vec<HotServer>,
});

table!(HotServer { url: String, password: Secret, password_file: String, shards: String, replicas: String });

table!(Cold {
    url: String,
    endpoint: String,
    region: String,
    virtual_hosted_style: bool,
    access_key_id: String,
    secret_access_key: Secret,
    secret_access_key_file: String,
    session_token: Secret,
    session_token_file: String,
    credentials_file: String,
    zstd_level: i64,
    frame_size: String,
    search_filters: bool,
    shared: bool,
});

table!(Archive {
    schedule: String,
    timezone: String,
    idle_after: String,
    object_size: String,
    max_delay: String,
    purge_grace: String,
    lease_ttl: String,
    abandoned_after: String,
    doomed_for: String,
    rewrite_at: String,
    pressure_size: String,
});

table!(Purge { rest: String, max_lock_waits: i64, max_replica_lag: String, window: String });

table!(Scrub { every: String, rate: String });

table!(Ingest { max_record_size: String, queue_size: String, dedup_window: String });

table!(Retention { forget_after: String, erase_within: String, shrink_grace: String, default: Ages, rule: Vec<Rule>, });

table!(Ages { hot_for: String, cold_for: String, max_open_for: String, keep_at_least: i64, hold: bool });

table!(Rule {
    name: String,
    app: String,
    job: String,
    outcome: String,
    hot_for: String,
    cold_for: String,
    max_open_for: String,
    keep_at_least: i64,
    hold: bool,
});

table!(Log { format: String, level: String });

table!(Protocol { powerjob: PowerJob, powerjob_s3: PowerJobS3 });

table!(PowerJob {
    listen: String,
    server: String,
    console: String,
    app: String,
    timezone: String,
    public_url: String,
    allow_anonymous: bool,
});

table!(PowerJobS3 {
    listen: String,
    bucket: String,
    access_key: String,
    secret_key: Secret,
    secret_key_file: String,
    app: String,
    timezone: String,
    max_file_size: String,
});
