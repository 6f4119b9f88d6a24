-- A job's instances in all apps, newest first.
CREATE INDEX attempt_any_job_{shard} ON attempt_{shard} (job_id, id)
