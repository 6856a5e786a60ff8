"""What both readers of a Bronze table print of it: sums a person can follow, and a checksum over every value."""

import hashlib
from collections import Counter


def show(rows):
    """Rows as tuples: partition, offset, Kafka's time, event time and ingestion time in microseconds, status, parse
    error, key, payload, headers as (key, value) pairs or None, and the event's own fields."""
    rows = sorted(rows, key=lambda row: row[:2])
    print("rows", len(rows))
    print("sum of offsets", sum(row[1] for row in rows))
    print("verdicts", *(f"{status}={count}" for status, count in sorted(Counter(row[5] for row in rows).items())))
    for what, column in (("Kafka time", 2), ("event time", 3), ("ingestion time", 4)):
        times = [row[column] for row in rows if row[column] is not None]
        print(f"{what} of {len(times)} rows, from {min(times)} to {max(times)} microseconds, sum {sum(times)}")
    print("keys", sum(row[7] is not None for row in rows))
    print("payloads", *(row[8].hex() for row in rows if row[8] is not None))
    for row in rows:
        if row[9]:
            print(f"headers of {row[0]}:{row[1]}:", *(f"{k}={'null' if v is None else v.hex()}" for k, v in row[9]))
    print("checksum", hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest())
