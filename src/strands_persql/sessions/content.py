"""An agent's content: its state, its conversation manager's, and the interrupts that wait."""

from dataclasses import replace
from typing import Any

from strands_persql.persistence.changes import MergeBase
from strands_persql.persistence.merge import merge, same, settled_interrupts
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.upstream import agent_record, is_interrupted, no_interrupts
from strands_persql.tables.codec import RowCodec, content_of, fields_of
from strands_persql.tables.encoding import decoded_text, to_json

_INTERNAL = "_internal_state"


class AgentContent:
    """Encodes an agent's content once, and notices where it hasn't changed.

    Args:
        key: The agent.
        codec: What encodes it.
    """

    def __init__(self, key: AgentKey, codec: RowCodec) -> None:
        """Initialize."""
        self._key = key
        self._codec = codec
        self._stored_text = ""  # the JSON that is in the row, to notice cheaply that it still is

    def changed(
        self, agent: Any, base: MergeBase, *, is_running: bool, turn_id: str, stops: bool
    ) -> tuple[str, dict[str, Any]] | None:
        """Return an agent's content and its JSON, or None if the database has it.

        Args:
            agent: The agent.
            base: The merge base.
            is_running: Whether an invocation is under way, so that interrupts aren't stored yet.
            turn_id: The turn under way, or the last one, or "" where the agent has had none.
            stops: Whether that has stopped at a checkpoint of Strands.
        """
        fields = content_of(fields_of(agent_record(agent)))
        internal = fields.get(_INTERNAL) or {}
        fields[_INTERNAL] = _with_waiting(
            internal, base, is_running=is_running or (not turn_id and _waits_as(base, internal)),
            turn_id=turn_id, stopped=stops or is_interrupted(agent),
        )  # fmt: skip
        text = self._codec.content(self._key, fields)
        if text == self._stored_text:
            return None
        content = decoded_text(text)
        if same(content, base.own):
            self._stored_text = text
            return None
        return text, content

    def resumed(
        self, agent: Any, base: MergeBase, turns: set[str | None]
    ) -> tuple[str, dict[str, Any]]:
        """Return the content of an agent that continues turns: their interrupts are answered."""
        fields = content_of(fields_of(agent_record(agent)))
        internal = dict(fields.get(_INTERNAL) or {})
        internal["interrupt_state"] = no_interrupts()
        internal["waiting"] = {
            turn: state for turn, state in waiting_turns(base.own).items() if turn not in turns
        }
        fields[_INTERNAL] = internal
        text = self._codec.content(self._key, fields)
        return text, decoded_text(text)

    def note_stored(self, text: str) -> None:
        """Note what the row has now."""
        self._stored_text = text

    def forget(self) -> None:
        """Compare with the merge base next time."""
        self._stored_text = ""


def waiting_turns(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the interrupts that wait for answers in an agent's content, by their turns."""
    waiting = (content.get(_INTERNAL) or {}).get("waiting")
    return dict(waiting) if isinstance(waiting, dict) else {}


def with_interrupts_of_row(base: MergeBase, *, but: str) -> MergeBase:
    """Return a merge base whose writer waits for what the row has, but for a turn's answers."""
    internal, found = base.own.get(_INTERNAL) or {}, base.content.get(_INTERNAL) or {}
    waiting = {turn: state for turn, state in waiting_turns(base.content).items() if turn != but}
    state = found.get("interrupt_state")
    if waiting_turns(base.content):
        state = [no_interrupts(), *waiting.values()][-1]
    own = {**base.own, _INTERNAL: {**internal, "interrupt_state": state, "waiting": waiting}}
    return replace(base, own=settled_interrupts(own))


def interrupts_of(base: MergeBase) -> dict[str, Any]:
    """Return the interrupts that a writer waits for itself, as Strands restores them."""
    own = (base.own.get(_INTERNAL) or {}).get("interrupt_state")
    return no_interrupts() if own is None else dict(own)


def _waits_as(base: MergeBase, internal: dict[str, Any]) -> bool:
    """Whether an agent that has had no turn waits for what it was opened with."""
    text = to_json(internal.get("interrupt_state"), "agent's interrupts")
    return same(decoded_text(text), interrupts_of(base))


def _with_waiting(
    internal: dict[str, Any], base: MergeBase, *, is_running: bool, turn_id: str, stopped: bool
) -> dict[str, Any]:
    if "interrupt_state" not in internal:
        return internal
    internal, waiting = dict(internal), waiting_turns(base.own)
    if is_running:
        internal["interrupt_state"] = interrupts_of(base)
    elif stopped:
        waiting[turn_id] = internal["interrupt_state"]
    else:
        waiting.pop(turn_id, None)
    if waiting or waiting_turns(base.own):
        internal["waiting"] = waiting
    return internal


def bring_in(state: Any, had: dict[str, Any], merged: dict[str, Any], text: str) -> None:
    """Set what others have changed on an agent's state, and leave its own values as they are.

    Args:
        state: The agent's state.
        had: What the writer had stored.
        merged: What the row has now.
        text: The JSON of the state as it is: values are compared as JSON makes them.
    """
    current = decoded_text(text)
    wanted, _ = merge(had, merged, current)
    keys = {_json_key(key): key for key in state.get()}
    for key in current.keys() - wanted.keys():
        state.delete(keys.get(key, key))
    for key, value in wanted.items():
        if key not in current or not same(current[key], value):
            state.set(key, value)


def _json_key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)
