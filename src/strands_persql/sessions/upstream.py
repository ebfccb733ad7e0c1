"""Every touch of what Strands keeps to itself, and what differs between its versions."""

import contextlib
import dataclasses
import functools
import inspect
import uuid
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar, cast

import strands.hooks.events as strands_events
import strands.types.exceptions as strands_exceptions
from strands.hooks.events import AfterInvocationEvent
from strands.hooks.registry import HookRegistry
from strands.interrupt import _InterruptState
from strands.session.repository_session_manager import RepositorySessionManager
from strands.tools._tool_helpers import generate_missing_tool_result_content
from strands.types.content import ContentBlock, Message, Messages
from strands.types.session import SessionAgent

from strands_persql.errors import ConflictError
from strands_persql.runtime.containers import copy_containers

_T = TypeVar("_T")


def agent_record(agent: Any) -> SessionAgent:
    """Return an agent's record as Strands makes it."""
    from_bidi_agent = getattr(SessionAgent, "from_bidi_agent", None)  # of older versions
    if from_bidi_agent is not None and not hasattr(agent, "conversation_manager"):
        return from_bidi_agent(agent)  # type: ignore[no-any-return]
    return SessionAgent.from_agent(agent)


def is_stateful(agent: Any) -> bool:
    """Whether the model's server keeps the conversation."""
    return bool(getattr(getattr(agent, "model", None), "stateful", False))


# -- messages ------------------------------------------------------------------------------------

HAS_TRACKING_IDS = "tracking_id" in Message.__annotations__
"""Whether Strands marks its messages, so that copies of them can be told."""


def tracking_id(message: Message) -> str | None:
    """Return Strands' mark of a message, which copies keep, or None."""
    mark = message.get("tracking_id")
    return mark if isinstance(mark, str) else None


