-- The objects of one folder of the bucket, in the order of their names: what an audit compares.
CREATE INDEX segment_folder ON segment (app_id, finish_day, rule_id, id)
