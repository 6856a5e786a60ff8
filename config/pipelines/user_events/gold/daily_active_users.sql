-- description: Distinct users of each day.
-- kind: by_date
-- partition: event_date
-- grain: event_date
-- clickhouse: gold.daily_active_users
-- expect one_row_a_day: unique(event_date) fail
-- expect a_day_has_users: range(dau_count, 1) fail
-- column event_date: The day, in UTC.
-- column dau_count: Users with at least one event on that day.

SELECT event_date, count(*) AS dau_count
FROM gold.user_days
GROUP BY event_date
