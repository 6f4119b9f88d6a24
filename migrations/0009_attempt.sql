-- One attempt of an instance. `state`: 0 open, 1 finished, 2 inferred, 3 expired, 4 deleted.
-- Lines below archived_line are read from parts, lines at or above it from chunks.
-- rule_id is the rule under which its last lines were archived; 0 before that.
-- due_at is when the archiver must next look at the row.
CREATE TABLE IF NOT EXISTS attempt_{shard} (
    id BIGINT NOT NULL PRIMARY KEY,
    app_id INT NOT NULL,
    instance VARBINARY(255) NOT NULL,
    attempt INT NOT NULL,
    job_id INT NOT NULL,
    labels VARBINARY(2048) NOT NULL,
    state SMALLINT NOT NULL,
    outcome SMALLINT NOT NULL,
    held SMALLINT NOT NULL,
    meta_version INT NOT NULL,
    archived_meta INT NOT NULL,
    next_line BIGINT NOT NULL,
    archived_line BIGINT NOT NULL,
    purged_line BIGINT NOT NULL,
    trimmed_line BIGINT NOT NULL,
    raw_bytes BIGINT NOT NULL,
    archived_bytes BIGINT NOT NULL,
    first_ts BIGINT,
    last_ts BIGINT,
    levels INT NOT NULL,
    created_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    finished_at BIGINT,
    published_at BIGINT,
    expires_at BIGINT,
    gone_at BIGINT,
    failures INT NOT NULL,
    rule_id INT NOT NULL DEFAULT 0,
    due_at BIGINT NOT NULL,
    UNIQUE (app_id, instance, attempt)
)
