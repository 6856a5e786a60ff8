-- description: Purchases of each day by page; pages without a purchase have no row.
-- kind: by_date
-- partition: event_date
-- grain: event_date, page
-- clickhouse: gold.purchases_per_page_daily
-- expect one_row_a_page_and_day: unique(event_date, page) fail
-- column event_date: The day, in UTC.
-- column page: The page.
-- column purchase_count: Purchases on that page on that day.

SELECT event_date, page, purchase_count
FROM gold.page_days
WHERE purchase_count > 0
