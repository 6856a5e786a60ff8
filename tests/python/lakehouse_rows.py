"""What both readers of a lakehouse print of silver's and gold's tables: rows, and a checksum over every value."""

import datetime
import hashlib
import pathlib

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def tables(lakehouse):
    """Silver's tables and gold's models, by name; what expectations found lies there, too, and is no model."""
    for layer in ("silver", "gold"):
        for table in sorted(pathlib.Path(lakehouse, layer).iterdir()):
            if table.joinpath("_delta_log").is_dir() and table.name != "expectation_results":
                yield f"{layer}/{table.name}", table


def plain(value):
    """A value that looks the same whoever read it."""
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    return value


def show(name, columns, rows):
    """Rows as dictionaries."""
    lines = sorted(repr([plain(row[column]) for column in sorted(columns)]) for row in rows)
    checksum = hashlib.sha256("\n".join([*sorted(columns), *lines]).encode()).hexdigest()
    print(f"{name}: {len(lines)} rows, {checksum}")
