"""Reads every value of silver and gold with Apache Spark: argument 1 is the lakehouse, argument 2 the folder of Delta's jars."""

import sys

from lakehouse_rows import show, tables
from spark_session import session

spark = session("lakehouse", sys.argv[2])
for name, table in tables(sys.argv[1]):
    frame = spark.sql(f"SELECT * FROM delta.`{table}`")
    show(name, frame.columns, [row.asDict() for row in frame.collect()])
spark.stop()
