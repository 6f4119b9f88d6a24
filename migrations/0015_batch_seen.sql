-- Forgets batch keys in the order of their age.
CREATE INDEX batch_seen_{shard} ON batch_{shard} (seen_at)
