"""Reads every value of silver and gold with PyPI's deltalake: argument 1 is the lakehouse."""

import sys

from deltalake import DeltaTable
from lakehouse_rows import show, tables

for name, table in tables(sys.argv[1]):
    rows = DeltaTable(str(table)).to_pyarrow_table()
    show(name, rows.column_names, rows.to_pylist())
