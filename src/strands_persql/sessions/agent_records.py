"""Agents of a repository: records that are created, read and replaced."""

import copy
from dataclasses import replace
from typing import Any

from strands.types.session import SessionAgent

from strands_persql.persistence.changes import ChangeSet, CommitResult, MergeBase
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.creations import Creations
from strands_persql.persistence.merge import same
from strands_persql.persistence.store import SessionStore
from strands_persql.persistence.view import View
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions.seen import (
    SEEN,
    DoubtedUpdate,
    Seen,
    SeenAgent,
    SeenBase,
    key_of,
    write_id_of,
)
from strands_persql.tables import creating
from strands_persql.tables.codec import removed_messages


class AgentRecords:
    """What `PerSQLSessionRepository` does with agents.

    Args:
        store: Where the sessions are.
        seen: What callers last saw.
    """

    def __init__(self, store: SessionStore, seen: Seen) -> None:
        """Initialize."""
        self._store = store
        self._seen = seen
        self._creations = Creations(store)

    def create(self, session_id: str, session_agent: SessionAgent) -> None:
        """Create an agent in a session."""
        key = key_of(session_id, session_agent.agent_id)
        row = self._store.codec.agent(session_id, session_agent)
        write_id = write_id_of(session_agent, row.data)
        content = self._store.codec.read_content(key, row.data)
        is_counted = removed_messages(content) > 0
        start = None if is_counted else 0
        statement = creating.create_agent(
            self._store.tables, key, row, write_id, start=start, view=None
        )
        expires = self._creations.create(statement, row, "agents", key, write_id)
        view = View(0, is_explicit=False)
        base = MergeBase(
            1, write_id, 0, view, is_counted, row.created_at, content, content, expires
        )
        self._seen.remember(key, SeenAgent(SeenBase.of(base, lambda _: row.data)), session_agent)

    def read(self, session_id: str, agent_id: str) -> SessionAgent | None:
        """Return an agent, or None if it isn't there."""
        key = key_of(session_id, agent_id)
        found = self._store.agent(key)
        if found is None:
            return None
        fields = self._store.codec.read_agent_fields(key, found.data)
        agent = self._store.codec.agent_of(key, copy_containers(fields))
        base = self._store.base_of(key, found, fields)
        self._seen.remember(key, SeenAgent(SeenBase.of(base, lambda _: found.data)), agent)
        return agent

    def update(self, session_id: str, session_agent: SessionAgent) -> None:
        """Replace an agent's state, merging with what another writer did in between."""
        key, codec = key_of(session_id, session_agent.agent_id), self._store.codec
        row = codec.agent(session_id, session_agent)
        content = codec.read_content(key, row.data)

        def encode(other: dict[str, Any]) -> str:
            return row.data if same(other, content) else codec.content(key, other)

        seen: SeenAgent = getattr(session_agent, SEEN, None) or self._seen.last(key)
        try:
            result = self._commit(key, seen, content)
        except InDoubtError as error:
            doubted = replace(seen, in_doubt=DoubtedUpdate.of(error.request, encode))
            self._seen.remember(key, doubted, session_agent)
            raise error.error from error
        base = result.base
        session_agent.created_at = base.created_at
        if result.has_foreign_state:
            session_agent.state = copy.deepcopy(base.own["state"])
        setattr(session_agent, SEEN, SeenAgent(SeenBase.of(base, encode)))
        # A caller that constructs each SessionAgent hasn't seen what was merged into this one.
        self._seen.remember(key, SeenAgent(SeenBase.of(replace(base, own=content), encode)))

    def _commit(self, key: AgentKey, seen: SeenAgent, content: dict[str, Any]) -> CommitResult:
        if seen.in_doubt is None:
            base = seen.base.restored(key, self._store.codec)
        else:  # it comes first, word for word
            doubted = seen.in_doubt.restored(key, self._store.codec)
            base = self._store.commit(doubted.change, doubted.base, _keep, doubted).base
            # The caller hasn't seen what was merged into that one.
            base = replace(base, own=doubted.change.content or base.own)
        change = ChangeSet(
            new_id(),
            key,
            _with_waiting(content, base),
            moved_by=removed_messages(content) - removed_messages(base.own),
            is_forced=True,
        )
        return self._store.commit(change, base, _keep)


def _keep(change: ChangeSet, result: CommitResult) -> tuple[ChangeSet, MergeBase]:
    """Try a change set again as it is, on what another writer has left."""
    return change, result.base


def _with_waiting(content: dict[str, Any], base: MergeBase) -> dict[str, Any]:
    """Return content that keeps the interrupts that wait: records of Strands don't know them."""
    before = base.own.get("_internal_state")
    internal = content.get("_internal_state")
    if not isinstance(before, dict) or "waiting" not in before or not isinstance(internal, dict):
        return content
    return {**content, "_internal_state": {"waiting": before["waiting"], **internal}}
