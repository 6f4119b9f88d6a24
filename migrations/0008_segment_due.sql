-- The sweeper's agenda: uploads that were abandoned, objects that are doomed.
CREATE INDEX segment_due ON segment (due_at, id)
