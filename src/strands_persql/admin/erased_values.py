"""What storages keep of a session: its snapshots, and what a context manager has put aside."""

import json

from strands_persql.admin.access import Access
from strands_persql.gateway.batch import Batch
from strands_persql.runtime.owners import split_scope
from strands_persql.tables import deleting, object_parts, objects, searching

_FOLDERS = ("session", "context")  # as Strands lays its keys out
_TOGETHER = 2_000  # values that one request deletes


def erase_values(access: Access, session_id: str) -> tuple[dict[str, int], int]:
    """Delete all values of a session that are where Strands has them, and their index.

    Args:
        access: The database.
        session_id: The session.

    Returns:
        How many rows there were, by table, and the size of their text in bytes.
    """
    rows, size = {"objects": 0, "parts": 0}, 0
    has_index = bool(access.rows(deleting.find_index(access.tables)))
    for folder in _folders_of(access, session_id):
        prefix, end = f"{folder}/", f"{folder}0"  # the first text behind all that begin so
        for row in access.rows(deleting.count_values(access.tables, prefix, end)):
            rows[row["name"]] += int(row["n"])
            size += int(row["bytes"] or 0)
        _delete(access, prefix, end)
        if has_index:
            _forget(access, folder)
    return rows, size


def _folders_of(access: Access, session_id: str) -> list[str]:
    """Return the folders of a session's values: an owner's are in the owner's."""
    scope, name = split_scope(access.tables.scope + session_id)
    return [f"{scope}/{one}/{name}" if scope else f"{one}/{name}" for one in _FOLDERS]


def _delete(access: Access, prefix: str, end: str) -> None:
    while True:
        page = access.rows(objects.list_objects(access.tables, prefix, end, _TOGETHER))
        batch = Batch()
        if page:
            origins = json.dumps([row["write_id"] for row in page])
            first, last = page[0]["key"], page[-1]["key"]
            batch.run(*objects.delete_objects(access.tables, first, last, origins))
        if len(page) < _TOGETHER:
            batch.run(object_parts.release_unused(access.tables, prefix, end))
        access.run(batch, writes=True)
        if len(page) < _TOGETHER:
            return


def _forget(access: Access, folder: str) -> None:
    """Take a folder's texts out of the index, whose words stay in it until it is made anew."""
    batch = Batch(searching.remove_folder(access.tables, folder))
    changed = batch.ask(object_parts.count_changes(access.tables))
    row = access.run(batch, writes=True).first(changed)
    if row is not None and row["changed"]:
        access.run(Batch(searching.optimize(access.tables)), writes=True)
