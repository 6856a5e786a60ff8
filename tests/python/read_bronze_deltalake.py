"""Reads a Bronze table with PyPI deltalake and pyarrow; the test compares what this prints."""

import sys

import pyarrow.compute as pc
from deltalake import DeltaTable

table = DeltaTable(sys.argv[1])
assert table.protocol().min_reader_version == 1, table.protocol()
rows = table.to_pyarrow_table()
print("rows", rows.num_rows)
for partition in (0, 1):
    offsets = rows.filter(pc.field("partition") == partition)["offset"]
    assert len(pc.unique(offsets)) == len(offsets)
    print(f"partition {partition}: {len(offsets)} rows, offsets {pc.min(offsets)} to {pc.max(offsets)}")
status = {v["values"]: v["counts"] for v in pc.value_counts(rows["time_status"]).to_pylist()}
print(f"ok {status['ok']}, unparsed {status['unparsed']}")


def row(offset):
    return rows.filter((pc.field("partition") == 0) & (pc.field("offset") == offset)).to_pylist()[0]


second = row(2)
headers = (f"{h['key']}={h['value'].hex() if h['value'] is not None else 'null'}" for h in second["headers"])
print("headers of offset 2:", *headers)
print("payload of offset 1:", row(1)["payload"].hex())
assert row(1)["kafka_timestamp"] is None and row(1)["parse_error"]
assert row(3)["payload"] is None and row(3)["key"] is None
fields = (second[c] for c in ("event_id", "user_id", "event_type", "page", "source"))
print("offset 2:", *fields, second["event_time"].strftime("%Y-%m-%d %H:%M:%S"))
print("countries", pc.count(rows["country"]))
print("dates", *pc.unique(rows["ingestion_date"]).to_pylist())
