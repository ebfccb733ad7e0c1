"""The tables, the SQL on them, and their rows' encoding."""
