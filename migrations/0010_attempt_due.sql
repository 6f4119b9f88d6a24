-- The archiver's agenda.
CREATE INDEX attempt_due_{shard} ON attempt_{shard} (due_at, id)
