-- Some consecutive records of one attempt. `hash` is xxh3-64 of the decoded payload.
CREATE TABLE IF NOT EXISTS chunk_{shard} (
    attempt_id BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    line_count INT NOT NULL,
    first_ts BIGINT NOT NULL,
    last_ts BIGINT NOT NULL,
    levels INT NOT NULL,
    codec SMALLINT NOT NULL,
    raw_len INT NOT NULL,
    hash BIGINT NOT NULL,
    data MEDIUMBLOB NOT NULL,
    PRIMARY KEY (attempt_id, first_line)
)
