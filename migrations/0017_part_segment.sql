-- Which attempts still need an object.
CREATE INDEX part_segment_{shard} ON part_{shard} (segment_id)
