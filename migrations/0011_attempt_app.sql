-- An app's instances, newest first.
CREATE INDEX attempt_app_{shard} ON attempt_{shard} (app_id, id)
