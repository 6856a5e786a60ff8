-- description: Every user who was ever seen. The key is the event's own user_id.
-- kind: snapshot
-- grain: user_id
-- clickhouse: none
-- column user_id: The user.
-- column first_seen: The user's first event.
-- column last_seen: The user's last event.
-- column active_days: Days with at least one event.
-- column event_count: Events of the user.
-- column purchase_count: Purchases of the user.

SELECT
  user_id,
  min(first_event_time) AS first_seen,
  max(last_event_time) AS last_seen,
  count(*) AS active_days,
  sum(event_count) AS event_count,
  sum(purchase_count) AS purchase_count
FROM gold.user_days
GROUP BY user_id
