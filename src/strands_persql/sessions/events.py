"""An agent's events, off the event loop and in order."""

import asyncio
import logging
from typing import Any

from strands.types.content import Message

from strands_persql.errors import PerSQLError
from strands_persql.runtime.text import one_line
from strands_persql.runtime.threads import Queue
from strands_persql.sessions.read_only import NothingStored
from strands_persql.sessions.unit_of_work import UnitOfWork

logger = logging.getLogger("strands_persql")


class AgentEvents:
    """Hands an agent's events to its unit of work; only what asks the database takes a thread.

    Args:
        unit: The unit of work.
        agent: The agent.
    """

    def __init__(self, unit: UnitOfWork | NothingStored, agent: Any) -> None:
        """Initialize."""
        self._unit = unit
        self._agent = agent
        self._queue = Queue()
        self._ending: asyncio.Task[Any] | None = None

    async def invocation_began(self, *, continues: bool) -> None:
        """Begin a turn, or claim the one that continues."""
        await self._do(self._unit.begin_invocation)
        if continues:
            await self._queue.run(lambda: self._unit.continue_turn(self._agent))

    async def message_added(self, message: Message) -> None:
        """Take a message, and store what is due."""
        await self._do(lambda: self._unit.add(message, self._agent))
        # Read without the lock: only events of this agent change it, and they come one by one.
        if self._unit.is_due:
            await self._queue.run(lambda: self._unit.commit(self._agent))

    async def message_updated(self) -> None:
        """Store what has changed."""
        await self._queue.run(lambda: self._unit.commit(self._agent))

    async def saved(self) -> None:
        """Store what has changed at once, but no message of a turn that is to be stored whole."""
        await self._queue.run(
            lambda: self._unit.commit(self._agent, messages=not self._unit.waits_for_turn)
        )

    async def invocation_ended(self, result: Any) -> None:
        """Store all that is left, and end the turn; other hooks are called behind this."""
        stops = getattr(result, "stop_reason", None) == "checkpoint"
        self._ending = asyncio.current_task()
        if self._ending is not None:
            self._ending.add_done_callback(self._hooks_failed)
        await self._queue.run(lambda: self._unit.end_invocation(self._agent, is_to_go_on=stops))

    async def hooks_ended(self) -> None:
        """Store what other hooks have changed after the invocation's end."""
        self._all_hooks_ended()
        if self._try_lock():
            try:
                if not self._unit.has_changes(self._agent):
                    return
            finally:
                self._unit.lock.release()
        await self._queue.run(self._store_changes)

    def _all_hooks_ended(self) -> None:
        task, self._ending = self._ending, None
        if task is not None:
            task.remove_done_callback(self._hooks_failed)

    def _hooks_failed(self, task: "asyncio.Task[Any]") -> None:
        """Store what was changed by a hook that has raised, or whose caller was cancelled.

        Nobody awaits this any more, so it is done at once, on the event loop.
        """
        self._ending = None
        try:
            self._store_changes()
        except PerSQLError as error:  # there is no caller any more who could be told
            logger.warning(
                "error=<%s: %s> | what a hook changed could not be stored; it is stored with the"
                " next turn",
                type(error).__name__,
                one_line(str(error)),
            )
        except Exception:
            logger.warning("what a hook changed could not be stored", exc_info=True)

    def _store_changes(self) -> None:
        # What has failed goes out with the next turn, for its caller has been told that it failed.
        if self._unit.has_changes(self._agent):
            self._unit.commit(self._agent)

    async def _do(self, call: Any) -> None:
        """Call at once where nothing holds the unit of work, else in turn."""
        if not self._try_lock():
            await self._queue.run(call)
            return
        try:
            call()
        finally:
            self._unit.lock.release()

    def _try_lock(self) -> bool:
        return self._queue.is_idle and self._unit.lock.try_acquire()
