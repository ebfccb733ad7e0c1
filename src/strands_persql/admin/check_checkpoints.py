"""Whether an agent's checkpoints can be read, and what they refer to is there."""

import json
from collections.abc import Iterator

from strands_persql.admin.access import Access
from strands_persql.admin.findings import Finding
from strands_persql.errors import CorruptRowError
from strands_persql.gateway.batch import Batch, Row
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import checking, repairing
from strands_persql.tables.cells import text_in

_PAGE_ROWS = 500
_PAGE_BYTES = 2_000_000
_DELETE = "delete the checkpoint"


class CheckpointCheck:
    """Reads an agent's checkpoints, and tells what is wrong with them.

    Args:
        access: The database.
        key: The agent.
        last: The id of its last checkpoint.
    """

    def __init__(self, access: Access, key: AgentKey, last: str) -> None:
        """Initialize without asking the database for anything."""
        self._access, self._key, self._last = access, key, last

    def run(self) -> Iterator[Finding]:
        """Read all of them."""
        after = ""
        while True:
            batch = Batch()
            behind = batch.ask(checking.read_behind(self._access.found, self._key))
            page = batch.ask(
                checking.read_checkpoint_rows(
                    self._access.found, self._key, after=after, rows=_PAGE_ROWS, size=_PAGE_BYTES
                )
            )
            answer = self._access.run(batch, session_id=self._key.session_id)
            if not after:
                yield from map(self._behind, answer[behind])
            for row in answer[page]:
                after = row["checkpoint_id"]
                yield from self._checkpoint(row)
            if not answer[page] or after >= self._last:
                return

    def _behind(self, row: Row) -> Finding:
        repair = repairing.forget_behind(self._access.tables, self._key, row["rewound"])
        what = "what the agent has gone back behind can't be read"
        return Finding(
            "checkpoint",
            *self._key,
            None,
            what,
            "forget it: a truncation leaves those messages",
            (repair,),
        )

    def _checkpoint(self, row: Row) -> Iterator[Finding]:
        name = f"checkpoint {row['checkpoint_id']!r}"
        if text_in(row["label"]):
            name += f" ({text_in(row['label'])})"
        problem = self._problem(row)
        if problem:
            yield self._finding(row, f"{name} can't be read: {problem}", _DELETE)
        elif row["lost"] is not None:
            first, last = json.loads(row["lost"])
            messages = f"message {first}" if first == last else f"messages {first} to {last}"
            yield self._finding(
                row,
                f"{name} refers to the {messages} of then, and not all of that is there",
                f"{_DELETE}; going back to it would bring the rest",
            )

    def _problem(self, row: Row) -> str:
        """Return why a checkpoint can't be read, or nothing."""
        if row["problem"] is not None:
            return f"its column {row['problem']!r} is misshapen"
        codec, data = self._access.codec, self._access.whole(row["data"], self._key.session_id)
        try:
            codec.agent_of(self._key, codec.read_agent_fields(self._key, data))
        except CorruptRowError:
            return "its column 'data' is misshapen"
        return ""

    def _finding(self, row: Row, what: str, repair: str) -> Finding:
        key = {**self._key.context, "checkpoint_id": row["checkpoint_id"]}
        delete = repairing.delete_row(self._access.tables, "checkpoints", key, row["data"])
        return Finding("checkpoint", *self._key, None, what, repair, (delete,))
