"""Reads a Bronze table with DuckDB's own Delta reader; the test compares what this prints."""

import pathlib
import sys

import duckdb
import duckdb_extension_delta

extensions = pathlib.Path(duckdb_extension_delta.__file__).parent / "extensions"
[extension] = extensions.glob("*/delta.duckdb_extension")
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
db.execute(f"LOAD '{extension}'")
db.execute("SET TimeZone = 'UTC'")
db.execute("CREATE VIEW bronze AS SELECT * FROM delta_scan(?)".replace("?", f"'{sys.argv[1]}'"))


def one(sql):
    return db.execute(sql).fetchone()


print("rows", *one("SELECT count(*) FROM bronze"))
for partition in (0, 1):
    sql = f"SELECT count(*), count(DISTINCT \"offset\"), min(\"offset\"), max(\"offset\") FROM bronze WHERE partition = {partition}"
    count, distinct, least, greatest = one(sql)
    assert count == distinct
    print(f"partition {partition}: {count} rows, offsets {least} to {greatest}")
print("ok {}, unparsed {}".format(*one("SELECT count(*) FILTER (time_status = 'ok'), count(*) FILTER (time_status = 'unparsed') FROM bronze")))
[headers] = one("SELECT headers FROM bronze WHERE partition = 0 AND \"offset\" = 2")
print("headers of offset 2:", *(f"{h['key']}={h['value'].hex() if h['value'] is not None else 'null'}" for h in headers))
print("payload of offset 1:", *one("SELECT lower(hex(payload)) FROM bronze WHERE partition = 0 AND \"offset\" = 1"))
columns = "event_id, user_id, event_type, page, source, strftime(event_time AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S')"
print("offset 2:", *one(f"SELECT {columns} FROM bronze WHERE partition = 0 AND \"offset\" = 2"))
print("countries", *one("SELECT count(country) FROM bronze"))
print("dates", *one("SELECT DISTINCT ingestion_date FROM bronze"))
