-- The place of some consecutive lines of one attempt inside a segment.
-- A row of no lines is an attempt's entry without lines (silent, or its outcome came late).
CREATE TABLE IF NOT EXISTS part_{shard} (
    attempt_id BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    line_count BIGINT NOT NULL,
    segment_id BIGINT NOT NULL,
    byte_offset BIGINT NOT NULL,
    byte_length BIGINT NOT NULL,
    skip INT NOT NULL,
    first_ts BIGINT,
    last_ts BIGINT,
    levels INT NOT NULL,
    frames VARBINARY(2048) NOT NULL,
    PRIMARY KEY (attempt_id, first_line)
)
