"""The doubles that users test their agents with."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from strands import Agent, tool
from strands.types.content import Messages

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    Result,
    RetryPolicy,
    Statement,
    Value,
)
from strands_persql.testing import (
    CountingDatabase,
    Fault,
    FaultyDatabase,
    InterceptingDatabase,
    ManualClock,
    Redact,
    Reply,
    ScriptedModel,
    ToolCall,
    conformance,
)
from strands_persql.testing.conformance import Check, Connect

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


class BareDatabase:
    """A database of the two methods that are asked for, and nothing else."""

    def __init__(self) -> None:
        self._inner = LocalDatabase()

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        return self._inner.query(sql, params)

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> Sequence[Result]:
        return self._inner.batch(statements, transaction=transaction)


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

    def test_calls_need_not_be_recorded(self) -> None:
        """A model that records no calls keeps none, and answers all the same."""
        model = ScriptedModel(["One.", "Two."], record_calls=False)
        agent = agent_with(model)

        assert [str(agent("hi")).strip() for _ in "12"] == ["One.", "Two."]
        assert model.calls == []
        with pytest.raises(RuntimeError, match="script ended after 2 answers"):
            agent("more")

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

    def test_no_limit_is_no_limit_of_none(self) -> None:
        """Around a database that tells no limit none is told, so that the default holds."""
        assert not hasattr(CountingDatabase(BareDatabase()), "max_row_bytes")


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


class TestInterceptingDatabase:
    def test_it_is_told_what_is_sent_and_answered(self, local: LocalDatabase) -> None:
        """Before a round trip its statements are told, and after it the results beside them."""
        told: list[object] = []
        intercepting = InterceptingDatabase(
            local,
            before=lambda statements: told.append([one["sql"] for one in statements]),
            after=lambda _, results: told.append([one["data"] for one in results]),
        )
        intercepting.query("SELECT ? AS a", [1])
        intercepting.batch([{"sql": "SELECT 2 AS b"}, {"sql": "SELECT 3 AS c"}])

        assert told[:2] == [["SELECT ? AS a"], [[{"a": 1}]]]
        assert told[2:] == [["SELECT 2 AS b", "SELECT 3 AS c"], [[{"b": 2}], [{"c": 3}]]]

    def test_what_raises_before_sends_nothing(
        self, local: LocalDatabase, rows: Callable[[], list[int]]
    ) -> None:
        """An error before a round trip is its caller's, and nothing has run."""

        def refuse(_: Sequence[Statement]) -> None:
            raise TimeoutError("too early")

        with pytest.raises(TimeoutError, match="too early"):
            InterceptingDatabase(local, before=refuse).query(ADD, [1])
        assert rows() == []

    def test_what_raises_after_loses_the_answer(
        self, local: LocalDatabase, rows: Callable[[], list[int]]
    ) -> None:
        """An error after a round trip is its caller's, and the statements have run."""

        def lose(*_: object) -> None:
            raise TimeoutError("too late")

        intercepting = InterceptingDatabase(local, after=lose)
        with pytest.raises(TimeoutError, match="too late"):
            intercepting.batch([{"sql": ADD, "params": [1]}], transaction=True)
        assert rows() == [1]

    def test_another_answer_may_be_given(self, local: LocalDatabase) -> None:
        """What is returned after a round trip is its answer, and None leaves it as it was."""
        intercepting = InterceptingDatabase(local, after=lambda *_: [{"data": [{"a": 2}]}])
        assert intercepting.query("SELECT 1 AS a")["data"] == [{"a": 2}]

        intercepting.after = lambda *_: None
        assert intercepting.query("SELECT 1 AS a")["data"] == [{"a": 1}]

    def test_a_failed_round_trip_has_no_after(self, local: LocalDatabase) -> None:
        """Where the database raises, nothing is called after it."""
        told: list[object] = []
        intercepting = InterceptingDatabase(local, after=lambda *_: told.append(1))
        with pytest.raises(sqlite3.OperationalError):
            intercepting.query("SELECT nothing")

        assert told == []


class TestManualClock:
    def test_it_goes_on_when_it_is_told(self) -> None:
        """It shows its start until it is told to go on, and never goes back."""
        clock = ManualClock(5)
        assert (clock(), clock()) == (5, 5)
        clock.advance(2.5)
        assert clock() == 7.5
        with pytest.raises(ValueError, match="doesn't go back"):
            clock.advance(-1)
        assert repr(clock) == "ManualClock(7.5)"

    def test_it_is_the_clock_of_a_repository(self) -> None:
        """A session in memory is opened from there until the clock has gone on far enough."""
        clock, counting = ManualClock(), CountingDatabase(LocalDatabase())
        repository = PerSQLSessionRepository(counting, max_staleness=5, clock=clock)
        manager = PerSQLSessionManager("s", repository=repository)
        Agent(model=ScriptedModel([]), session_manager=manager, callback_handler=None)
        counting.reset()
        for seconds, round_trips in ((4, 0), (2, 1), (4, 1)):
            clock.advance(seconds)
            PerSQLSessionManager("s", repository=repository)
            assert counting.round_trips == round_trips

    def test_it_waits_for_retries(self, local: LocalDatabase) -> None:
        """As what a policy sleeps with, it goes on instead of waiting."""
        clock = ManualClock()
        faulty = FaultyDatabase(local, ["locked", "locked"])
        retry = RetryPolicy(first_wait=30, max_wait=60, sleep=clock.advance, budget=1e6)
        begun = time.monotonic()
        assert PerSQLSessionRepository(faulty, retry=retry).list_sessions() == []

        assert clock() > 0
        assert time.monotonic() - begun < 5


