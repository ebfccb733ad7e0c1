"""A state machine: two real agents that stay warm on one session, whose requests go wrong."""

import contextlib
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strands import Agent
from strands.agent.conversation_manager import NullConversationManager
from strands.types.content import Message

from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
)
from strands_persql.errors import PerSQLError
from strands_persql.testing import Fault, ScriptedModel
from tests.support import machines
from tests.support.conversation import said
from tests.support.faults import Switch
from tests.support.machines import faults, writers


class WarmAgents(RuleBasedStateMachine):
    """Agents that stay warm while others write, called step by step as Strands does."""

    def __init__(self) -> None:
        super().__init__()
        self.database = LocalDatabase()
        self.faulty = Switch(self.database, duplicate_after=2)
        self.managers: list[PerSQLSessionManager] = []
        self.agents: list[Agent] = []
        self.said: list[list[str]] = [[], []]
        self.turns: list[list[str]] = []
        self.number = 0

    def _open(self) -> tuple[PerSQLSessionManager, Agent]:
        retry = RetryPolicy(budget=0.0, sleep=lambda _: None)
        repository = PerSQLSessionRepository(self.faulty, retry=retry)
        manager = PerSQLSessionManager("s", repository=repository)
        agent = Agent(
            model=ScriptedModel([]),
            agent_id="a",
            session_manager=manager,
            callback_handler=None,
            conversation_manager=NullConversationManager(),
        )
        return manager, agent

    @initialize()
    def start(self) -> None:
        """Both writers open the session."""
        for _ in range(2):
            manager, agent = self._open()
            self.managers.append(manager)
            self.agents.append(agent)

    def _say(self, writer: int, role: Any, fault: Fault | None) -> None:
        agent, manager = self.agents[writer], self.managers[writer]
        self.number += 1
        message: Message = {"role": role, "content": [{"text": f"{writer}:{self.number}"}]}
        agent.messages.append(message)
        self.said[writer].append(f"{writer}:{self.number}")
        self.faulty.next = [fault]
        with contextlib.suppress(PerSQLError):
            manager.append_message(message, agent)
        self.faulty.next = []

    @rule(writer=writers, faults=st.tuples(faults, faults))
    def turn(self, writer: int, faults: tuple[Fault | None, Fault | None]) -> None:
        """A question and its answer, whatever befalls their requests."""
        self._say(writer, "user", faults[0])
        self._say(writer, "assistant", faults[1])
        self.turns.append(self.said[writer][-2:])

    @rule(writer=writers)
    def begin_turn(self, writer: int) -> None:
        """A question whose answer comes after what the other writer does in between."""
        self._say(writer, "user", None)
        self._say(1 - writer, "user", None)
        self._say(1 - writer, "assistant", None)
        self._say(writer, "assistant", None)

    @rule(writer=writers, fault=faults)
    def count(self, writer: int, fault: Fault | None) -> None:
        """State that only one writer changes."""
        self.number += 1
        self.agents[writer].state.set(f"w{writer}", self.number)
        self.faulty.next = [fault]
        with contextlib.suppress(PerSQLError):
            self.managers[writer].sync_agent(self.agents[writer])
        self.faulty.next = []

    @rule(writer=writers)
    def restart(self, writer: int) -> None:
        """A writer stores what it holds and is opened anew, with the whole history."""
        self._flush(writer)
        manager, agent = self._open()
        assert said(agent.messages) == self._stored()
        assert agent.state.get(f"w{writer}") == self.agents[writer].state.get(f"w{writer}")
        self.managers[writer], self.agents[writer] = manager, agent

    def _flush(self, writer: int) -> None:
        self.faulty.next = []
        self.managers[writer].close()

    @rule()
    def stragglers_arrive(self) -> None:
        """What is late arrives."""
        self.faulty.deliver_late()

    def _stored(self) -> list[str]:
        rows = self.database.query("SELECT data FROM strands_messages ORDER BY message_id")["data"]
        return said(json.loads(row["data"])["message"] for row in rows)

    @invariant()
    def nothing_is_doubled(self) -> None:
        """No message stands twice in the database or in an agent's memory."""
        for agent in self.agents:
            heard = said(agent.messages)
            assert len(heard) == len(set(heard))
        if self.agents:
            stored = self._stored()
            assert len(stored) == len(set(stored))
            for writer in (0, 1):
                mine = [one for one in stored if one.startswith(f"{writer}:")]
                assert mine == self.said[writer][: len(mine)]

    def teardown(self) -> None:
        """In the end all that was said is there, each turn in one block."""
        if self.agents:
            for writer in (0, 1):
                self._flush(writer)
            self.faulty.deliver_late()
            stored = self._stored()
            for writer in (0, 1):
                assert [one for one in stored if one.startswith(f"{writer}:")] == self.said[writer]
            for question, answer in self.turns:
                assert stored.index(answer) == stored.index(question) + 1
        self.database.close()


@machines.limited
@pytest.mark.guarantee(number=2)
@pytest.mark.guarantee(number=3)
@pytest.mark.guarantee(number=14)
def test_warm_agents_lose_and_double_nothing() -> None:
    """No sequence of turns and faults loses or doubles a message, or takes a turn apart."""
    machines.run(WarmAgents)
