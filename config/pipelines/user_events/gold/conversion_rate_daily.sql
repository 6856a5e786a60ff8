-- description: Which part of each day's users bought something.
-- kind: by_date
-- partition: event_date
-- grain: event_date
-- clickhouse: gold.conversion_rate_daily
-- expect one_rate_a_day: unique(event_date) fail
-- expect rates_are_rates: range(conversion_rate, 0, 1) fail
-- column event_date: The day, in UTC.
-- column active_users: Distinct users of the day.
-- column purchasing_users: Those of them with a purchase.
-- column conversion_rate: Their ratio, 0 to 1.

SELECT
  event_date,
  count(*) AS active_users,
  count(*) FILTER (WHERE purchase_count > 0) AS purchasing_users,
  CAST(count(*) FILTER (WHERE purchase_count > 0) AS DOUBLE) / CAST(count(*) AS DOUBLE) AS conversion_rate
FROM gold.user_days
GROUP BY event_date
