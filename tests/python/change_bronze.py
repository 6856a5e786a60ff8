"""Changes a Bronze table as somebody might by hand, with PyPI deltalake."""

import sys

import pyarrow as pa
from deltalake import DeltaTable, Field, write_deltalake

path, what = sys.argv[1:]
table = DeltaTable(path)
# Far behind what Kafka holds.
FAR = 1_000_000_000
if what == "add-column":
    table.alter.add_columns([Field("note_by_hand", "string")])
elif what == "append":
    rows = table.to_pyarrow_table().slice(0, 5)
    at = rows.schema.get_field_index("offset")
    offsets = pa.array([n + FAR for n in rows["offset"].to_pylist()], pa.int64())
    write_deltalake(table, rows.set_column(at, rows.schema.field(at), offsets), mode="append")
elif what == "delete":
    table.delete(f'"offset" >= {FAR}')
else:
    sys.exit(f"what is {what}?")
print(DeltaTable(path).version())
