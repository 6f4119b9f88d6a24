-- Daemons that are alive, and a digest of the retention rules each of them holds to.
CREATE TABLE IF NOT EXISTS daemon (
    name VARBINARY(64) NOT NULL PRIMARY KEY,
    rules VARBINARY(64) NOT NULL,
    version VARBINARY(64) NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
)
