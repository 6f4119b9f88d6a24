-- One object of the cold tier. `state` decides its fate: 0 uploading, 1 live, 2 doomed.
-- `entries` counts the parts that were published, `dead_entries` those that went since.
-- due_at is when the sweeper must next look at the row.
CREATE TABLE IF NOT EXISTS segment (
    id BIGINT NOT NULL PRIMARY KEY,
    ulid BINARY(16) NOT NULL,
    app_id INT NOT NULL,
    rule_id INT NOT NULL,
    finish_day INT NOT NULL,
    state SMALLINT NOT NULL,
    task VARBINARY(32) NOT NULL,
    fence BIGINT NOT NULL,
    byte_length BIGINT,
    hash BINARY(32),
    index_offset BIGINT,
    frames_offset BIGINT,
    entries BIGINT NOT NULL,
    dead_entries BIGINT NOT NULL,
    line_count BIGINT NOT NULL,
    dead_lines BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    doomed_at BIGINT,
    due_at BIGINT NOT NULL,
    UNIQUE (ulid)
)
