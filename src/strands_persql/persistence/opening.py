"""What opens a session: its statements within a batch, and what their rows say."""

import math
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from strands_persql.gateway.batch import Answer, Batch
from strands_persql.persistence.cached import (
    CachedAgent,
    CachedMultiAgent,
    CachedSession,
    StoredMessage,
)
from strands_persql.tables import reading
from strands_persql.tables.cells import number_in, text_in

AGENTS_PER_OPEN = 50
"""Agents that opening a session reads; others are read when they are asked for."""

MESSAGES_PER_REQUEST = 2_000
"""The most messages that one request returns; longer views take several."""


class Opening:
    """The statements that open a session, within a batch, and how their rows are read.

    Args:
        batch: The batch.
        opening: The statements.
    """

    def __init__(self, batch: Batch, opening: reading.Open) -> None:
        """Add the statements."""
        self._session = batch.ask(opening.session)
        self._agents = batch.ask(opening.agents)
        self._multi_agents = batch.ask(opening.multi_agents)
        self._messages = batch.ask(opening.messages)
        if opening.parts is not None:
            batch.ask_parts(opening.parts)

    def is_cut(self, answer: Answer) -> bool:
        """Whether there may be more messages than one request brings."""
        return len(answer[self._messages]) == MESSAGES_PER_REQUEST

    def read(
        self, answer: Answer, entry: CachedSession | None, asked_at: float, limit: int
    ) -> CachedSession | None:
        """Return a session as it is, of what was known of it and what the database answered."""
        session = answer.first(self._session)
        if session is None:
            return None
        expires = session["expires_in"] is not None
        known = {} if entry is None else entry.agents
        messages: dict[str, list[StoredMessage]] = {}
        for agent_id, rows in groupby(answer[self._messages], itemgetter("agent_id")):
            messages.setdefault(agent_id, []).extend(StoredMessage.all_of([*rows]))
        agents = {}
        for row in answer[self._agents][:limit]:
            agent_id = row["agent_id"]
            before = known.get(agent_id) or CachedAgent.of(row)
            agents[agent_id] = before.refreshed(row, messages.get(agent_id, []))
        return CachedSession(
            session["data"],
            text_in(session["write_id"]),
            agents,
            {
                row["multi_agent_id"]: CachedMultiAgent.of(row)
                if row["data"] is not None or entry is None
                else replace(
                    entry.multi_agents[row["multi_agent_id"]],
                    expires=row["expires_after"] is not None,  # its version says nothing of that
                )
                for row in answer[self._multi_agents]
            },
            checked_at=asked_at,
            has_parts=bool(session["has_parts"]),
            expires_after=number_in(session["expires_after"]) if expires else None,
            current_until=asked_at + (number_in(session["expires_in"]) if expires else math.inf),
        )
