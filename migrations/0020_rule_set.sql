-- Retention rules that all daemons agreed on, as JSON: those that count (replaced_at is NULL), and those before.
CREATE TABLE IF NOT EXISTS rule_set (
    digest VARBINARY(64) NOT NULL PRIMARY KEY,
    rules MEDIUMBLOB NOT NULL,
    published_at BIGINT NOT NULL,
    replaced_at BIGINT
)
