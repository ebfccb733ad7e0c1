"""A fuzzer over stored rows: whatever a row is like, it costs that row and nothing else.

Run it at any size with `python -m tests.fuzz.rows --runs 10000 --seed 1`. A failing row is printed
with its number; `--seed` and `--only NUMBER` make it again.
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple

from strands import Agent
from strands.agent.conversation_manager import (
    NullConversationManager,
    SlidingWindowConversationManager,
)
from strands.types.session import SessionMessage

from strands_persql import (
    LocalDatabase,
    PerSQLError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
)
from strands_persql.admin import SessionAdmin
from strands_persql.admin.catalogue import Order
from strands_persql.errors import CorruptRowError
from strands_persql.testing import Redact, ScriptedModel, ToolCall
from tests.fuzz import program
from tests.fuzz.answers import mutated
from tests.support.conversation import Team, count

TABLES = {
    "strands_sessions": ("session_id",),
    "strands_agents": ("session_id", "agent_id"),
    "strands_messages": ("session_id", "agent_id", "message_id"),
    "strands_multi_agents": ("session_id", "multi_agent_id"),
    "strands_checkpoints": ("session_id", "agent_id", "checkpoint_id"),
    "strands_contents": ("session_id", "digest", "place"),
}
_LARGE = 300_000  # characters: kept apart from its row
_GONE_BACK_WITH = ("strands_agents", "strands_checkpoints", "strands_contents")
PATIENCE = RetryPolicy(budget=2.0, first_wait=0.001, max_wait=0.01, conflict_attempts=5)
DEEP = "[" * 100_000
TEXTS = (
    "",
    "{",
    "null",
    "[]",
    "3",
    '"text"',
    "{}",
    '{"message": 3}',
    DEEP,
    '{"a":' * 1_500 + "1" + "}" * 1_500,
    '{"message":' + DEEP,
    "\x00",
    "'; DROP TABLE strands_messages; --",
    "\u202e\r\nERROR forged",
    "[[0,3],[1,2]]",
    "[[2,1]]",
    "[[]]",
    "[[0]]",
    '[["a","b"]]',
    "[[0,1e999]]",
    "[[-1,9007199254740993]]",
    "[3]",
    '[{"role":"user"}]',
    '[{"role":"user","content":"x"}]',
    "[[[0,1]]]",
)
VALUES: tuple[Any, ...] = (*TEXTS, b"", b"\xff\xfe", b"{}", -1, 0, 7, 1.5, 2**53, -(2**60), 1e300)


@dataclass(frozen=True)
class Damage:
    """What was done to a row.

    Attributes:
        table: The row's table.
        key: Its primary key.
        column: Which of its columns.
        value: What that has now.
        sql: The expression that put it there.
    """

    table: str
    key: tuple[Any, ...]
    column: str
    value: Any
    sql: str = "?"

    def statement(self) -> dict[str, Any]:
        """Return what does it."""
        where = " AND ".join(f"{name} = ?" for name in TABLES[self.table])
        sql = f"UPDATE {self.table} SET {self.column} = {self.sql} WHERE {where}"
        return {"sql": sql, "params": (self.value, *self.key)}


class Point(NamedTuple):
    """A checkpoint."""

    session_id: str
    agent_id: str
    checkpoint_id: str


class Fuzz:
    """One damaged row after the other, each drawn by its number.

    Attributes:
        ends: How often which end came of what.
    """

    def __init__(self, seed: int) -> None:
        """Store the sessions whose rows are damaged."""
        self.ends: Counter[str] = Counter()
        self._seed = seed
        self._database = LocalDatabase()
        _live(self._database)
        self._rows = {
            table: self._database.query(f"SELECT * FROM {table}")["data"] for table in TABLES
        }
        self._warnings = _Warnings()

    def close(self) -> None:
        """Drop the sessions."""
        self._database.close()

    def run(self, number: int) -> None:
        """Draw a damage, and see that it costs its row alone.

        Raises:
            AssertionError: If it costs more.
        """
        self.damaged(self._draw(Random(f"{self._seed}.{number}")))  # noqa: S311 - no secrets

    def damaged(self, damage: Damage) -> None:
        """See that a damage costs its row alone.

        Raises:
            AssertionError: If it costs more.
        """
        self._restore()
        self._database.batch([damage.statement()])  # type: ignore[list-item]
        with self._warnings:
            self._others()
            self._reads(damage)
            self._catalogue()
            self._warnings.lines.clear()
            is_refused = self._opens_strictly(damage)
            assert not self._warnings.lines
            self._opens(damage)
            assert is_refused == bool(self._warnings.lines) or self._is_beyond_writing(damage)
            self._goes_back(damage)
            self._goes(damage)

    def _restore(self) -> None:
        statements: list[Any] = [{"sql": f"DELETE FROM {table}"} for table in TABLES]
        for table, rows in self._rows.items():
            for row in rows:
                marks = ", ".join("?" * len(row))
                sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
                statements.append({"sql": sql, "params": tuple(row.values())})
        for first in range(0, len(statements), 100):
            self._database.batch(statements[first : first + 100], transaction=True)

    def _draw(self, draw: Random) -> Damage:
        table = draw.choice(tuple(TABLES))
        row = draw.choice([one for one in self._rows[table] if one["session_id"] == "s"])
        key = tuple(row[name] for name in TABLES[table])
        columns = [name for name in row if name not in TABLES[table]]
        column = draw.choice(["data", "data", "data", *columns])
        if str(row[column])[:1] in ("{", "[") and draw.random() < 0.7:
            text = json.dumps(mutated(json.loads(row[column]), draw))
            return Damage(table, key, column, text, draw.choice(("?", "?", "?", "CAST(? AS BLOB)")))
        if draw.random() < 0.2 and isinstance(row[column], str):
            raw = bytearray(row[column].encode() or b"x")
            raw[draw.randrange(len(raw))] = draw.choice((0x00, 0x22, 0x80, 0xFF))
            return Damage(table, key, column, bytes(raw), "CAST(? AS TEXT)")
        values = [one for one in VALUES if column != "window_start" or not isinstance(one, int)]
        return Damage(table, key, column, draw.choice(values))

    # -- what must hold ------------------------------------------------------------------------

    def _others(self) -> None:
        """Other sessions are as they were, and stay in every list."""
        repository = self._repository()
        other = repository.read_agent("t", "a")
        assert other is not None
        assert other.state == {"n": 1}
        assert len(repository.list_messages("t", "a")) == 4
        assert [one.session_id for one in repository.list_sessions()] == ["s", "t"]
        assert [one.session_id for one in repository.list_sessions(limit=1)] == ["s"]

    def _reads(self, damage: Damage) -> None:
        """A direct read gives what is stored, or says which row can't be read."""
        repository = self._repository()
        reads: list[Callable[[], Any]] = [
            partial(repository.read_session, "s"),
            partial(repository.read_multi_agent, "s", "team"),
            *(partial(repository.read_agent, "s", one) for one in ("a", "b")),
            *(partial(repository.list_messages, "s", one) for one in ("a", "b")),
            *(
                partial(repository.read_message, "s", row["agent_id"], row["message_id"])
                for row in self._rows["strands_messages"]
                if row["session_id"] == "s"
            ),
        ]
        for read in reads:
            error = self._error_of(read)
            if error is None:
                self.ends["read"] += 1
            else:
                self.ends[f"CorruptRowError {error.table}"] += 1
                self._is_named(damage, error)

    @staticmethod
    def _error_of(read: Callable[[], Any]) -> CorruptRowError | None:
        try:
            read()
        except CorruptRowError as error:
            return error
        return None

    def _catalogue(self) -> None:
        """What an administrator asks for comes, whatever the row is like."""
        admin = SessionAdmin(self._database, retry=PATIENCE)
        orders: tuple[Order, ...] = ("id", "activity")
        for order in orders:
            for counts in (False, True):
                page = admin.list_sessions(order=order, counts=counts)
                assert {one.session_id for one in page.items} == {"s", "t"}
        assert {one.agent_id for one in admin.list_agents("s", counts=True)} == {"a", "b"}
        assert len(admin.list_multi_agents("s")) == 1
        for agent in ("a", "b"):
            expected = sum(
                1
                for row in self._rows["strands_messages"]
                if (row["session_id"], row["agent_id"]) == ("s", agent)
            )
            assert len(admin.transcript("s", agent).items) == expected
            part = admin.transcript("s", agent, limit=3)
            found = len(part.items)
            while part.next is not None:
                part = admin.transcript("s", agent, limit=3, after=part.next)
                found += len(part.items)
            assert found == expected
        admin.measure()
        list(admin.check())
        archive = io.BytesIO()
        assert admin.export_archive(archive).sessions == 2
        with LocalDatabase() as copy:
            archive.seek(0)
            try:
                SessionAdmin(copy, retry=PATIENCE).import_archive(archive)
            except PerSQLError as error:
                self.ends[f"import: {type(error).__name__}"] += 1

    def _is_beyond_writing(self, damage: Damage) -> bool:
        """Whether the row can't be written: it doesn't say which version of which row it is."""
        if damage.table not in ("strands_agents", "strands_multi_agents"):
            return False
        where = " AND ".join(f"{name} = ?" for name in TABLES[damage.table])
        sql = f"SELECT version, write_id FROM {damage.table} WHERE {where}"
        (row,) = self._database.query(sql, damage.key)["data"]
        return not (isinstance(row["version"], int) and isinstance(row["write_id"], str))

    def _opens(self, damage: Damage) -> None:
        """The session opens, and its agents go on with what can be read."""
        manager = PerSQLSessionManager("s", self._database, retry=PATIENCE)
        team, agents = Team(), []
        for name in ("a", "b", "team"):
            if self._is_beyond_writing(damage) and name in damage.key:
                self._refuses(manager, name, damage)
            elif name == "team":
                manager.initialize_multi_agent(team)
                team.state["later"] = 1
                manager.sync_multi_agent(team)
            else:
                agents.append(_agent(manager, name))
        for agent in agents:
            # What can be read needn't make sense: others may have written that.
            is_whole = not self._warnings.lines
            _check_valid(agent.messages, roles=not is_whole)
            agent("go on")
            _check_valid(agent.messages, roles=not is_whole)
        agents[-1].messages[-2]["content"].append({"text": "edited"})
        agents[-1]("and on")
        manager.close()
        again = PerSQLSessionManager("s", self._database, retry=PATIENCE)
        for agent in agents:
            fresh = _agent(again, agent.agent_id)
            assert fresh.messages[-1]["content"] == [{"text": "well"}]
            assert fresh.messages == agent.messages
            assert json.dumps(fresh.state.get()) == json.dumps(agent.state.get())  # with NaN

    def _opens_strictly(self, damage: Damage) -> bool:
        """Return whether what opens raises where it is to; it writes nothing then."""
        errors = [self._error_of(partial(self._open, one)) for one in ("a", "b", "team")]
        for error in filter(None, errors):
            self._is_named(damage, error)
        return any(errors)

    def _open(self, name: str) -> None:
        manager = PerSQLSessionManager("s", self._database, retry=PATIENCE, strict=True)
        if name == "team":
            manager.initialize_multi_agent(Team())
        else:
            _agent(manager, name)

    def _goes_back(self, damage: Damage) -> None:
        """Checkpoints can be listed, gone back to, kept and removed, but for a damaged one."""
        if damage.table not in _GONE_BACK_WITH or self._is_beyond_writing(damage):
            return
        repository = self._repository()
        points = [
            Point(row["session_id"], row["agent_id"], row["checkpoint_id"])
            for row in self._rows["strands_checkpoints"]
            if row["checkpoint_id"]
        ]
        listed = {one.checkpoint_id for one in repository.list_checkpoints("s")}
        for point in points:
            error = self._error_of(partial(repository.rewind_session, *point))
            if error is not None:
                self.ends[f"CorruptRowError {error.table}"] += 1
                self._is_named(damage, error)
            assert (error is None) == (point.checkpoint_id in listed)
        manager = PerSQLSessionManager("s", self._database, retry=PATIENCE)
        for name in ("a", "b"):
            agent = _agent(manager, name)
            manager.checkpoint(agent, "anew")
            agent("on")
            manager.rewind(agent, 1)
        repository.truncate_session("s", "a")
        _agent(PerSQLSessionManager("s", self._database, retry=PATIENCE), "a")("and on")

    def _goes(self, damage: Damage) -> None:
        """What is damaged can be replaced, and deleted with its session."""
        repository = self._repository()
        if damage.table == "strands_messages":
            agent_id, message_id = damage.key[1:]
            said: Any = {"role": "user", "content": [{"text": "anew"}]}
            try:
                repository.update_message("s", agent_id, SessionMessage(said, message_id))
            except CorruptRowError as error:
                self._is_named(damage, error)
        repository.delete_session("s")
        for table in TABLES:
            left = self._database.query(f"SELECT 1 FROM {table} WHERE session_id = 's'")["data"]
            assert not left, table

    @staticmethod
    def _is_named(damage: Damage, error: CorruptRowError) -> None:
        assert str(error).isprintable()
        if damage.table == "strands_contents":  # what is kept apart is named by who refers to it
            assert error.table in TABLES
        else:
            assert (error.table, error.key) == (damage.table, damage.key)

    def _refuses(self, manager: PerSQLSessionManager, name: str, damage: Damage) -> None:
        """Opening what can't be written raises, and names the row."""
        try:
            if name == "team":
                manager.initialize_multi_agent(Team())
            else:
                _agent(manager, name)
        except CorruptRowError as error:
            self._is_named(damage, error)
        else:
            raise AssertionError(f"{name} was opened")

    def _repository(self) -> PerSQLSessionRepository:
        return PerSQLSessionRepository(self._database, retry=PATIENCE)


