-- description: Events of each day by source.
-- kind: by_date
-- partition: event_date
-- grain: event_date, source
-- clickhouse: gold.events_per_source_daily
-- expect one_row_a_source_and_day: unique(event_date, source) fail
-- column event_date: The day, in UTC.
-- column source: web or mobile.
-- column event_count: Events from that source on that day.

SELECT event_date, source, event_count
FROM gold.source_days
