"""A state machine: the repository does what a dict would do."""

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql import LocalDatabase, PerSQLSessionRepository, SessionCache
from tests.support import machines
from tests.support.conversation import said, user

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


class AgainstAModel(RuleBasedStateMachine):
    """One repository with hardly any cache, and a dict that does what it should do."""

    def __init__(self) -> None:
        super().__init__()
        self.database = LocalDatabase()
        self.repository = PerSQLSessionRepository(
            self.database, cache=SessionCache(max_bytes=2_500)
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
        made = SessionMessage.from_message(user(text), at)
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
            read.redact_message = user(text)
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
        read = [(one.message_id, *said([one.to_message()])) for one in listed]
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


@machines.limited
@pytest.mark.guarantee(number=10)
def test_no_sequence_of_calls_gives_what_a_dict_would_not() -> None:
    """What is created, updated and deleted is what is read, however little the cache may hold."""
    machines.run(AgainstAModel)