Rows = list[dict[str, Any]]


def answering(change: Callable[[Rows], Rows]) -> Callable[[], Connect]:
    """Let a database give other rows than it should."""
    return at(
        after=lambda _, results: [{"data": change([*one["data"]])} for one in results],
    )


def refusing(reason: Callable[[Sequence[Statement]], object]) -> Callable[[], Connect]:
    """Let a database refuse what it should take."""

    def refuse(statements: Sequence[Statement]) -> None:
        if reason(statements):
            raise AssertionError("I don't take that")

    return at(before=refuse)


def at(**options: Any) -> Callable[[], Connect]:
    """Make one database, to which all handles go through an interception."""

    def make() -> Connect:
        database = InterceptingDatabase(LocalDatabase(), **options)
        return lambda: database

    return make


def forgetful() -> Connect:
    """Keep tables alone: each handle finds them empty."""

    def connect() -> Database:
        database = LocalDatabase()
        if made:
            database.query("CREATE TABLE t (a TEXT, n INTEGER)")
        made.append(database)
        return database

    made: list[Database] = []
    return connect


class Mumbling(BareDatabase):
    """Doesn't say why it failed."""

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        try:
            return super().query(sql, params)
        except sqlite3.Error:
            raise RuntimeError("it failed") from None


class OneByOne(BareDatabase):
    """Knows no transactions, and takes its time between two statements."""

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> Sequence[Result]:
        results: list[Result] = []
        for statement in statements:
            results += super().batch([statement])
            time.sleep(0.0005)
        return results


class Unconditional(BareDatabase):
    """Updates whatever there is."""

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> Sequence[Result]:
        changed: list[Statement] = [
            {**one, "sql": one["sql"].replace("WHERE n =", "WHERE n IS NOT")} for one in statements
        ]
        return super().batch(changed, transaction=transaction)


def one(kind: type[BareDatabase]) -> Callable[[], Connect]:
    """Make one database of a kind, which has one handle."""

    def make() -> Connect:
        database = kind()
        return lambda: database

    return make


def says(word: str) -> Callable[[Sequence[Statement]], bool]:
    """Tell of statements whether they have a word."""
    return lambda statements: any(word in statement["sql"] for statement in statements)


WRONG: dict[Check, Callable[[], Connect]] = {
    conformance.rows_come_by_the_names_of_their_columns: answering(lambda rows: rows[::-1]),
    conformance.no_rows_are_an_empty_list: answering(lambda rows: rows or [{}]),
    conformance.text_and_null_are_bound_as_they_are: answering(
        lambda rows: [{name: value or "" for name, value in row.items()} for row in rows]
    ),
    conformance.whole_numbers_can_be_bound: answering(
        lambda rows: [{name: float(value) for name, value in row.items()} for row in rows]
    ),
    conformance.a_query_is_committed: forgetful,
    conformance.an_error_says_what_sqlite_says: one(Mumbling),
    conformance.a_batch_has_a_result_a_statement: at(after=lambda _, results: results[:1]),
    conformance.a_transaction_stays_when_it_ends_well: forgetful,
    conformance.a_transaction_that_fails_leaves_nothing: one(OneByOne),
    conformance.writes_return_rows: answering(lambda _: []),
    conformance.json_is_read_and_changed: refusing(says("json_set")),
    conformance.tables_may_be_made_and_described: refusing(says("pragma_table_info")),
    conformance.a_batch_may_be_long: refusing(lambda statements: len(statements) > 50),
    conformance.a_statement_may_be_long: refusing(lambda s: len(s[0]["sql"]) > 50_000),
    conformance.a_row_may_be_large: answering(
        lambda rows: [{name: str(value)[:9] for name, value in row.items()} for row in rows]
    ),
    conformance.a_handle_serves_several_threads: one(OneByOne),
    conformance.of_racing_updates_one_is_applied: one(Unconditional),
}


class TestConformance:
    def test_each_check_is_tried(self) -> None:
        """There is a wrong database for each check, and each check is public by its name."""
        assert {*WRONG} == {*conformance.CHECKS}
        assert [getattr(conformance, one.__name__) for one in WRONG] == [*WRONG]

    @pytest.mark.parametrize("check", WRONG, ids=lambda check: check.__name__)
    def test_a_wrong_database_fails_the_check(self, check: Check) -> None:
        """A database that is wrong in the way that a check is about fails it."""
        with pytest.raises(AssertionError):
            check(WRONG[check]())

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    def test_the_least_of_a_database_passes(self, check: Check) -> None:
        """A database that has no more than the two methods passes each check."""
        check(one(BareDatabase)())
