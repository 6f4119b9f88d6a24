-- One object of the cold tier. `state` decides its fate: 0 uploading, 1 live, 2 doomed.
-- `entries` counts the parts that were published, `dead_entries` those that went since.
-- `written_…` is what the object holds, published or not; 0 where a rebuild could not tell.
-- `deleted_lines` of `dead_lines` went because someone deleted them, the first at `deleted_at`: their
-- bytes must leave the bucket in time. `died_at` is when an entry last went for whatever reason.
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
    filter_offset BIGINT,
    entries BIGINT NOT NULL,
    dead_entries BIGINT NOT NULL,
    line_count BIGINT NOT NULL,
    dead_lines BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    doomed_at BIGINT,
    written_entries BIGINT NOT NULL DEFAULT 0,
    written_lines BIGINT NOT NULL DEFAULT 0,
    deleted_lines BIGINT NOT NULL DEFAULT 0,
    deleted_at BIGINT,
    died_at BIGINT,
    failures INT NOT NULL DEFAULT 0,
    due_at BIGINT NOT NULL,
    UNIQUE (ulid)
)