def mark_message(message: Message, name: str) -> None:
    """Mark a message that has no mark, the same for each who opens its session.

    Strands marks those at random when it is invoked; each restore would mark them differently.
    """
    if HAS_TRACKING_IDS and not tracking_id(message):
        message["tracking_id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, name))  # type: ignore[typeddict-unknown-key,unused-ignore]


def mark_placeholder(message: Message, calls: Message) -> None:
    """Mark a made-up result by its calls, so that it is the same for each who makes it up."""
    if HAS_TRACKING_IDS:
        message.pop("tracking_id", None)  # type: ignore[typeddict-item,unused-ignore]
        mark_message(message, f"{tracking_id(calls)}/placeholder")


def missing_results(tool_use_ids: list[str]) -> list[ContentBlock]:
    """Return the results that Strands makes up where tool calls were never answered."""
    return generate_missing_tool_result_content(tool_use_ids)


def with_valid_tool_use(messages: Messages) -> Messages:
    """Return messages as Strands repairs them: each call of a tool followed by its result."""
    return RepositorySessionManager._fix_broken_tool_use(None, messages)  # type: ignore[arg-type] # noqa: SLF001


# -- the stash of a context manager -----------------------------------------------------------

_StorageError: type[Exception] = getattr(strands_exceptions, "StorageError", ValueError)


def stash_in_memory(agent: Any) -> Any:
    """Return the stash of an agent's context manager, or None where it outlives the process."""
    manager: Any = getattr(agent, "context_manager", None)
    stash = getattr(manager, "stash", None)
    return None if stash is None or manager.stash_is_durable else stash


def read_stash(stash: Any, references: Iterable[str]) -> dict[str, Any]:
    """Return what references into a stash in memory lead to, of those that lead anywhere."""
    found = {}
    for one in references:
        with contextlib.suppress(_StorageError):  # a name that a storage doesn't take
            found[one] = _at_once(stash.retrieve(one))
    return {one: value for one, value in found.items() if value is not None}


def fill_stash(stash: Any, entries: Mapping[str, Any]) -> None:
    """Put what was taken out of messages into a stash in memory, where that isn't there yet."""
    known = read_stash(stash, entries)
    for one in entries.keys() - known.keys():
        with contextlib.suppress(_StorageError):
            _at_once(stash.load_snapshot({one: entries[one]}))


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns that awaits nothing, as those of a storage in memory."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return cast("_T", ended.value)
    coroutine.close()
    raise RuntimeError("a stash in memory has to be waited for")


# -- interrupts ----------------------------------------------------------------------------------


class WaitingInterrupts(_InterruptState):
    """The interrupts with which a turn has stopped, aware of its turn and of other ones'.

    Attributes:
        turn_id: The turn that stopped.
        others: The interrupts of other turns of the session that wait too, by their turns.
        unanswered: What they were before the latest answers, or None where there were none.
    """

    turn_id: str
    others: dict[str, dict[str, Any]]
    unanswered: dict[str, Any] | None

    __hash__ = None  # type: ignore[assignment] # as Strands' own

    def __eq__(self, other: object) -> bool:
        """Whether another state of either class has the same interrupts, context and answers."""
        if not isinstance(other, _InterruptState):
            return NotImplemented
        names = [field.name for field in dataclasses.fields(_InterruptState)]
        return all(getattr(self, name) == getattr(other, name) for name in names)

    @classmethod
    def of_turn(
        cls, turn_id: str, state: _InterruptState, others: Mapping[str, dict[str, Any]]
    ) -> "WaitingInterrupts":
        """Return the state with its turn and those that wait beside it."""
        waiting = cls()
        waiting.__dict__.update(state.__dict__)
        waiting.turn_id, waiting.others, waiting.unanswered = turn_id, dict(others), None
        return waiting

    def resume(self, prompt: Any) -> None:
        """Take the answers to the interrupts of one turn, whichever waits for them.

        Raises:
            ConflictError: If an answered interrupt isn't waiting here.
        """
        answered = _answered(prompt) if isinstance(prompt, list) else set()
        if answered:
            self._require_waiting_turn(answered)
            self.unanswered = copy_containers(self.to_dict())
        super().resume(prompt)

    def take_back(self) -> None:
        """Wait again for the latest answers, for nothing came of them."""
        if self.unanswered is not None:
            self.__dict__.update(_InterruptState.from_dict(self.unanswered).__dict__)
            self.unanswered = None

    def _require_waiting_turn(self, answered: set[str]) -> None:
        waiting = _unanswered(self) if self.activated else set()
        if answered <= waiting:
            return
        for turn_id, state in self.others.items():
            chosen = _InterruptState.from_dict(state)
            if answered <= _unanswered(chosen):
                own = self.to_dict()
                others = {**self.others, self.turn_id: own}
                others.pop(turn_id)
                self.__dict__.update(chosen.__dict__)
                self.turn_id, self.others = turn_id, others
                return
        unknown = ", ".join(sorted(map(repr, answered - waiting)))
        raise ConflictError(
            f"the interrupts {unknown} are not waiting here: they were answered elsewhere, or are"
            " of several turns, which are answered one after the other. Open the session again to"
            " see what waits"
        )


def _unanswered(state: _InterruptState) -> set[str]:
    """Return the interrupts that wait, of those of several calls that are answered one by one.

    Where all have answers, nothing came of the latest ones: they may be given again.
    """
    waiting = {name for name, one in state.interrupts.items() if one.response is None}
    return waiting or set(state.interrupts)


def _answered(prompt: Iterable[Any]) -> set[str]:
    answers = (one.get("interruptResponse") for one in prompt if isinstance(one, dict))
    return {one["interruptId"] for one in answers if isinstance(one, dict) and "interruptId" in one}


def interrupts(agent: Any) -> _InterruptState | None:
    """Return an agent's interrupts, or None where it knows none."""
    return getattr(agent, "_interrupt_state", None)


def is_interrupted(agent: Any) -> bool:
    """Whether an agent waits for the answer to an interrupt."""
    return bool(getattr(interrupts(agent), "activated", False))


def wait_for_answers(agent: Any, turn_id: str, others: Mapping[str, dict[str, Any]]) -> None:
    """Have an agent wait for answers to its turn's interrupts, or to others', or for none."""
    state = interrupts(agent)
    if state is not None:
        agent._interrupt_state = WaitingInterrupts.of_turn(turn_id, state, others)  # noqa: SLF001


def set_interrupts(agent: Any, state: dict[str, Any]) -> None:
    """Have an agent wait for what a row says."""
    if interrupts(agent) is not None:
        agent._interrupt_state = _InterruptState.from_dict(state)  # noqa: SLF001


def take_back_answers(agent: Any) -> None:
    """Have an agent wait again for answers that were given and that nothing came of."""
    state = interrupts(agent)
    if isinstance(state, WaitingInterrupts):
        state.take_back()


def forget_interrupts(agent: Any) -> None:
    """Have an agent wait for nothing."""
    if interrupts(agent) is not None:
        agent._interrupt_state = _InterruptState()  # noqa: SLF001


def waiting_turn(agent: Any) -> str:
    """Return the turn whose interrupts an agent waits for, or nothing where it isn't known."""
    return getattr(interrupts(agent), "turn_id", "")


def no_interrupts() -> dict[str, Any]:
    """Return what an agent stores that waits for nothing."""
    return _InterruptState().to_dict()


# -- the end of an invocation --------------------------------------------------------------------

_BEFORE_ALL, _AFTER_ALL = -1_000, 1_000  # Strands' own first and last hooks have -100 and 100
_HAS_ORDER = "order" in inspect.signature(HookRegistry.add_callback).parameters


def call_first_at_end(registry: HookRegistry, callback: Callable[..., Any]) -> None:
    """Have a callback called before all others when an invocation has ended.

    A hook of the user's that raises keeps those behind it from being called.
    """
    if _HAS_ORDER:
        registry.add_callback(AfterInvocationEvent, callback, order=_BEFORE_ALL)
    else:
        registry.add_callback(AfterInvocationEvent, callback)


def call_last_at_end(registry: HookRegistry, callback: Callable[..., Any]) -> None:
    """Have a callback called behind all others when an invocation has ended.

    To be registered before them, where Strands has no order.
    """
    if _HAS_ORDER:
        registry.add_callback(AfterInvocationEvent, callback, order=_AFTER_ALL)
    else:
        registry.add_callback(AfterInvocationEvent, callback)


def keep_first_at_end(registry: Any, callback: Callable[..., Any]) -> None:
    """Put a callback before those that were registered since, where Strands has no order."""
    if _HAS_ORDER:
        return
    callbacks = getattr(registry, "_registered_callbacks", {}).get(AfterInvocationEvent, [])
    if callbacks and callbacks[-1] != callback and callback in callbacks:
        callbacks.remove(callback)
        callbacks.append(callback)  # the last one registered is called first


_failures: "weakref.WeakKeyDictionary[Any, Callable[[Any], None]]" = weakref.WeakKeyDictionary()


def on_management_failure(agent: Any, store: Callable[[Any], None]) -> None:
    """Have a turn stored where its conversation manager raises: no hook is called then.

    Args:
        agent: The agent.
        store: Stores the agent's turn; it must not hold the agent itself.
    """
    manager = getattr(agent, "conversation_manager", None)
    if manager is None:
        return
    _failures[agent] = store
    managed = manager.apply_management
    if getattr(managed, "stores_on_failure", False):
        return

    @functools.wraps(managed)
    def apply_management(agent: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return managed(agent, *args, **kwargs)
        except BaseException:
            store_turn = _failures.get(agent)
            if store_turn is not None:
                store_turn(agent)
            raise

    apply_management.stores_on_failure = True  # type: ignore[attr-defined]
    manager.apply_management = apply_management


# -- events of some versions ---------------------------------------------------------------------

MESSAGE_UPDATED: Any = getattr(strands_events, "MessageUpdatedEvent", None)
"""A bidirectional agent's message was replaced, or None in versions that don't tell."""


def bidi_events() -> list[Any]:
    """Return the events after which a bidirectional agent may never be heard of again."""
    try:
        from strands.bidi import hooks  # noqa: PLC0415 - of newer versions only
    except ImportError:
        return []
    names = ("BidiAgentStopEvent", "BidiBeforeConnectionRestartEvent", "BidiResponseStopEvent")
    return [getattr(hooks, name) for name in names if hasattr(hooks, name)]


def warn_of_storage(agent: Any) -> None:
    """Warn, as Strands does, that an agent's storage isn't what its session is kept in."""
    if getattr(agent, "storage", None) is not None:
        warnings.warn(
            "Agent-level storage is set, but PerSQLSessionManager does not use it; use"
            " SnapshotSessionManager for unified storage integration",
            stacklevel=1,
        )
