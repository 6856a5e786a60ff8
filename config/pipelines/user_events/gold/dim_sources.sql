-- description: Every source that events came from. The key is the event's own source.
-- kind: snapshot
-- grain: source
-- clickhouse: none
-- column source: web or mobile.
-- column first_seen: The first event from it.
-- column last_seen: The last event from it.
-- column event_count: Events from it.

SELECT
  source,
  min(first_event_time) AS first_seen,
  max(last_event_time) AS last_seen,
  sum(event_count) AS event_count
FROM gold.source_days
GROUP BY source
