-- description: Every day (UTC) that has events, with its place in the calendar.
-- kind: by_date
-- partition: event_date
-- grain: event_date
-- clickhouse: none
-- column event_date: The day.
-- column year: Its year.
-- column quarter: Its quarter, 1 to 4.
-- column month: Its month, 1 to 12.
-- column day: Its day of the month.
-- column day_of_week: 1 (Monday) to 7 (Sunday).
-- column week: Its ISO week.
-- column is_weekend: Whether it is a Saturday or a Sunday.

SELECT
  event_date,
  CAST(date_part('year', event_date) AS INT) AS year,
  CAST(date_part('quarter', event_date) AS INT) AS quarter,
  CAST(date_part('month', event_date) AS INT) AS month,
  CAST(date_part('day', event_date) AS INT) AS day,
  CAST((date_part('dow', event_date) + 6) % 7 + 1 AS INT) AS day_of_week,
  CAST(date_part('week', event_date) AS INT) AS week,
  date_part('dow', event_date) IN (0, 6) AS is_weekend
FROM gold.source_days
GROUP BY event_date
