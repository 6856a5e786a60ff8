"""Reads every value of a Bronze table with PyPI deltalake (delta-rs) and pyarrow."""

import sys

import pyarrow as pa
from bronze_rows import show
from deltalake import DeltaTable

table = DeltaTable(sys.argv[1]).to_pyarrow_table()


def column(name):
    return table[name].to_pylist()


def micros(name):
    return table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()


headers = [None if list is None else [(h["key"], h["value"]) for h in list] for list in column("headers")]
show(
    zip(
        *(column("partition"), column("offset"), micros("kafka_timestamp"), micros("event_time")),
        *(micros("ingestion_time"), column("time_status"), column("parse_error"), column("key"), column("payload")),
        *(headers, column("event_id"), column("user_id"), column("event_type"), column("page"), column("source")),
    )
)
