"""Strands' dataclasses to rows and back, with the checks between them."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.errors import CorruptRowError, TooLargeError
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import encoding, stash
from strands_persql.tables.encoding import (
    corrupt,
    from_json,
    to_json,
    whose,
)
from strands_persql.tables.large_content import LEAF_CHARACTERS, MAX_CONTENT_BYTES, PART_BYTES
from strands_persql.tables.shapes import is_internal_state, is_manager_state, is_message
from strands_persql.tables.tables import RowData, Tables

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase

logger = logging.getLogger("strands_persql")

_Stored = TypeVar("_Stored", Session, SessionAgent, SessionMessage)

UNREADABLE_EXTRA = "a message in its column 'view' can't be read"
"""Why an agent's row can't be read whose view has a message that is none."""

_BESIDES_DATA = 2_500  # the most that a row's other columns take, in bytes
_LEAST_FOR_PARTS = PART_BYTES + _BESIDES_DATA

_FIELDS: dict[type, tuple[str, ...]] = {
    cls: tuple(field.name for field in dataclasses.fields(cls))
    for cls in (Session, SessionAgent, SessionMessage)
}
_USUAL_FIELDS = itemgetter("message", "redact_message", "created_at", "updated_at")
_Shape: TypeAlias = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_id(value: Any) -> bool:
    return isinstance(value, int)


_TIMES: dict[str, _Shape] = {"created_at": _is_text, "updated_at": _is_text}
_REQUIRED: dict[type, dict[str, _Shape]] = {
    Session: {"session_id": _is_text, "session_type": _is_text},
    SessionAgent: {
        "agent_id": _is_text,
        "state": _is_object,
        "conversation_manager_state": is_manager_state,
    },
    SessionMessage: {"message": _is_object, "message_id": _is_id},
}
_OPTIONAL: dict[type, dict[str, _Shape]] = {
    Session: _TIMES,
    SessionAgent: {"_internal_state": is_internal_state, **_TIMES},
    SessionMessage: _TIMES,
}
_STASH_MARK = f'"{stash.FIELD}":'
_DECODED_TOGETHER = 4_000_000  # characters
_NOT_CONTENT = ("agent_id", "created_at", "updated_at")


class MessageData(Protocol):
    """A message's row, as far as it is decoded from."""

    @property
    def message_id(self) -> int:
        """Its id."""

    @property
    def data(self) -> str:
        """Its JSON."""

    @property
    def problem(self) -> str:
        """Why it can't be read, or nothing."""


