-- Reports of the last runs of the archiver, as JSON. The oldest go first; a few hundred stay.
CREATE TABLE IF NOT EXISTS run (
    id BIGINT NOT NULL PRIMARY KEY,
    daemon VARBINARY(64) NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    report MEDIUMBLOB NOT NULL
)
