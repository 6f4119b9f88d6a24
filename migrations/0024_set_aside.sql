-- What failed and is left alone for a while: attempts that cannot be archived (kind 1, of a shard), objects
-- that cannot be rewritten or deleted (kind 2). next_at is when it is tried again; never after too many failures.
CREATE TABLE IF NOT EXISTS set_aside (
    kind SMALLINT NOT NULL,
    id BIGINT NOT NULL,
    shard INT NOT NULL,
    what VARBINARY(1024) NOT NULL,
    reason VARBINARY(1024) NOT NULL,
    failures INT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
)
