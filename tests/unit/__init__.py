"""Units: one thing at a time, without a database or with the nearest one."""
