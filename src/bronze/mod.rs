//! Bronze: every record once in a Delta table, with its verdict, and the position in the same commit.
