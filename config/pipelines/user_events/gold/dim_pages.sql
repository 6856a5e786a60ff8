-- description: Every page that was ever visited. The key is the event's own page.
-- kind: snapshot
-- grain: page
-- clickhouse: none
-- column page: The page.
-- column first_seen: The first event on it.
-- column last_seen: The last event on it.
-- column event_count: Events on it.
-- column purchase_count: Purchases on it.

SELECT
  page,
  min(first_event_time) AS first_seen,
  max(last_event_time) AS last_seen,
  sum(event_count) AS event_count,
  sum(purchase_count) AS purchase_count
FROM gold.page_days
GROUP BY page
