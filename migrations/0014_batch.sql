-- Batch keys and what became of their batches, so that sending one again stores nothing.
CREATE TABLE IF NOT EXISTS batch_{shard} (
    key_hash BINARY(16) NOT NULL PRIMARY KEY,
    content_hash BIGINT NOT NULL,
    attempt_id BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    line_count INT NOT NULL,
    seen_at BIGINT NOT NULL
)
