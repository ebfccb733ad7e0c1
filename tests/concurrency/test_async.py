"""Coroutines: the event loop goes on, cancellation tears nothing, and a moment is one."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from strands import ToolContext, tool
from strands.agent.conversation_manager import NullConversationManager
from strands.hooks import MessageAddedEvent

from strands_persql import PerSQLSessionManager, Result, Statement
from strands_persql.errors import ConflictError, UnavailableError
from strands_persql.testing import (
    CountingDatabase,
    Fault,
    FaultyDatabase,
    InterceptingDatabase,
    Reply,
    ToolCall,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import (
    count,
    ids_in_database,
    in_database,
    said,
    state_in_database,
    user,
)
from tests.support.faults import Switch
from tests.support.racing import Gate, until_async

# A file, which other connections can look at.
pytestmark = pytest.mark.backends("file")

TURN: list[Reply] = [ToolCall("count"), "one"]
MOST_THREADS = 128
"""Threads of a process that wait for databases on behalf of coroutines, as the docs promise."""


@pytest.fixture(autouse=True)
def _tables(backend: Backend) -> None:
    backend.repository().setup()


async def cancelled(call: Awaitable[Any], when: Callable[[], bool]) -> None:
    """Cancel a call as soon as a condition holds, and see that it ended so."""
    task = asyncio.ensure_future(call)
    await until_async(lambda: when() or task.done())
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def failure(error: BaseException | None) -> BaseException | None:
    """Give the error of ours that an error of Strands was caused by."""
    while error is not None and not isinstance(error, UnavailableError):
        error = error.__cause__
    return error


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.guarantee(number=13)
@pytest.mark.parametrize(
    ("commit", "request_number"),
    [("message", 1), ("message", 2), ("message", 3), ("message", 4), ("turn", 1)],
)
def test_a_write_whose_caller_was_cancelled_is_finished(
    backend: Backend, commit: str, request_number: int
) -> None:
    """Whichever write a turn is cancelled in, it is stored once, and later ones behind it."""
    agent = backend.agent([*TURN, *TURN], manager=backend.manager(commit=commit), tools=[count])
    backend.database.latency = 0.05
    backend.database.reset()

    async def converse() -> None:
        await cancelled(
            agent.invoke_async("first"), lambda: backend.database.round_trips == request_number
        )
        await agent.invoke_async("second")

    asyncio.run(converse())
    texts = in_database(backend)
    assert texts == said(agent.messages)
    assert texts[0] == "first"
    assert texts.count("first") == texts.count("second") == 1
    assert ids_in_database(backend) == list(range(len(texts)))
    assert state_in_database(backend) == agent.state.get()


@pytest.mark.guarantee(number=13)
def test_the_next_write_awaits_a_cancelled_one(backend: Backend) -> None:
    """A write that comes while a cancelled one is under way starts when that has ended."""
    manager = backend.manager()
    agent = backend.agent(["hi"], manager=manager)
    backend.database.latency = 0.2
    backend.database.reset()

    async def converse() -> None:
        await cancelled(agent.invoke_async("first"), lambda: backend.database.round_trips == 1)

    asyncio.run(converse())
    manager.append_message(user("second"), agent)
    assert in_database(backend) == ["first", "second"]


@pytest.mark.guarantee(number=13)
def test_a_call_that_was_cancelled_in_the_queue_keeps_its_place(backend: Backend) -> None:
    """What was asked for is done in its order, whether anybody still waits for it or not."""
    gate = Gate()
    database = InterceptingDatabase(backend.plain)
    agent = backend.agent(manager=backend.manager(repository=backend.repository(database)))
    database.before = lambda _: gate.wait()

    def append(text: str) -> asyncio.Future[Any]:
        agent.messages.append(user(text))
        event = MessageAddedEvent(agent, agent.messages[-1])
        return asyncio.ensure_future(agent.hooks.invoke_callbacks_async(event))

    async def ask() -> None:
        first, queued, last = append("first"), append("second"), append("third")
        await asyncio.to_thread(gate.reached)
        queued.cancel()
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, last)
        assert queued.cancelled()

    asyncio.run(ask())
    assert in_database(backend) == ["first", "second", "third"]


@pytest.mark.guarantee(number=13)
def test_a_cancelled_turn_beside_another_is_kept_whole(backend: Backend) -> None:
    """Of two agents of one name in one process, the one that is cancelled leaves no half write."""
    repository = backend.repository()
    one, two = (
        backend.agent(TURN, manager=backend.manager(repository=repository), tools=[count])
        for _ in range(2)
    )
    backend.database.latency = 0.05
    backend.database.reset()

    async def converse() -> None:
        other = asyncio.ensure_future(two.invoke_async("other"))
        await cancelled(one.invoke_async("ours"), lambda: backend.database.round_trips >= 2)
        await other

    asyncio.run(converse())
    texts = in_database(backend)
    begin = texts.index("other")
    assert texts[begin : begin + 4] == ["other", "call count", "result 1", "one"]
    assert texts.count("ours") == 1


def test_a_cancelled_write_that_fails_goes_out_with_the_next(backend: Backend) -> None:
    """Nobody hears of a failure after the cancellation, so nothing may depend on hearing of it."""
    faulty = Switch(backend.plain)
    slow = CountingDatabase(faulty)
    manager = backend.manager(repository=backend.repository(slow, retry=NEVER))
    agent = backend.agent(["hi", "ho"], manager=manager)
    slow.latency = 0.1
    slow.reset()

    async def converse() -> None:
        faulty.next = ["lost_answer"]
        await cancelled(agent.invoke_async("first"), lambda: slow.round_trips == 1)
        await agent.invoke_async("second")

    asyncio.run(converse())
    assert in_database(backend) == said(agent.messages) == ["first", "second", "hi"]


# -- the event loop --------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_the_event_loop_is_not_blocked(backend: Backend, commit: Any) -> None:
    """While opening, a tool turn and closing wait for the database, other coroutines go on."""
    backend.agent(["hi"])("hello")
    backend.database.latency = 0.2
    gaps: list[float] = []

    async def tick() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            gaps.append(time.monotonic() - before)
            before = time.monotonic()

    async def converse() -> None:
        ticking = asyncio.ensure_future(tick())
        repository = backend.repository()
        async with await PerSQLSessionManager.open(
            "s", repository=repository, commit=commit
        ) as manager:
            agent = backend.agent(TURN, manager=manager, tools=[count])
            await agent.invoke_async("count")
            agent.state.set("later", 1)
        ticking.cancel()

    asyncio.run(converse())
    assert state_in_database(backend) == {"n": 1, "later": 1}
    assert len(gaps) > 50
    assert max(gaps) < 0.1


def test_many_agents_share_a_bounded_number_of_threads(backend: Backend) -> None:
    """However many agents wait on one loop, the threads that ask the database stay bounded."""
    used: set[threading.Thread] = set()

    def note(_: object) -> None:
        used.add(threading.current_thread())

    slow = CountingDatabase(InterceptingDatabase(backend.plain, before=note))
    repository = backend.repository(slow)
    number = 2 * MOST_THREADS
    agents = [
        backend.agent(TURN, manager=backend.manager(f"s{n}", repository=repository), tools=[count])
        for n in range(number)
    ]
    used.clear()
    slow.latency = 0.02

    async def converse() -> None:
        await asyncio.gather(*(agent.invoke_async("count") for agent in agents))

    asyncio.run(converse())
    assert 1 < len(used) <= MOST_THREADS
    for n in range(number):
        assert in_database(backend, f"s{n}") == ["count", "call count", "result 1", "one"]


# -- managers and their errors ---------------------------------------------------------------------


def test_an_opening_that_fails_raises_to_who_awaits_it(backend: Backend) -> None:
    """``await open`` raises what the constructor would."""
    faulty = FaultyDatabase(backend.database, ["lost_request"])

    async def opening() -> None:
        with pytest.raises(UnavailableError):
            await PerSQLSessionManager.open("s", faulty, retry=NEVER)
        with pytest.raises(ValueError, match="session_id"):
            await PerSQLSessionManager.open("a/b", faulty)
        async with await PerSQLSessionManager.open("s", faulty) as manager:
            assert manager.session_id == "s"

    asyncio.run(opening())


@pytest.mark.parametrize("commit", ["message", "turn"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_hooks_error_reaches_who_awaits_the_agent(
    backend: Backend, commit: str, streaming: bool
) -> None:
    """A write that fails within a turn raises from the agent's call, awaited or streamed."""
    faulty = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(faulty, retry=NEVER), commit=commit)
    agent = backend.agent(["hi", "ho"], manager=manager)

    async def ask(text: str) -> None:
        if streaming:
            async for _ in agent.stream_async(text):
                pass
        else:
            await agent.invoke_async(text)

    faulty.down = "lost_request"
    with pytest.raises(Exception, match="nothing was written") as caught:
        asyncio.run(ask("first"))
    assert isinstance(failure(caught.value), UnavailableError)
    faulty.down = None
    asyncio.run(ask("second"))
    assert in_database(backend) == said(agent.messages)