class RowCodec:
    """Encodes and decodes the rows of some tables.

    Args:
        tables: The tables, for errors to name.
        max_row_bytes: The most bytes that a row may take, or None for no limit.
    """

    def __init__(self, tables: Tables, max_row_bytes: int | None) -> None:
        """Initialize."""
        self._tables = tables
        self._max_row_bytes = max_row_bytes

    @property
    def max_bytes(self) -> int:
        """The most bytes that a row's JSON may take, with what is stored apart from the row."""
        limit = self._max_row_bytes
        return MAX_CONTENT_BYTES if limit is None or limit >= _LEAST_FOR_PARTS else limit

    # -- encoding ------------------------------------------------------------------------------

    def session(self, session: Session) -> RowData:
        """Encode a session."""
        context = {"session_id": session.session_id}
        text = to_json(fields_of(session), "session", **context)
        row = RowData(text, session.created_at, session.updated_at)
        return self._checked(row, "session", context)

    def agent(self, session_id: str, agent: SessionAgent) -> RowData:
        """Encode an agent."""
        context = AgentKey(session_id, agent.agent_id).context
        text = to_json(fields_of(agent), "agent's state", **context)
        return self._checked(
            RowData(text, agent.created_at, agent.updated_at), "agent's state", context
        )

    def content(self, key: AgentKey, content: Mapping[str, Any]) -> str:
        """Encode an agent's content: its fields without its id and times."""
        return to_json(content, "agent's state", **key.context)

    def agent_row(self, key: AgentKey, content: str, times: tuple[str, str]) -> RowData:
        """Return an agent's row of its encoded content and the times of creation and update."""
        ends = json.dumps(dict(zip(_NOT_CONTENT, (key.agent_id, *times), strict=True)))
        text = content[:-1] + ("," if len(content) > 2 else "") + ends[1:]  # noqa: PLR2004 - {}
        return self._checked(RowData(text, *times), "agent's state", key.context)

    def message(
        self, key: AgentKey, message: SessionMessage, stashed: Mapping[str, Any] | None = None
    ) -> RowData:
        """Encode a message.

        Args:
            key: The agent.
            message: The message.
            stashed: What a context manager has taken out of it, by its references.
        """
        fields = fields_of(message)
        if stashed:
            fields[stash.FIELD] = stashed
        text = to_json(fields, "message", **key.context)
        row = RowData(text, message.created_at, message.updated_at)
        return self._checked(row, "message", key.context)

    def multi_agent(self, session_id: str, multi_agent: "MultiAgentBase", time: str) -> RowData:
        """Encode a graph's or swarm's state."""
        context = AgentKey(session_id, multi_agent.id).context
        text = to_json(multi_agent.serialize_state(), "multi-agent's state", **context)
        return self._checked(RowData(text, time, time), "multi-agent's state", context)

    def _checked(self, row: RowData, what: str, context: dict[str, Any]) -> RowData:
        self._check_size(row.data, self.max_bytes, what, context)
        if len(row.data) > LEAF_CHARACTERS and self._max_row_bytes is not None:
            self._check_size(row.skeleton.text, self._max_row_bytes, what, context)
        return row

    @staticmethod
    def _check_size(text: str, limit: int, what: str, context: dict[str, Any]) -> None:
        if len(text) * 4 + _BESIDES_DATA <= limit:
            return
        size = len(text) if text.isascii() else len(text.encode())
        if size + _BESIDES_DATA > limit:
            size += _BESIDES_DATA
            raise TooLargeError(
                f"the {what}{whose(context)} takes {size} bytes and may take {limit} at the most;"
                " nothing was written. Keep large content elsewhere and store a reference",
                size=size,
                limit=limit,
                **context,
            )

    # -- decoding ------------------------------------------------------------------------------

    def read_session(self, session_id: str, data: str) -> Session:
        """Decode a session."""
        place = self._tables.sessions, (session_id,)
        session = build(Session, from_json(data, *place, session_id=session_id), *place)
        session.session_id = session_id
        return session

    def agent_of(self, key: AgentKey, fields: Mapping[str, Any]) -> SessionAgent:
        """Return an agent of its decoded fields."""
        agent = build(SessionAgent, fields, self._tables.agents, (*key,))
        agent.agent_id = key.agent_id
        return agent

    def read_agent_fields(self, key: AgentKey, data: str) -> dict[str, Any]:
        """Decode an agent's fields."""
        return from_json(data, self._tables.agents, (*key,), **key.context)

    def read_content(self, key: AgentKey, data: str) -> dict[str, Any]:
        """Decode an agent's content: its fields without its id and times."""
        return content_of(self.read_agent_fields(key, data))

    def readable_content(self, key: AgentKey, data: str) -> dict[str, Any] | None:
        """Decode an agent's content, or return None if its row can't be read."""
        try:
            fields = self.read_agent_fields(key, data)
            self.agent_of(key, fields)
        except CorruptRowError as error:
            warn_of_unreadable_row(error, "its state is left out")
            return None
        return content_of(fields)

    def corrupt_agent(self, key: AgentKey, why: str) -> CorruptRowError:
        """Return the error for an agent's row that can't be read."""
        return corrupt(self._tables.agents, (*key,), why, key.context)

    def corrupt_multi_agent(self, key: AgentKey, why: str) -> CorruptRowError:
        """Return the error for a graph's or swarm's row that can't be read."""
        return corrupt(self._tables.multi_agents, (*key,), why, key.context)

    def corrupt_checkpoint(self, key: AgentKey, checkpoint_id: str, column: str) -> CorruptRowError:
        """Return the error for a checkpoint's row of which a column can't be read."""
        why = f"its column {column!r} is misshapen"
        return corrupt(self._tables.checkpoints, (*key, checkpoint_id), why, key.context)

    def read_message(self, key: AgentKey, row: MessageData) -> SessionMessage:
        """Decode a message; its id is its row's."""
        place = self._tables.messages, (*key, row.message_id)
        if row.problem:
            raise corrupt(*place, row.problem, key.context)
        fields = from_json(row.data, *place, **key.context)
        return self._message_of(fields, row, place)

    def read_messages(self, key: AgentKey, rows: Sequence[MessageData]) -> list[SessionMessage]:
        """Decode messages all at once.

        Raises:
            CorruptRowError: If one of them can't be read; it names the first of these.
        """
        values = _decoded_together([row.data for row in rows])
        if len(values) != len(rows):  # one by one, for the error to name the row
            return [self.read_message(key, row) for row in rows]
        return [
            _usual_message(fields, row)
            or self._message_of(fields, row, (self._tables.messages, (*key, row.message_id)))
            for fields, row in zip(values, rows, strict=True)
        ]

    def _message_of(
        self, fields: Any, row: MessageData, place: tuple[str, tuple[Any, ...]]
    ) -> SessionMessage:
        if not isinstance(fields, dict):
            context = dict(zip(("session_id", "agent_id"), place[1], strict=False))
            raise corrupt(*place, "it is not a JSON object", context)
        fields["message_id"] = row.message_id
        message = build(SessionMessage, fields, *place)
        if not is_message(message.to_message()):
            context = dict(zip(("session_id", "agent_id"), place[1], strict=False))
            raise corrupt(*place, "it is not a message with a role and a list of blocks", context)
        return message

    def read_stashed(self, rows: Iterable[MessageData]) -> dict[str, Any]:
        """Return what a context manager has taken out of messages."""
        found: dict[str, Any] = {}
        for row in rows:
            if _STASH_MARK in row.data:  # rarely
                found.update(_stashed_in(row.data))
        return found

    def read_multi_agent(self, key: AgentKey, data: str) -> dict[str, Any]:
        """Decode a graph's or swarm's state."""
        return from_json(data, self._tables.multi_agents, (*key,), **key.context)