class _Warnings(logging.Handler):
    """What is warned of while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        assert line.isprintable(), line
        self.lines.append(line)

    def __enter__(self) -> "_Warnings":
        self.lines.clear()
        logger = logging.getLogger("strands_persql")
        logger.addHandler(self)
        self._propagated, logger.propagate = logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("strands_persql")
        logger.removeHandler(self)
        logger.propagate = self._propagated


def _agent(manager: PerSQLSessionManager, agent_id: str) -> Agent:
    replies: list[Any] = ["well"] * 3
    window = SlidingWindowConversationManager(window_size=6)
    return Agent(
        model=ScriptedModel(replies),
        session_manager=manager,
        agent_id=agent_id,
        tools=[count],
        conversation_manager=NullConversationManager() if agent_id == "a" else window,
        callback_handler=None,
    )


def _live(database: LocalDatabase) -> None:
    """Live through some turns of every kind."""
    manager = PerSQLSessionManager("s", database)
    replies: list[Any] = [
        "hi",
        [ToolCall("count"), ToolCall("count")],
        "two",
        Redact("[gone]"),
        *["well"] * 2,
    ]
    agent = Agent(
        model=ScriptedModel(replies),
        session_manager=manager,
        agent_id="a",
        tools=[count],
        conversation_manager=NullConversationManager(),
        callback_handler=None,
    )
    agent.state.set("notes", {"text": "naïve", "list": [1, None]})
    agent("hello")
    agent("count twice")
    secret: Any = [
        {"text": "a secret"},
        {"image": {"format": "png", "source": {"bytes": b"\x89P"}}},
    ]
    agent(secret)
    agent(f"large: {'x' * _LARGE}")
    manager.checkpoint(agent, "before the summary")
    agent.messages.insert(0, {"role": "assistant", "content": [{"text": "a summary"}]})
    agent.messages.insert(0, {"role": "user", "content": [{"text": "what came before?"}]})
    del agent.messages[3:5]
    manager.sync_agent(agent)
    manager.checkpoint(agent, "with the summary")
    agent("not meant")
    manager.rewind(agent, 1)
    other = Agent(
        model=ScriptedModel([ToolCall("count"), "1", ToolCall("count"), "2", "3"]),
        session_manager=manager,
        agent_id="b",
        tools=[count],
        conversation_manager=SlidingWindowConversationManager(window_size=6),
        callback_handler=None,
    )
    for text in ("one", "two", "three"):
        other(text)
        manager.checkpoint(other)
    manager.initialize_multi_agent(Team(step=1, nodes={"x": [1]}))
    manager.close()
    beside = PerSQLSessionManager("t", database)
    Agent(
        model=ScriptedModel([ToolCall("count"), "1"]),
        session_manager=beside,
        agent_id="a",
        tools=[count],
        callback_handler=None,
    )("count")
    beside.close()


def _check_valid(messages: list[Any], *, roles: bool) -> None:
    """See that a model can be asked with messages: roles in turn, each call with its result."""
    calls: set[str] = set()
    for index, message in enumerate(messages):
        if roles:
            assert message["role"] == ("user", "assistant")[index % 2], messages
        answered = {
            one["toolResult"]["toolUseId"] for one in message["content"] if "toolResult" in one
        }
        assert answered == calls, (index, messages)
        calls = {one["toolUse"]["toolUseId"] for one in message["content"] if "toolUse" in one}


if __name__ == "__main__":
    program.main(Fuzz, "row", 1_000, __doc__)
