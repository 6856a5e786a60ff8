"""Reads every value of a Bronze table with Apache Spark: argument 1 is the table, argument 2 the folder of Delta's jars."""

import pathlib
import sys
import tempfile

from bronze_rows import show
from pyspark.sql import SparkSession
from pyspark.sql.functions import unix_micros

jars = ":".join(str(jar) for jar in sorted(pathlib.Path(sys.argv[2]).glob("*.jar")))
scratch = tempfile.TemporaryDirectory()
settings = {
    "spark.driver.extraClassPath": jars,
    "spark.driver.memory": "512m",
    # Serial collection and no second compiler: less to start, and the work is small.
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.local.dir": scratch.name,
    "spark.sql.warehouse.dir": f"{scratch.name}/warehouse",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
builder = SparkSession.builder.master("local[1]").appName("bronze")
for key, value in settings.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")

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
