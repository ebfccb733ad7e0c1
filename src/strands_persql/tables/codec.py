"""Strands' dataclasses to rows and back, with the checks that stand between."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.errors import TooLargeError
from strands_persql.persistence.cached import MessageRow
from strands_persql.tables.encoding import from_fields, from_json, to_fields, to_json
from strands_persql.tables.schema import Row, Schema

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase

_BESIDES_DATA = 2_500  # the most that a row's other columns take, in bytes


class RowCodec:
    """Encodes and decodes the rows of one schema.

    Args:
        schema: The tables, for errors to name.
        max_row_bytes: What a row may take at the most, or None for no limit.
    """

    def __init__(self, schema: Schema, max_row_bytes: int | None) -> None:
        """Initialize."""
        self._schema = schema
        self._max_row_bytes = max_row_bytes

    def session(self, session: Session) -> Row:
        """Encode a session."""
        context = {"session_id": session.session_id}
        data = self._encode(to_fields(session), "session", context)
        return Row(data, session.created_at, session.updated_at)

    def agent(self, session_id: str, agent: SessionAgent) -> Row:
        """Encode an agent."""
        context = {"session_id": session_id, "agent_id": agent.agent_id}
        data = self._encode(to_fields(agent), "agent's state", context)
        return Row(data, agent.created_at, agent.updated_at)

    def agent_content(
        self, session_id: str, agent_id: str, content: Mapping[str, Any], times: tuple[str, str]
    ) -> Row:
        """Encode an agent's content, with the times of its creation and of this update."""
        context = {"session_id": session_id, "agent_id": agent_id}
        fields = {"agent_id": agent_id, **content, "created_at": times[0], "updated_at": times[1]}
        return Row(self._encode(fields, "agent's state", context), *times)

    def message(self, session_id: str, agent_id: str, message: SessionMessage) -> Row:
        """Encode a message."""
        context = {"session_id": session_id, "agent_id": agent_id}
        data = self._encode(to_fields(message), "message", context)
        return Row(data, message.created_at, message.updated_at)

    def multi_agent(self, session_id: str, multi_agent: "MultiAgentBase", time: str) -> Row:
        """Encode a graph's or swarm's state."""
        context = {"session_id": session_id, "agent_id": multi_agent.id}
        data = self._encode(multi_agent.serialize_state(), "multi-agent's state", context)
        return Row(data, time, time)

    def read_session(self, session_id: str, data: str) -> Session:
        """Decode a session."""
        table, key, context = self._schema.sessions, (session_id,), {"session_id": session_id}
        return from_fields(Session, from_json(data, table, key, **context), table, key, **context)

    def read_agent(self, session_id: str, agent_id: str, data: str) -> SessionAgent:
        """Decode an agent."""
        table, key, context = self._place(self._schema.agents, session_id, agent_id)
        return from_fields(
            SessionAgent, from_json(data, table, key, **context), table, key, **context
        )

    def read_agent_content(self, session_id: str, agent_id: str, data: str) -> dict[str, Any]:
        """Decode an agent's content: its fields without its id and times."""
        table, key, context = self._place(self._schema.agents, session_id, agent_id)
        return without_times(from_json(data, table, key, **context))

    def removed_messages(self, session_id: str, agent_id: str, data: str) -> int:
        """Tell how many of an agent's first messages its conversation manager has removed."""
        return removed_messages(self.read_agent_content(session_id, agent_id, data))

    def read_message(self, session_id: str, agent_id: str, row: MessageRow) -> SessionMessage:
        """Decode a message; its id is where it stands."""
        table, key, context = self._place(
            self._schema.messages, session_id, agent_id, row.message_id
        )
        fields = from_json(row.data, table, key, **context)
        fields["message_id"] = row.message_id
        return from_fields(SessionMessage, fields, table, key, **context)

    def read_multi_agent(self, session_id: str, multi_agent_id: str, data: str) -> dict[str, Any]:
        """Decode a graph's or swarm's state."""
        table, key, context = self._place(self._schema.multi_agents, session_id, multi_agent_id)
        return from_json(data, table, key, **context)

    def _encode(self, value: Any, what: str, context: dict[str, Any]) -> str:
        text = to_json(value, what, **context)
        limit = self._max_row_bytes
        if limit is None or len(text) * 4 + _BESIDES_DATA <= limit:
            return text
        size = len(text.encode()) + _BESIDES_DATA
        if size > limit:
            raise TooLargeError(
                f"the {what} takes {size} bytes and a row of this database {limit} at the most;"
                " nothing was written. Keep large content elsewhere and store a reference",
                size=size,
                limit=limit,
                **context,
            )
        return text

    def _place(
        self, table: str, session_id: str, agent_id: str, *more: int
    ) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        context = {"session_id": session_id, "agent_id": agent_id}
        return table, (session_id, agent_id, *more), context


def removed_messages(content: Mapping[str, Any]) -> int:
    """Tell how many messages a content's conversation manager has removed."""
    state = content.get("conversation_manager_state")
    count = state.get("removed_message_count") if isinstance(state, dict) else None
    return count if isinstance(count, int) else 0


def without_times(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give an agent's fields without its id and times: what makes a difference."""
    return {name: fields[name] for name in fields if name not in _NO_CONTENT}


_NO_CONTENT = ("agent_id", "created_at", "updated_at")
