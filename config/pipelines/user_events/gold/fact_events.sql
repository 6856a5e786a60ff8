-- description: Every event once: the fact table of the star schema.
-- kind: by_date
-- partition: event_date
-- grain: event_date, event_id
-- clickhouse: none
-- column event_date: The day of the event, in UTC; joins dim_dates.
-- column event_id: The event's own id.
-- column event_time: When it happened.
-- column user_id: Who; joins dim_users.
-- column page: Where on the site; joins dim_pages.
-- column source: web or mobile; joins dim_sources.
-- column event_type: login, click, purchase or logout.

SELECT event_date, event_id, event_time, user_id, page, source, event_type
FROM silver.user_events
