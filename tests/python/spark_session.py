"""A small Spark session of one thread that reads Delta tables."""

import os
import pathlib
import tempfile
import time

from pyspark.sql import SparkSession

# Spark gives timestamps in the process's own zone.
os.environ["TZ"] = "UTC"
time.tzset()


def session(name, folder):
    """The jars of Delta are in the folder."""
    jars = ":".join(str(jar) for jar in sorted(pathlib.Path(folder).glob("*.jar")))
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
    builder = SparkSession.builder.master("local[1]").appName(name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    # It lasts as long as the session does.
    spark.scratch = scratch
    return spark
