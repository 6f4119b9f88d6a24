-- Who may move data on this server, until when by the database's clock.
-- The fence rises with every change of owner, so that a late predecessor is told apart.
CREATE TABLE IF NOT EXISTS lease (
    task VARBINARY(32) NOT NULL PRIMARY KEY,
    owner VARBINARY(64) NOT NULL,
    fence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
)
