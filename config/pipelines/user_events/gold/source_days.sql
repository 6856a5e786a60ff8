-- description: What came from each source on each day. events_per_source_daily, dim_sources and dim_dates are made from it.
-- kind: by_date
-- partition: event_date
-- grain: event_date, source
-- clickhouse: none
-- column event_date: The day, in UTC.
-- column source: web or mobile.
-- column event_count: Events from the source on that day.
-- column first_event_time: The first of them.
-- column last_event_time: The last of them.

SELECT
  event_date,
  source,
  count(*) AS event_count,
  min(event_time) AS first_event_time,
  max(event_time) AS last_event_time
FROM silver.user_events
GROUP BY event_date, source
