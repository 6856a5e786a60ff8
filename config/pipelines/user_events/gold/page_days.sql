-- description: What happened on each page on each day. purchases_per_page_daily and dim_pages are made from it.
-- kind: by_date
-- partition: event_date
-- grain: event_date, page
-- clickhouse: none
-- expect pages_are_in_their_dimension: relationship(page, gold.dim_pages.page) fail
-- column event_date: The day, in UTC.
-- column page: The page.
-- column event_count: Events on the page on that day.
-- column purchase_count: Purchases among them.
-- column first_event_time: The first of them.
-- column last_event_time: The last of them.

SELECT
  event_date,
  page,
  count(*) AS event_count,
  count(*) FILTER (WHERE event_type = 'purchase') AS purchase_count,
  min(event_time) AS first_event_time,
  max(event_time) AS last_event_time
FROM silver.user_events
GROUP BY event_date, page
