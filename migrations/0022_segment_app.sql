-- The same of one app.
CREATE INDEX segment_app ON segment (app_id, state, finish_day, id)
