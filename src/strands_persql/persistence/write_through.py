"""A cached session after a change set was stored: what is certain is kept, the rest read again."""

from dataclasses import replace
from typing import Any

from strands_persql.persistence.cached import CachedAgent, CachedSession, StoredMessage
from strands_persql.persistence.changes import ChangeSet, CommitResult


def after_commit(
    entry: CachedSession, change: ChangeSet, result: CommitResult
) -> CachedSession | None:
    """Return a session as a change set has left it, or None where that can't be told."""
    agent, base = entry.agents.get(change.key.agent_id), result.base
    if (
        agent is None
        or agent.origin != base.origin
        or agent.history_version != base.history_version
    ):
        return None
    version, data = agent.version, agent.data
    if result.row is not None and version == base.version - 1:
        version, data = base.version, result.row.data
    if version != base.version or base.view.start < agent.view.start:
        return None
    new = _appended(agent, change, result)
    if new is None:
        return None
    messages = (agent.messages.appended(new) if new else agent.messages).within(base.view)
    after = replace(
        agent,
        version=version,
        view=base.view,
        is_counted=False,
        expires=base.expires,
        data=data,
        messages=messages,
    )
    return entry.with_agent(change.key.agent_id, after)


def _appended(
    agent: CachedAgent, change: ChangeSet, result: CommitResult
) -> list[StoredMessage] | None:
    """Return the messages that a change set added to the cached ones, or None if it can't tell."""
    if not all(_has(agent, segment) for segment in result.base.view.head):
        return None
    next_id = agent.last_id + 1
    new = [
        StoredMessage(result.ids[one.write_id], 1, one.write_id, change.turn, "", one.row.data)
        for one in change.messages
        if result.ids[one.write_id] >= next_id
    ]
    if any(row.message_id != next_id + index for index, row in enumerate(new)):
        return None
    return new


def _has(agent: CachedAgent, segment: Any) -> bool:
    """Whether the cache has all messages of a view's segment, which it does of its own view's."""
    if isinstance(segment, str):
        return True
    first, last = segment
    return first >= agent.view.start or any(
        one[0] <= first and last <= one[1] for one in agent.view.head if not isinstance(one, str)
    )
