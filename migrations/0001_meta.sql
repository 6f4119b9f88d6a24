-- What the database knows of itself: cluster id, number of shards, schema version.
CREATE TABLE IF NOT EXISTS meta (
    k VARBINARY(64) NOT NULL PRIMARY KEY,
    v VARBINARY(1024) NOT NULL
)
