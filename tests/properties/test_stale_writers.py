"""A state machine: stale writers of one agent lose and double nothing, whatever befalls them."""

import json

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql import LocalDatabase, PerSQLSessionRepository, RetryPolicy
from strands_persql.errors import PerSQLError
from strands_persql.testing import Fault
from tests.support import machines
from tests.support.conversation import said, user
from tests.support.faults import Switch
from tests.support.machines import faults, writers


class StaleWriters(RuleBasedStateMachine):
    """Two writers of one agent, each with its own cache, whose requests go wrong."""

    retry = RetryPolicy(budget=5.0, sleep=lambda _: None)

    def __init__(self) -> None:
        super().__init__()
        self.database = LocalDatabase()
        self.faulty = Switch(self.database, duplicate_after=2)
        self.writers = [PerSQLSessionRepository(self.faulty, retry=self.retry) for _ in range(2)]
        self.acknowledged: list[list[str]] = [[], []]
        self.unsure: set[str] = set()
        self.held: list[SessionAgent | None] = [None, None]
        self.counters = [0, 0]  # each writer's own key, as last acknowledged
        self.wanted = [0, 0]
        self.number = 0

    def teardown(self) -> None:
        """Let what is late arrive, and look at everything once more."""
        self.faulty.deliver_late()
        self.nothing_is_lost_or_doubled()
        self.database.close()

    @initialize()
    def create(self) -> None:
        """One agent, that both write to."""
        self.writers[0].create_session(Session("s", SessionType.AGENT))
        self.writers[0].create_agent("s", SessionAgent("a", {}, {}))

    @rule(writer=writers, fault=faults)
    def append(self, writer: int, fault: Fault | None) -> None:
        """A message is stored once, or its error says what is known."""
        self.number += 1
        text = f"{writer}:{self.number}"
        at = len(self.acknowledged[writer])
        made = SessionMessage.from_message(user(text), at)
        self.faulty.next = [fault]
        try:
            self.writers[writer].create_message("s", "a", made)
        except PerSQLError:
            self.unsure.add(text)
        else:
            self.acknowledged[writer].append(text)

    @rule(writer=writers)
    def hold(self, writer: int) -> None:
        """A writer reads the agent, and is stale as soon as the other writes."""
        self.writers[writer].read_session("s")
        self.held[writer] = self.writers[writer].read_agent("s", "a")

    @precondition(lambda self: any(self.held))
    @rule(writer=writers, fault=faults)
    def count_up(self, writer: int, fault: Fault | None) -> None:
        """A writer counts in a key of its own and stores the object that it holds."""
        agent = self.held[writer]
        if agent is None:
            return
        self.wanted[writer] += 1
        agent.state[f"w{writer}"] = self.wanted[writer]
        agent.state.setdefault("deep", {})[f"w{writer}"] = self.wanted[writer]
        self.faulty.next = [fault]
        try:
            self.writers[writer].update_agent("s", agent)
        except PerSQLError:
            return
        self.counters[writer] = self.wanted[writer]

    @rule()
    def stragglers_arrive(self) -> None:
        """What is late arrives."""
        self.faulty.deliver_late()

    @rule(writer=writers)
    def open_afresh(self, writer: int) -> None:
        """A read after an open equals the database, however warm the cache is."""
        repository, fresh = self.writers[writer], PerSQLSessionRepository(self.database)
        assert repository.read_session("s") == fresh.read_session("s")
        assert repository.read_agent("s", "a") == fresh.read_agent("s", "a")
        assert repository.list_messages("s", "a") == fresh.list_messages("s", "a")

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """What was acknowledged is there once, in its writer's order, and counters only grow."""
        rows = (
            self.database.query(
                "SELECT message_id, data FROM strands_messages ORDER BY message_id"
            )["data"]
            if self._has_tables()
            else []
        )
        stored = said(json.loads(row["data"])["message"] for row in rows)
        assert [row["message_id"] for row in rows] == list(range(len(rows)))
        assert len(stored) == len(set(stored))
        for writer, acknowledged in enumerate(self.acknowledged):
            assert [one for one in stored if one in set(acknowledged)] == [
                one for one in stored if one.startswith(f"{writer}:") and one not in self.unsure
            ]
            assert [one for one in stored if one in set(acknowledged)] == acknowledged
        if not self._has_tables():
            return
        for row in self.database.query("SELECT data FROM strands_agents")["data"]:
            state = json.loads(row["data"])["state"]
            for writer, acknowledged_count in enumerate(self.counters):
                assert state.get(f"w{writer}", 0) >= acknowledged_count
                assert state.get("deep", {}).get(f"w{writer}", 0) >= acknowledged_count

    def _has_tables(self) -> bool:
        sql = "SELECT 1 FROM sqlite_master WHERE name = 'strands_messages'"
        return bool(self.database.query(sql)["data"])


class ImpatientWriters(StaleWriters):
    """The same without retries, so that each fault reaches the writer."""

    retry = RetryPolicy(budget=0.0, sleep=lambda _: None)


@machines.limited
@pytest.mark.guarantee(number=2)
@pytest.mark.guarantee(number=4)
@pytest.mark.guarantee(number=5)
@pytest.mark.guarantee(number=10)
@pytest.mark.parametrize("machine", [StaleWriters, ImpatientWriters])
def test_two_stale_writers_lose_and_double_nothing(machine: type[RuleBasedStateMachine]) -> None:
    """No sequence of writes and faults loses or doubles what was acknowledged, or stales a read."""
    machines.run(machine)
