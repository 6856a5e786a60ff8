-- description: What each user did on each day. The daily figures and dim_users are made from it.
-- kind: by_date
-- partition: event_date
-- grain: event_date, user_id
-- clickhouse: none
-- expect users_are_in_their_dimension: relationship(user_id, gold.dim_users.user_id) fail
-- column event_date: The day, in UTC.
-- column user_id: The user.
-- column event_count: Events of the user on that day.
-- column login_count: Logins among them.
-- column purchase_count: Purchases among them.
-- column first_event_time: The first of them.
-- column last_event_time: The last of them.

SELECT
  event_date,
  user_id,
  count(*) AS event_count,
  count(*) FILTER (WHERE event_type = 'login') AS login_count,
  count(*) FILTER (WHERE event_type = 'purchase') AS purchase_count,
  min(event_time) AS first_event_time,
  max(event_time) AS last_event_time
FROM silver.user_events
GROUP BY event_date, user_id