def test_a_closing_that_fails_raises_to_who_awaits_it(backend: Backend) -> None:
    """Leaving ``async with`` raises for what could not be stored, which is still held."""
    faulty = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(faulty, retry=NEVER))
    agent = backend.agent(manager=manager)

    async def work() -> None:
        async with manager:
            agent.state.set("n", 1)

    faulty.down = "lost_request"
    with pytest.raises(UnavailableError):
        asyncio.run(work())
    faulty.down = None
    manager.close()
    assert state_in_database(backend) == {"n": 1}


def test_plain_and_awaited_calls_alternate(backend: Backend) -> None:
    """One agent may be called and awaited in turn; each stores behind the one before."""
    agent = backend.agent([f"a{n}" for n in range(6)])
    for number in range(0, 6, 2):
        agent(f"q{number}")
        asyncio.run(agent.invoke_async(f"q{number + 1}"))
    expected = [f"{kind}{number}" for number in range(6) for kind in "qa"]
    assert in_database(backend) == said(agent.messages) == expected


# -- a moment is one transaction -------------------------------------------------------------------


class Watched(CountingDatabase):
    """A database beside which another connection looks after each round trip.

    Attributes:
        seen: The messages and the state that it saw, each time.
        whole: Whether each round trip was one transaction.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(InterceptingDatabase(backend.plain, after=self._look))
        self.seen: list[tuple[list[str], dict[str, Any]]] = []
        self.whole: list[bool] = []
        self._backend = backend

    def batch(self, statements: Any, /, *, transaction: bool = False, **options: Any) -> Any:
        self.whole.append(transaction)
        return super().batch(statements, transaction=transaction, **options)

    def _look(self, _: Sequence[Statement], __: Sequence[Result]) -> None:
        if self._backend.raw("SELECT 1 FROM strands_agents"):
            self.seen.append((in_database(self._backend), state_in_database(self._backend)))

    def writes(self) -> list[tuple[int, int]]:
        """Tell of each round trip how many messages and how many agents it may have written."""
        return [
            (
                sum(_begins(each, "INSERT INTO strands_messages") for each in batch),
                sum(
                    _begins(each, "UPDATE strands_agents") and "data =" in each["sql"]
                    for each in batch
                ),
            )
            for batch in self.log
        ]


def _begins(statement: Statement, words: str) -> bool:
    return " ".join(statement["sql"].split()).startswith(words)


def conversation(backend: Backend, database: Any, **options: Any) -> Any:
    """Make an agent whose tool turns change its state, one by one."""
    manager = backend.manager(repository=backend.repository(database, **options))
    replies: list[Reply] = [*TURN, *TURN]
    return backend.agent(
        replies,
        manager=manager,
        tools=[count],
        conversation_manager=NullConversationManager(),
    )


def test_a_message_and_its_state_are_seen_together(backend: Backend) -> None:
    """Another connection sees a tool's result exactly when it sees the state that it has set."""
    watched = Watched(backend)
    agent = conversation(backend, watched)
    agent("count")
    agent("again")
    assert all(watched.whole)
    assert len(watched.seen) > 8
    for texts, state in watched.seen:
        assert state.get("n", 0) == sum(text.startswith("result") for text in texts)