def _usual_message(fields: Any, row: MessageData) -> SessionMessage | None:
    """Return a message if its row has what is usual, and nothing else; a fast way for many."""
    if not isinstance(fields, dict) or len(fields) != len(_FIELDS[SessionMessage]):
        return None
    try:
        message, redacted, created_at, updated_at = _USUAL_FIELDS(fields)
    except KeyError:
        return None
    if (
        redacted is None
        and isinstance(created_at, str)
        and isinstance(updated_at, str)
        and is_message(message)
    ):
        return SessionMessage(message, row.message_id, None, created_at, updated_at)
    return None


def _decoded_together(texts: Sequence[str]) -> list[Any]:
    """Return the values of JSON texts, or nothing where one of them can't be read.

    They are decoded all at once where they are small: they are in memory twice then.
    """
    if sum(map(len, texts)) > _DECODED_TOGETHER:
        return []
    joined = ",".join(texts)
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        values = json.loads(f"[{joined}]")
        if encoding.has_envelopes(joined):
            return [
                encoding.decoded(value, text) for value, text in zip(values, texts, strict=True)
            ]
        for text in texts:  # which `decoded` does, too
            encoding.check_depth(text)
        return list(values)
    return []


def _stashed_in(data: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        fields = encoding.decoded_text(data)
        stashed = fields.get(stash.FIELD) if isinstance(fields, dict) else None
        return stashed if isinstance(stashed, dict) else {}
    return {}


def warn_of_unreadable_row(error: CorruptRowError, cost: str) -> None:
    """Log that a row can't be read, and what that costs."""
    logger.warning("table=<%s>, key=<%r> | %s; %s", error.table, error.key, error, cost)


def removed_messages(content: Mapping[str, Any]) -> int:
    """Return how many messages a content's conversation manager has removed."""
    state = content.get("conversation_manager_state")
    count = state.get("removed_message_count") if isinstance(state, dict) else None
    return count if isinstance(count, int) else 0


def content_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent's fields without its id and times: what makes a difference."""
    return {name: fields[name] for name in fields if name not in _NOT_CONTENT}


def fields_of(value: Session | SessionAgent | SessionMessage) -> dict[str, Any]:
    """Return a dataclass's fields, shared with it: for encoding at once, not for keeping."""
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


def build(
    cls: type[_Stored], fields: Mapping[str, Any], table: str, key: tuple[Any, ...]
) -> _Stored:
    """Return a dataclass of decoded JSON, passing over keys that it doesn't have.

    Raises:
        CorruptRowError: If a field is missing or of another shape.
    """
    for name, is_shaped in _REQUIRED[cls].items():
        if not is_shaped(fields.get(name)):
            raise _misshapen(name, table, key)
    for name, is_shaped in _OPTIONAL[cls].items():
        if name in fields and not is_shaped(fields[name]):
            raise _misshapen(name, table, key)
    return cls(**{name: fields[name] for name in _FIELDS[cls] if name in fields})


def _misshapen(name: str, table: str, key: tuple[Any, ...]) -> CorruptRowError:
    context = dict(zip(("session_id", "agent_id"), key, strict=False))
    return corrupt(table, key, f"its field {name!r} is missing or misshapen", context)
