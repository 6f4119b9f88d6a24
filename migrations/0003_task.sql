-- When each background task last succeeded and failed, whichever daemon ran it.
CREATE TABLE IF NOT EXISTS task (
    name VARBINARY(32) NOT NULL PRIMARY KEY,
    succeeded_at BIGINT NOT NULL,
    failed_at BIGINT NOT NULL,
    error VARBINARY(1024) NOT NULL
)
