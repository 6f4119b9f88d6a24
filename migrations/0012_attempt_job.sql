-- A job's instances, newest first.
CREATE INDEX attempt_job_{shard} ON attempt_{shard} (app_id, job_id, id)
