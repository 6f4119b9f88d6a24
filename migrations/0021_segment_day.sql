-- Objects by day of finish, for a search from the newest on.
CREATE INDEX segment_day ON segment (state, finish_day, id)
