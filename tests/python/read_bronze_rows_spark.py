"""Reads every value of a Bronze table with Apache Spark: argument 1 is the table, argument 2 the folder of Delta's jars."""

import sys

from bronze_rows import show
from pyspark.sql.functions import unix_micros
from spark_session import session

spark = session("bronze", sys.argv[2])
table = spark.sql(f"SELECT * FROM delta.`{sys.argv[1]}`")
times = ["kafka_timestamp", "event_time", "ingestion_time"]
names = ["partition", "offset", *times, "time_status", "parse_error", "key", "payload", "headers"]
names += ["event_id", "user_id", "event_type", "page", "source"]


def plain(value):
    """Rows as tuples, bytes as bytes."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list):
        return [tuple(map(plain, element)) for element in value]
    return value


rows = table.select(*(unix_micros(name) if name in times else name for name in names)).collect()
show(tuple(map(plain, row)) for row in rows)
spark.stop()
