"""A state machine: no write, fault or passing time makes an open older than it may be."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from strands_persql import LocalDatabase, PerSQLSessionRepository, RetryPolicy, SessionCache
from strands_persql.errors import NotFoundError, PerSQLError
from strands_persql.testing import Fault, ManualClock
from tests.support import machines
from tests.support.conversation import said, session, session_agent, session_message, user
from tests.support.faults import Switch

faults = st.sampled_from(
    [*[None] * 6, "lost_request", "lost_answer", "duplicate", "delayed_duplicate"]
)
who = st.sampled_from([0, 1, 1, 2])
pauses = st.sampled_from([0.0, 0.0, 0.1, 2.6, 4.9, 5.1, 31.0])


class Opening(RuleBasedStateMachine):
    """Repositories with caches of their own on one database, and a clock that rules set.

    Each write is noted with the time of its acknowledgement. Whatever an open of a session leaves
    out must have been acknowledged within the staleness before it.
    """

    STALENESS = (0.0, 5.0, 60.0)

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1000.0)
        self.database = LocalDatabase()
        self.faulty = Switch(self.database, duplicate_after=2)
        retry = RetryPolicy(budget=0.0, sleep=lambda _: None)
        self.repositories = [
            PerSQLSessionRepository(
                self.faulty,
                retry=retry,
                max_staleness=seconds,
                clock=self.clock,
                cache=SessionCache(max_bytes=bytes_),
            )
            for seconds, bytes_ in zip(self.STALENESS, (10**6, 10**6, 6_000), strict=True)
        ]
        self.said: dict[str, float] = {}  # by text, when it was acknowledged
        self.counts: dict[str, dict[int, float]] = {}  # by key, by value, likewise
        self.redacted: dict[str, float] = {}
        self.incarnation = 0
        self.born = 0.0
        self.number = 0

    def teardown(self) -> None:
        """Close the database."""
        self.database.close()

    @initialize()
    def create(self) -> None:
        """A session with an agent."""
        self._create(0)

    def _create(self, by: int) -> None:
        self.incarnation += 1
        self.said, self.counts, self.redacted = {}, {}, {}
        self.repositories[by].create_session(session())
        self.repositories[by].create_agent("s", session_agent(born=self.incarnation))
        self.born = self.clock()

    @rule(by=who, fault=faults, after=pauses)
    def append(self, by: int, fault: Fault | None, after: float) -> None:
        """A message is appended."""
        self.clock.advance(after)
        self.number += 1
        text = f"{self.incarnation}:{self.number}"
        self.faulty.next = [fault]
        if self._went_well(
            lambda: self.repositories[by].create_message(
                "s", "a", session_message(text, self._next_id())
            )
        ):
            self.said[text] = self.clock()

    def _next_id(self) -> int:
        sql = "SELECT coalesce(max(message_id), -1) + 1 AS next FROM strands_messages"
        return int(self.database.query(sql)["data"][0]["next"])

    @rule(by=who, fault=faults, after=pauses)
    def count_up(self, by: int, fault: Fault | None, after: float) -> None:
        """A repository counts up a key of its own in the agent's state."""
        self.clock.advance(after)
        repository = self.repositories[by]
        agent = repository.read_agent("s", "a")
        if agent is None:
            return
        self.number += 1
        agent.state[f"k{by}"] = self.number
        self.faulty.next = [fault]
        if self._went_well(lambda: repository.update_agent("s", agent)):
            self.counts.setdefault(f"k{by}", {})[self.number] = self.clock()

    @rule(by=who, fault=faults, after=pauses)
    def redact(self, by: int, fault: Fault | None, after: float) -> None:
        """The first message is redacted."""
        self.clock.advance(after)
        repository = self.repositories[by]
        if repository.read_agent("s", "a") is None:
            return
        message = next(iter(repository.list_messages("s", "a")), None)
        if message is None or message.redact_message is not None:
            return
        text = said([message.to_message()])[0]
        if not self._is_stored(text):
            return  # it is of a session that was deleted: see the contract's test of that
        message.redact_message = user("[gone]")
        self.said.pop(text, None)  # from here on it may be there or not
        self.faulty.next = [fault]
        if self._went_well(lambda: repository.update_message("s", "a", message)):
            self.redacted[text] = self.clock()

    def _is_stored(self, text: str) -> bool:
        sql = "SELECT 1 FROM strands_messages WHERE instr(data, ?)"
        return bool(self.database.query(sql, [f'"{text}"'])["data"])

    def _went_well(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except PerSQLError:
            return False
        return True

    @rule(by=who)
    def make_anew(self, by: int) -> None:
        """The session is deleted and made again."""
        try:
            self.repositories[by].delete_session("s")
        except NotFoundError:
            return  # another one has made it anew since it was seen here
        self._create(by)

    @rule(by=who)
    def read(self, by: int) -> None:
        """Reading without an opening fills the cache, and may be as old as it likes."""
        self.repositories[by].read_agent("s", "a")
        self.repositories[by].read_message("s", "a", 0)

    @rule()
    def stragglers_arrive(self) -> None:
        """What is late arrives."""
        self.faulty.deliver_late()

    @rule(by=who, after=pauses)
    def open(self, by: int, after: float) -> None:
        """An opened session lacks nothing that was acknowledged longer ago than it may."""
        self.clock.advance(after)
        repository, fresh = self.repositories[by], PerSQLSessionRepository(self.database)
        now = self.clock()
        limit = now - self.STALENESS[by]

        def must_be_there(at: float) -> bool:
            return at < limit or at == limit == now

        assert repository.read_session("s") is not None or not must_be_there(self.born)
        agent = repository.read_agent("s", "a")
        if agent is None or agent.state["born"] != self.incarnation:
            assert not must_be_there(self.born)
            return
        for key, values in self.counts.items():
            known = [value for value, at in values.items() if must_be_there(at)]
            assert agent.state.get(key, 0) >= max(known, default=0)
        messages = repository.list_messages("s", "a")
        texts = said(one.to_message() for one in messages)
        assert {text for text, at in self.said.items() if must_be_there(at)} <= set(texts)
        assert not {text for text, at in self.redacted.items() if must_be_there(at)} & set(texts)
        assert {one.message_id for one in messages} <= {
            one.message_id for one in fresh.list_messages("s", "a")
        }
        if self.STALENESS[by] == 0:
            assert agent == fresh.read_agent("s", "a")
            assert messages == fresh.list_messages("s", "a")


@machines.limited
@pytest.mark.guarantee(number=10)
def test_no_stale_read_can_be_produced() -> None:
    """No sequence of writes, faults and passing time makes an open older than it may be."""
    machines.run(Opening, examples=10, steps=2)
