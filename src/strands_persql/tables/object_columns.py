"""The tables of a storage: a row a value, and rows with parts of the larger ones.

A value is pieces in order (column ``pieces``, a JSON array): text, or ranges of text that is in
the row itself (``data``) or in its parts. Parts belong to a pool. Values of one pool share them;
text is only ever added at a part's end, so that a range stays what it is.
"""

_TEXT = "TEXT NOT NULL DEFAULT ''"
_COUNT = "INTEGER NOT NULL DEFAULT 0"

OBJECT_KEYS: dict[str, dict[str, str]] = {
    "objects": {"key": _TEXT},
    "parts": {"pool": _TEXT, "part": _TEXT},
}
OBJECT_COLUMNS: dict[str, dict[str, str]] = {
    # write_id: the write that created the row; saved_by: the latest one; size: in characters
    "objects": {
        **OBJECT_KEYS["objects"],
        "pool": _TEXT,
        "encoding": _TEXT,
        "size": _COUNT,
        "digest": _TEXT,
        "pieces": "TEXT NOT NULL DEFAULT '[]'",
        "data": _TEXT,
        "version": "INTEGER NOT NULL DEFAULT 1",
        "write_id": _TEXT,
        "saved_by": _TEXT,
        "created_at": _TEXT,
        "updated_at": _TEXT,
    },
    # write_id: the latest write that has put text into it; stored_at: when it was made, in seconds
    "parts": {
        **OBJECT_KEYS["parts"],
        "data": _TEXT,
        "write_id": _TEXT,
        "stored_at": _COUNT,
    },
}
