-- Apps (kind 1), jobs (2) and rules (3), by a number that other tables carry.
CREATE TABLE IF NOT EXISTS name (
    id INT NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    name VARBINARY(255) NOT NULL,
    UNIQUE (kind, name)
)