@pytest.mark.guarantee(number=9)
def test_a_moments_writes_are_in_one_batch(backend: Backend) -> None:
    """No batch of a tool turn has state alone: it rides along with the message of its moment."""
    watched = Watched(backend)
    agent = conversation(backend, watched)
    agent("count")
    watched.reset()
    agent("again")
    inserts, updates = zip(*watched.writes(), strict=True)
    assert inserts == (1, 1, 1, 1)
    assert updates[2] == 1
    assert sum(updates) <= 2


@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "locked"])
def test_a_lost_moment_is_lost_whole(backend: Backend, fault: Fault) -> None:
    """Where the request with a tool's result is lost, neither the result nor its state is there."""
    faulty = Switch(backend.database)
    agent = conversation(backend, faulty, retry=NEVER)
    faulty.next = [None, None, fault]
    with pytest.raises(Exception, match=r"nothing was written|was lost"):
        agent("count")
    if fault == "lost_answer":
        assert in_database(backend) == ["count", "call count", "result 1"]
        assert state_in_database(backend) == {"n": 1}
    else:
        assert in_database(backend) == ["count", "call count"]
        assert state_in_database(backend) == {}


@pytest.mark.guarantee(number=9)
@pytest.mark.parametrize("theirs", ["message", "state"])
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_a_losers_state_never_stands_without_its_message(
    backend: Backend, commit: str, theirs: str
) -> None:
    """Under ``raise`` the moment of a writer that another one came before leaves nothing at all."""

    @tool(context=True)
    def disturb(tool_context: ToolContext) -> str:
        """Let another writer come while the tool works, and change the state."""
        manager = backend.manager()
        other = backend.agent(["theirs"], manager=manager)
        if theirs == "message":
            manager.append_message(user("theirs"), other)
        else:
            other.state.set("theirs", 1)
            manager.sync_agent(other)
        tool_context.agent.state.set("ours", 1)
        return "disturbed"

    manager = backend.manager(on_conflict="raise", commit=commit)
    agent = backend.agent([ToolCall("disturb"), "done"], manager=manager, tools=[disturb])
    with pytest.raises(Exception, match="another writer changed"):
        agent("go")
    ours = {"message": ["go", "call disturb"], "turn": []}[commit]
    assert in_database(backend) == ours + (["theirs"] if theirs == "message" else [])
    assert state_in_database(backend) == ({} if theirs == "message" else {"theirs": 1})
    with pytest.raises(ConflictError):
        manager.sync_agent(agent)


def test_an_unknown_moment_is_settled_whole(backend: Backend) -> None:
    """After a lost answer the next turn finds message and state of the moment, and adds neither."""
    faulty = Switch(backend.database)
    agent = conversation(backend, faulty, retry=NEVER)
    faulty.next = [None, None, "lost_answer"]
    with pytest.raises(Exception, match="was lost"):
        agent("count")
    agent("on")
    assert in_database(backend) == said(agent.messages)
    assert state_in_database(backend) == agent.state.get()
    rows = backend.raw("SELECT version FROM strands_agents")
    assert rows[0]["version"] <= 4
