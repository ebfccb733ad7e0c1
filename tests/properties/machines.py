"""State machines: the repository against a plain model, alone and with stale writers."""

import copy
import json
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strands.types.content import Message
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql import LocalDatabase, PerSQLSessionRepository, RetryPolicy, SessionCache
from strands_persql.errors import PerSQLError
from strands_persql.testing import Fault, FaultyDatabase

FAST = RetryPolicy(budget=5.0, sleep=lambda _: None)

sessions = st.sampled_from(["s", "S", "s1"])
agents = st.sampled_from(["a", "b"])
values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 1), st.text(max_size=3)
)
states = st.dictionaries(
    st.sampled_from("xyz"),
    st.one_of(values, st.lists(values, max_size=2), st.dictionaries(st.sampled_from("xy"), values)),
    max_size=3,
)
texts = st.text(max_size=8)


def message_of(text: str) -> Message:
    """Make a user's message."""
    return {"role": "user", "content": [{"text": text}]}


class AgainstAModel(RuleBasedStateMachine):
    """One repository with hardly any cache, and a dict that does what it should do."""

    def __init__(self) -> None:
        super().__init__()
        self.database = LocalDatabase()
        self.repository = PerSQLSessionRepository(
            self.database, cache=SessionCache(max_bytes=2_500), retry=FAST
        )
        self.model: dict[str, dict[str, dict[str, Any]]] = {}

    def teardown(self) -> None:
        """Close the database."""
        self.database.close()

    def _agent(self, session: str, agent: str) -> dict[str, Any] | None:
        return self.model.get(session, {}).get(agent)

    @rule(session=sessions)
    def create_session(self, session: str) -> None:
        """A session is created once."""
        made = Session(session_id=session, session_type=SessionType.AGENT)
        try:
            self.repository.create_session(made)
        except SessionException:
            assert session in self.model
        else:
            assert session not in self.model
            self.model[session] = {}

    @rule(session=sessions)
    def read_session(self, session: str) -> None:
        """A session is there if it was created and not deleted."""
        assert (self.repository.read_session(session) is not None) == (session in self.model)

    @rule(session=sessions)
    def delete_session(self, session: str) -> None:
        """What is there can be deleted."""
        try:
            self.repository.delete_session(session)
        except SessionException:
            assert session not in self.model
        else:
            del self.model[session]

    @rule(session=sessions, agent=agents, state=states)
    def create_agent(self, session: str, agent: str, state: dict[str, Any]) -> None:
        """An agent is created once, in a session that is there."""
        made = SessionAgent(agent, copy.deepcopy(state), {})
        try:
            self.repository.create_agent(session, made)
        except SessionException:
            assert session not in self.model or agent in self.model[session]
        else:
            assert agent not in self.model[session]
            self.model[session][agent] = {
                "state": state,
                "messages": {},
                "created_at": made.created_at,
            }

    @rule(session=sessions, agent=agents, state=states, removed=st.integers(0, 6))
    def update_agent(self, session: str, agent: str, state: dict[str, Any], removed: int) -> None:
        """An update replaces the state of an agent that is there."""
        found = self._agent(session, agent)
        made = SessionAgent(agent, copy.deepcopy(state), {"removed_message_count": removed})
        try:
            self.repository.update_agent(session, made)
        except SessionException:
            assert found is None
        else:
            assert found is not None
            assert made.created_at == found["created_at"]
            found["state"] = state

    @rule(session=sessions, agent=agents, state=states)
    def read_and_update_agent(self, session: str, agent: str, state: dict[str, Any]) -> None:
        """The object that was read can be changed and stored."""
        read = self.repository.read_agent(session, agent)
        found = self._agent(session, agent)
        assert (read is None) == (found is None)
        if read is not None and found is not None:
            read.state = copy.deepcopy(state)
            self.repository.update_agent(session, read)
            found["state"] = state
            read.state["later"] = 1

    @rule(session=sessions, agent=agents)
    def read_agent(self, session: str, agent: str) -> None:
        """A read gives what was last written."""
        found, read = self._agent(session, agent), self.repository.read_agent(session, agent)
        assert (read is None) == (found is None)
        if read is not None and found is not None:
            assert read.state == found["state"]
            assert read.created_at == found["created_at"]

    @rule(session=sessions, agent=agents, text=texts, at=st.integers(0, 8))
    def create_message(self, session: str, agent: str, text: str, at: int) -> None:
        """A message is stored at its id if that is free, and behind all others if not."""
        found = self._agent(session, agent)
        made = SessionMessage.from_message(message_of(text), at)
        try:
            self.repository.create_message(session, agent, made)
            self.repository.create_message(session, agent, made)
        except SessionException:
            assert found is None
        else:
            assert found is not None
            messages = found["messages"]
            expected = max(messages) + 1 if at in messages else at
            assert made.message_id == expected
            messages[expected] = text

    @rule(session=sessions, agent=agents, text=texts, at=st.integers(0, 8))
    def redact_message(self, session: str, agent: str, text: str, at: int) -> None:
        """A redaction is what is read from then on."""
        read = self.repository.read_message(session, agent, at)
        found = self._agent(session, agent)
        messages = {} if found is None else found["messages"]
        assert (read is None) == (at not in messages)
        if read is not None:
            read.redact_message = message_of(text)
            self.repository.update_message(session, agent, read)
            messages[at] = text

    @rule(
        session=sessions,
        agent=agents,
        limit=st.none() | st.integers(0, 4),
        offset=st.integers(0, 5),
    )
    def list_messages(self, session: str, agent: str, limit: int | None, offset: int) -> None:
        """A list is a slice of what was stored, in the order of ids."""
        found = self._agent(session, agent)
        try:
            listed = self.repository.list_messages(session, agent, limit, offset)
        except SessionException:
            assert found is None
            return
        assert found is not None
        expected = sorted(found["messages"].items())[offset:]
        expected = expected if limit is None else expected[:limit]
        read = [(one.message_id, one.to_message()["content"][0]["text"]) for one in listed]
        assert read == expected

    @rule()
    def list_sessions(self) -> None:
        """All sessions that are there are listed, in order."""
        assert [one.session_id for one in self.repository.list_sessions()] == sorted(self.model)

    @rule()
    def forget(self) -> None:
        """Forgetting everything changes nothing."""
        self.repository.cache.clear()

    @invariant()
    def stays_within_its_bytes(self) -> None:
        """The cache never holds more than it may."""
        cache = self.repository.cache
        assert cache.current_bytes <= cache.max_bytes


faults = st.sampled_from(
    [None, None, "lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"]
)
writers = st.integers(0, 1)


class StaleWriters(RuleBasedStateMachine):
    """Two writers of one agent, each with its own cache, whose requests go wrong."""

    retry = FAST

    def __init__(self) -> None:
        super().__init__()
        self.database = LocalDatabase()
        self.next_fault: Fault | None = None
        self.faulty = FaultyDatabase(self.database, self._fault, duplicate_after=2)
        self.writers = [PerSQLSessionRepository(self.faulty, retry=self.retry) for _ in range(2)]
        self.acknowledged: list[list[str]] = [[], []]
        self.unsure: set[str] = set()
        self.held: list[SessionAgent | None] = [None, None]
        self.counters = [0, 0]  # each writer's own key, as last acknowledged
        self.wanted = [0, 0]
        self.number = 0

    def _fault(self, _: int) -> Fault | None:
        fault, self.next_fault = self.next_fault, None
        return fault

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
        made = SessionMessage.from_message(message_of(text), at)
        self.next_fault = fault
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
        self.next_fault = fault
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
        stored = [json.loads(row["data"])["message"]["content"][0]["text"] for row in rows]
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
