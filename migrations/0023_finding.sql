-- Objects that the scrub found missing or damaged. A row goes when the object is well again or gone.
CREATE TABLE IF NOT EXISTS finding (
    segment_id BIGINT NOT NULL PRIMARY KEY,
    kind VARBINARY(16) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    what VARBINARY(1024) NOT NULL,
    hit BIGINT NOT NULL,
    found_at BIGINT NOT NULL
)
