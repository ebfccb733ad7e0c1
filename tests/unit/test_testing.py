"""The doubles that users test their agents with."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from strands import Agent, tool
from strands.types.content import Messages

from strands_persql.databases.local import LocalDatabase
from strands_persql.databases.protocol import Result, Statement, Value
from strands_persql.testing import (
    CountingDatabase,
    Fault,
    FaultyDatabase,
    Redact,
    Reply,
    ScriptedModel,
    ToolCall,
)

ADD = "INSERT INTO t VALUES (?)"


@tool
def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"rain in {city}"


def agent_with(model: ScriptedModel) -> Agent:
    return Agent(model=model, tools=[weather], callback_handler=None)


@pytest.fixture
def local() -> Iterator[LocalDatabase]:
    with LocalDatabase() as database:
        database.query("CREATE TABLE t (a)")
        yield database


@pytest.fixture
def rows(local: LocalDatabase) -> Callable[[], list[int]]:
    return lambda: [row["a"] for row in local.query("SELECT a FROM t")["data"]]


class KeyedDatabase:
    """A database that takes idempotency keys, and keeps what it was given."""

    max_row_bytes = 2_000_000

    def __init__(self) -> None:
        self.keys: list[str | None] = []

    def query(
        self, sql: str, params: Sequence[Value] = (), /, *, idempotency_key: str | None = None
    ) -> Result:
        self.keys.append(idempotency_key)
        return {"data": []}

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False, **options: Any
    ) -> list[Result]:
        self.keys.append(options.get("idempotency_key"))
        return []


class TestScriptedModel:
    def test_it_says_its_replies(self) -> None:
        """An agent gets the script's texts in their order."""
        agent = agent_with(ScriptedModel(["Hello.", "Good-bye."]))

        assert [str(agent("hi")).strip(), str(agent("bye")).strip()] == ["Hello.", "Good-bye."]

    def test_it_calls_tools(self) -> None:
        """A tool call runs the agent's tool, whose result the next call is given."""
        model = ScriptedModel([ToolCall("weather", {"city": "Oslo"}, id="t1"), "It rains."])

        agent_with(model)("weather?")

        assert model.calls[1][-1]["content"] == [
            {
                "toolResult": {
                    "toolUseId": "t1",
                    "status": "success",
                    "content": [{"text": "rain in Oslo"}],
                }
            }
        ]

    def test_several_tools_in_one_message(self) -> None:
        """A list is one message, with text and tool calls of different ids."""
        calls = [ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome"})]
        agent = agent_with(ScriptedModel([["Let me look.", *calls], "Done."]))

        agent("weather?")

        text, one, other = agent.messages[1]["content"]
        assert text == {"text": "Let me look."}
        assert one["toolUse"]["toolUseId"] != other["toolUse"]["toolUseId"]
        assert len(agent.messages[2]["content"]) == 2

    def test_a_function_is_a_script(self) -> None:
        """A function is given the messages and gives the reply."""

        def echo(messages: Messages) -> Reply:
            return f"You said {messages[-1]['content'][0]['text']}."

        assert str(agent_with(ScriptedModel(echo))("boo")).strip() == "You said boo."

    def test_calls_are_copies(self) -> None:
        """What a call was given doesn't change when the conversation goes on."""
        model = ScriptedModel(["One.", "Two."])
        agent = agent_with(model)
        agent("first")
        agent("second")

        assert [len(messages) for messages in model.calls] == [1, 3]

    def test_it_raises_errors(self) -> None:
        """An error in the script is raised by the agent, which can go on afterwards."""
        agent = agent_with(ScriptedModel([ZeroDivisionError("boom"), "Well."]))

        with pytest.raises(ZeroDivisionError, match="boom"):
            agent("hi")
        assert str(agent("again")).strip() == "Well."

    def test_it_redacts(self) -> None:
        """A redaction replaces the user's message in the agent."""
        agent = agent_with(ScriptedModel([Redact("[gone]", reply="No.")]))

        result = agent("a secret")

        assert result.stop_reason == "guardrail_intervened"
        assert [message["content"] for message in agent.messages] == [
            [{"text": "[gone]"}],
            [{"text": "No."}],
        ]

    def test_the_end_of_the_script(self) -> None:
        """An agent that asks for more than the script has is told so."""
        agent = agent_with(ScriptedModel(["One."]))
        agent("hi")

        with pytest.raises(RuntimeError, match="script ended after 1 answers"):
            agent("more")

    def test_it_takes_its_time(self) -> None:
        """A delay is awaited: two agents on one loop wait at the same time."""

        async def both() -> None:
            agents = [agent_with(ScriptedModel(["Hi."], delay=0.5)) for _ in range(2)]
            await asyncio.gather(*(each.invoke_async("hi") for each in agents))

        begun = time.monotonic()
        asyncio.run(both())

        assert 0.5 <= time.monotonic() - begun < 0.95

    def test_one_text_is_no_script(self) -> None:
        """A bare text is refused rather than said letter by letter."""
        with pytest.raises(TypeError, match="in a list"):
            ScriptedModel("Hello.")

    def test_no_structured_output(self) -> None:
        """What the script can't do says what can."""
        with pytest.raises(NotImplementedError, match="ToolCall"):
            ScriptedModel([]).structured_output(dict, [])

    def test_it_has_a_configuration(self) -> None:
        """The configuration is what was set."""
        model = ScriptedModel([])
        model.update_config(context_window_limit=1000)

        assert model.get_config()["context_window_limit"] == 1000
        assert model.stateful is False


class TestCountingDatabase:
    def test_it_counts_round_trips(self, local: LocalDatabase) -> None:
        """A query is a round trip, and so is a batch of any length, failed ones included."""
        counting = CountingDatabase(local)
        counting.query("SELECT 1")
        counting.batch([{"sql": "SELECT 2"}, {"sql": "SELECT ?", "params": [3]}])
        with pytest.raises(sqlite3.OperationalError):
            counting.query("SELECT nothing")

        assert counting.round_trips == 3
        assert [[each["sql"] for each in call] for call in counting.log] == [
            ["SELECT 1"],
            ["SELECT 2", "SELECT ?"],
            ["SELECT nothing"],
        ]

    def test_reset(self, local: LocalDatabase) -> None:
        """After a reset counting begins anew."""
        counting = CountingDatabase(local)
        counting.query("SELECT 1")
        counting.reset()

        assert (counting.round_trips, counting.log) == (0, [])

    def test_latency(self, local: LocalDatabase) -> None:
        """Each round trip takes at least the latency."""
        counting = CountingDatabase(local, latency=0.02)
        begun = time.monotonic()
        counting.batch([{"sql": "SELECT 1"}, {"sql": "SELECT 1"}])

        assert time.monotonic() - begun >= 0.02

    def test_results_come_through(self, local: LocalDatabase) -> None:
        """Results and transactions are the wrapped database's."""
        counting = CountingDatabase(local)
        with pytest.raises(sqlite3.OperationalError):
            counting.batch([{"sql": ADD, "params": [1]}, {"sql": "oops"}], transaction=True)

        assert counting.query("SELECT count(*) AS n FROM t")["data"] == [{"n": 0}]

    def test_keys_go_to_those_who_take_them(self, local: LocalDatabase) -> None:
        """An idempotency key is handed on where it is taken, and dropped where it isn't."""
        keyed = KeyedDatabase()
        for database in (keyed, local):
            counting = CountingDatabase(database)
            counting.query("SELECT 1", idempotency_key="k1")
            counting.batch([{"sql": "SELECT 1"}], idempotency_key="k2")
        CountingDatabase(keyed).query("SELECT 1")

        assert keyed.keys == ["k1", "k2", None]

    def test_limit_and_close_are_the_wrapped_ones(self) -> None:
        """The row limit is handed up; closing closes what can be closed."""
        local = LocalDatabase()
        CountingDatabase(local).close()
        CountingDatabase(KeyedDatabase()).close()

        assert CountingDatabase(local).max_row_bytes is None
        assert CountingDatabase(KeyedDatabase()).max_row_bytes == 2_000_000
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            local.query("SELECT 1")


class TestFaultyDatabase:
    @pytest.mark.parametrize(
        ("fault", "error", "left"),
        [
            ("lost_request", ConnectionRefusedError, []),
            ("lost_answer", ConnectionResetError, [1]),
            ("locked", sqlite3.OperationalError, []),
        ],
    )
    def test_errors(
        self,
        local: LocalDatabase,
        rows: Callable[[], list[int]],
        fault: Fault,
        error: type[Exception],
        left: list[int],
    ) -> None:
        """A lost request and a lock leave nothing, a lost answer leaves what was written."""
        faulty = FaultyDatabase(local, [fault])

        with pytest.raises(error):
            faulty.batch([{"sql": ADD, "params": [1]}], transaction=True)
        assert rows() == left

    def test_a_duplicate_runs_twice(
        self, local: LocalDatabase, rows: Callable[[], list[int]]
    ) -> None:
        """A duplicate is applied twice and gives the second answer."""
        faulty = FaultyDatabase(local, ["duplicate"])

        result = faulty.query("INSERT INTO t SELECT count(*) FROM t RETURNING a")

        assert result["data"] == [{"a": 1}]
        assert rows() == [0, 1]

    def test_a_delayed_duplicate_arrives_later(
        self, local: LocalDatabase, rows: Callable[[], list[int]]
    ) -> None:
        """A copy of the call, as it was, arrives so many calls later."""
        faulty = FaultyDatabase(local, ["delayed_duplicate"], duplicate_after=2)
        params: list[Value] = [1]
        faulty.query(ADD, params)
        params[0] = 99
        faulty.query(ADD, [2])
        assert rows() == [1, 2]
        faulty.query(ADD, [3])

        assert rows() == [1, 2, 1, 3]

    def test_a_late_failure_is_unheard(
        self, local: LocalDatabase, rows: Callable[[], list[int]]
    ) -> None:
        """A late copy that fails is nobody's error; those under way can be let in."""
        faulty = FaultyDatabase(local, ["delayed_duplicate", "delayed_duplicate"])
        faulty.query("CREATE TABLE u (a)")
        faulty.query(ADD, [1])
        faulty.deliver_late()
        faulty.deliver_late()

        assert rows() == [1, 1]

    def test_faults_come_in_turn(self, local: LocalDatabase) -> None:
        """Calls take the faults in turn, and go well when there are no more."""
        faulty = FaultyDatabase(local, [None, "locked"])
        faulty.query("SELECT 1")
        with pytest.raises(sqlite3.OperationalError):
            faulty.query("SELECT 1")
        faulty.query("SELECT 1")

        assert faulty.injected == [(1, "locked")]

    def test_a_function_decides(self, local: LocalDatabase) -> None:
        """A function is given each call's number."""
        faulty = FaultyDatabase(local, lambda call: "locked" if call == 1 else None)
        faulty.query("SELECT 1")
        with pytest.raises(sqlite3.OperationalError):
            faulty.query("SELECT 1")

    def test_unknown_faults(self, local: LocalDatabase) -> None:
        """A fault that isn't one is refused with the list of those that are."""
        faulty = FaultyDatabase(local, ["earthquake"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="lost_request, lost_answer"):
            faulty.query("SELECT 1")
        with pytest.raises(TypeError, match="list"):
            FaultyDatabase(local, "locked")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="duplicate_after"):
            FaultyDatabase(local, [], duplicate_after=0)

    def test_wrappers_nest(self, local: LocalDatabase) -> None:
        """A faulty database around a counting one shows which requests arrived."""
        counting = CountingDatabase(local)
        faulty = FaultyDatabase(counting, ["lost_request", "duplicate"])
        with pytest.raises(ConnectionRefusedError):
            faulty.query("SELECT 1")
        faulty.query("SELECT 1")

        assert counting.round_trips == 2
        assert repr(faulty) == "FaultyDatabase(CountingDatabase(LocalDatabase(':memory:')))"
