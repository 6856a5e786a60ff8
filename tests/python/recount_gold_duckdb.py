"""Recounts silver and gold from Bronze with DuckDB and its own Delta reader, and compares every row: argument 1 is the
lakehouse, argument 2 ClickHouse's address. Prints a line for each table: its rows, how many are missing, how many too many.
"""

import pathlib
import sys
import tempfile
import urllib.request

import duckdb
import duckdb_extension_delta

lakehouse, clickhouse = pathlib.Path(sys.argv[1]), sys.argv[2]
extensions = pathlib.Path(duckdb_extension_delta.__file__).parent / "extensions"
[extension] = extensions.glob("*/delta.duckdb_extension")
scratch = tempfile.TemporaryDirectory()
db = duckdb.connect(f"{scratch.name}/recount.db", config={"allow_unsigned_extensions": "true"})
db.execute(f"LOAD '{extension}'")
db.execute("SET TimeZone = 'UTC'")
db.execute("SET memory_limit = '3GB'")
db.execute("SET preserve_insertion_order = false")


def delta(name):
    return f"delta_scan('{lakehouse / name}')"


# What the pipeline's fields say: required ones are there, enumerated ones have an allowed value, texts are not empty.
VALID = """time_status IN ('ok', 'late') AND event_type IN ('login', 'click', 'purchase', 'logout')
    AND source IN ('web', 'mobile') AND event_id <> '' AND page <> ''"""
ROW = """topic, generation, partition, "offset", kafka_timestamp, event_id, user_id, event_type, page, source, event_time,
    time_status, ingestion_time"""
db.execute(f"CREATE TABLE refused AS SELECT generation, partition, \"offset\" FROM {delta('bronze/user_events')} WHERE ({VALID}) IS NOT TRUE")
db.execute(f"""CREATE TABLE silver AS
    SELECT {ROW}, CAST(event_time AT TIME ZONE 'UTC' AS DATE) AS event_date,
      CAST(date_part('hour', event_time AT TIME ZONE 'UTC') AS INT) AS event_hour
    FROM {delta('bronze/user_events')} WHERE {VALID}
    QUALIFY row_number() OVER (PARTITION BY event_id, date_trunc('hour', event_time AT TIME ZONE 'UTC')
      ORDER BY kafka_timestamp NULLS LAST, generation, partition, "offset") = 1""")

PURCHASE = "FILTER (event_type = 'purchase')"
GOLD = {
    "fact_events": "SELECT event_date, event_id, event_time, user_id, page, source, event_type FROM silver",
    "user_days": f"""SELECT event_date, user_id, count(*) AS event_count,
        count(*) FILTER (event_type = 'login') AS login_count, count(*) {PURCHASE} AS purchase_count,
        min(event_time) AS first_event_time, max(event_time) AS last_event_time FROM silver GROUP BY ALL""",
    "page_days": f"""SELECT event_date, page, count(*) AS event_count, count(*) {PURCHASE} AS purchase_count,
        min(event_time) AS first_event_time, max(event_time) AS last_event_time FROM silver GROUP BY ALL""",
    "source_days": """SELECT event_date, source, count(*) AS event_count,
        min(event_time) AS first_event_time, max(event_time) AS last_event_time FROM silver GROUP BY ALL""",
    "dim_dates": """SELECT DISTINCT event_date, year(event_date) AS year, quarter(event_date) AS quarter,
        month(event_date) AS month, day(event_date) AS day, isodow(event_date) AS day_of_week,
        week(event_date) AS week, isodow(event_date) >= 6 AS is_weekend FROM silver""",
    "dim_pages": f"""SELECT page, min(event_time) AS first_seen, max(event_time) AS last_seen, count(*) AS event_count,
        count(*) {PURCHASE} AS purchase_count FROM silver GROUP BY ALL""",
    "dim_sources": """SELECT source, min(event_time) AS first_seen, max(event_time) AS last_seen,
        count(*) AS event_count FROM silver GROUP BY ALL""",
    "dim_users": f"""SELECT user_id, min(event_time) AS first_seen, max(event_time) AS last_seen,
        count(DISTINCT event_date) AS active_days, count(*) AS event_count, count(*) {PURCHASE} AS purchase_count
        FROM silver GROUP BY ALL""",
    "daily_active_users": "SELECT event_date, count(DISTINCT user_id) AS dau_count FROM silver GROUP BY ALL",
    "events_per_source_daily": "SELECT event_date, source, count(*) AS event_count FROM silver GROUP BY ALL",
    "purchases_per_page_daily": """SELECT event_date, page, count(*) AS purchase_count FROM silver
        WHERE event_type = 'purchase' GROUP BY ALL""",
    "conversion_rate_daily": f"""SELECT event_date, count(DISTINCT user_id) AS active_users,
        count(DISTINCT user_id) {PURCHASE} AS purchasing_users,
        CAST(count(DISTINCT user_id) {PURCHASE} AS DOUBLE) / CAST(count(DISTINCT user_id) AS DOUBLE) AS conversion_rate
        FROM silver GROUP BY ALL""",
}
SERVED = {
    "daily_active_users": {"event_date": "DATE", "dau_count": "BIGINT"},
    "events_per_source_daily": {"event_date": "DATE", "source": "VARCHAR", "event_count": "BIGINT"},
    "purchases_per_page_daily": {"event_date": "DATE", "page": "VARCHAR", "purchase_count": "BIGINT"},
    "conversion_rate_daily": {
        "event_date": "DATE",
        "active_users": "BIGINT",
        "purchasing_users": "BIGINT",
        "conversion_rate": "DOUBLE",
    },
}


def compare(name, expected, found, columns):
    """Both ways, each row as often as it is there."""

    def rest(left, right):
        sql = f"SELECT count(*) FROM (SELECT {columns} FROM ({left}) EXCEPT ALL SELECT {columns} FROM ({right}))"
        return db.execute(sql).fetchone()[0]

    [rows] = db.execute(f"SELECT count(*) FROM ({found})").fetchone()
    print(f"{name}: {rows} rows, {rest(expected, found)} missing, {rest(found, expected)} too many")


compare("silver/user_events", "FROM silver", f"FROM {delta('silver/user_events')}", f"{ROW}, event_date, event_hour")
compare(
    "silver/user_events_refused",
    "FROM refused",
    f"FROM {delta('silver/user_events_refused')}",
    'generation, partition, "offset"',
)
for model, sql in GOLD.items():
    columns = ", ".join(column[0] for column in db.execute(f"DESCRIBE {sql}").fetchall())
    compare(f"gold/{model}", sql, f"FROM {delta(f'gold/{model}')}", columns)
for view, columns in SERVED.items():
    query = f"SELECT {', '.join(columns)} FROM gold.{view} FORMAT TSV".encode()
    file = pathlib.Path(scratch.name) / f"{view}.tsv"
    # ClickHouse is on this machine, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(clickhouse, data=query)) as answer:
        file.write_bytes(answer.read())
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    found = f"FROM read_csv('{file}', delim='\\t', header=false, quote='', escape='', columns={{{types}}})"
    compare(f"clickhouse gold.{view}", GOLD[view], found, ", ".join(columns))
