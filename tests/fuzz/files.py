"""A fuzzer over damaged files: whatever bytes are flipped, only errors of ours come of it.

Run it at any size with `python -m tests.fuzz.files --runs 2000 --seed 1`. A failing file is
printed with its number; `--seed` and `--only NUMBER` make it again.
"""

import asyncio
import io
import logging
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from strands import Agent
from strands.types.exceptions import SessionException
from strands.types.session import SessionMessage

from strands_persql import (
    LocalDatabase,
    PerSQLError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
)
from strands_persql.admin import SessionAdmin
from strands_persql.testing import ScriptedModel, ToolCall
from tests.fuzz import program
from tests.support.conversation import Team, count, session, session_agent, user

try:
    from strands_persql.snapshots import PerSQLStorage
except ImportError:  # of newer versions of Strands
    PerSQLStorage = None  # type: ignore[assignment,misc]

NEVER = RetryPolicy.never()
_PAGE = 4096
_HEADER = 12


class Fuzz:
    """One damaged file after the other, each drawn by its number.

    Attributes:
        ends: How often which end came of which operation.
    """

    def __init__(self, seed: int) -> None:
        """Make a file that agents have lived in, with free pages and a log."""
        self.ends: Counter[str] = Counter()
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "agents.db"
        with LocalDatabase(self._path) as database:
            _live(database)
            log = self._path.with_name("agents.db-wal").read_bytes()
        self._whole, self._log = self._path.read_bytes(), log
        logging.getLogger("strands_persql").addHandler(logging.NullHandler())

    def close(self) -> None:
        """Delete the file."""
        self._folder.cleanup()

    def run(self, number: int) -> None:
        """Draw a damage, and see that each operation ends in words.

        Raises:
            Exception: What came of it that isn't an error of ours.
        """
        draw = Random(f"{self._seed}.{number}")  # noqa: S311 - damage, not secrets
        self._path.write_bytes(damaged(self._whole, draw))
        if draw.random() < 0.2:
            log = damaged(self._log, draw) if draw.random() < 0.5 else self._log
            self._path.with_name("agents.db-wal").write_bytes(log)
        try:
            self._operate(draw)
        finally:
            for one in self._path.parent.glob("agents.db*"):
                one.unlink()

    def _operate(self, draw: Random) -> None:
        try:
            database = LocalDatabase(self._path, statement_timeout=2.0, busy_timeout=0.2)
        except PerSQLError as error:
            self.ends[f"open: {type(error).__name__}"] += 1
            return
        operations = [*_operations(database)]
        draw.shuffle(operations)
        with closing(database):
            for name, operation in operations:
                self.ends[f"{name}: {_end_of(operation)}"] += 1


def _end_of(operation: Callable[[], Any]) -> str:
    try:
        operation()
    except PerSQLError as error:
        if not str(error).isprintable():
            raise AssertionError(f"{error!r} forges lines") from error
        return type(error).__name__
    except SessionException as error:  # an agent that was not opened can't be used
        return type(error).__name__
    return "sound"


def _operations(database: LocalDatabase) -> Iterator[tuple[str, Callable[[], Any]]]:
    repository = PerSQLSessionRepository(database, retry=NEVER)
    admin = SessionAdmin(database, retry=NEVER)
    yield from (
        ("list_sessions", repository.list_sessions),
        ("read_session", partial(repository.read_session, "s1")),
        ("read_agent", partial(repository.read_agent, "s1", "a")),
        ("list_messages", partial(repository.list_messages, "s2", "a")),
        ("read_message", partial(repository.read_message, "s2", "a", 1)),
        ("read_multi_agent", partial(repository.read_multi_agent, "s1", "team")),
        ("create_session", partial(repository.create_session, session("new"))),
        ("update_agent", partial(repository.update_agent, "s1", session_agent("a", n=1))),
        (
            "create_message",
            partial(repository.create_message, "s2", "a", SessionMessage(user("x"), 99)),
        ),
        ("update_message", partial(repository.update_message, "s2", "a", _message())),
        ("delete_session", partial(repository.delete_session, "s3")),
        ("setup", repository.setup),
        ("turn", partial(_turn, database, "s1")),
        ("new session", partial(_turn, database, "s9")),
        ("team", partial(_team, database)),
        ("admin list", partial(admin.list_sessions, order="activity", counts=True)),
        ("admin agents", partial(admin.list_agents, "s1", counts=True)),
        ("admin teams", partial(admin.list_multi_agents, "s1")),
        ("transcript", partial(admin.transcript, "s1", "a")),
        ("measure", admin.measure),
        ("check", lambda: [*admin.check()]),
        ("search", partial(repository.search, "go")),
        ("search in one", partial(admin.search, "go", session_id="s1")),
        ("owner's list", repository.for_owner("ada").list_sessions),
        ("owner's check", lambda: [*SessionAdmin(database, retry=NEVER, owner="ada").check()]),
        ("export", lambda: admin.export_archive(io.BytesIO())),
        ("erase", partial(admin.erase, "s2")),
        ("missing_sql", admin.missing_sql),
    )
    if PerSQLStorage is not None:
        storage = PerSQLStorage(database, retry=NEVER)
        yield "storage read", lambda: asyncio.run(storage.read("k1"))
        yield "storage write", lambda: asyncio.run(storage.write("k2", b"y" * 3_000))
        yield "storage list", lambda: asyncio.run(storage.list(""))
        yield "storage delete", lambda: asyncio.run(storage.delete("k3"))


def _message() -> SessionMessage:
    return SessionMessage(user("gone"), 1, redact_message=user("gone"))


def _turn(database: LocalDatabase, session_id: str) -> None:
    with PerSQLSessionManager(session_id, database, retry=NEVER) as manager:
        model = ScriptedModel([ToolCall("count"), "well"])
        agent = Agent(
            model=model,
            session_manager=manager,
            agent_id="a",
            tools=[count],
            callback_handler=None,
        )
        agent("go on")


def _team(database: LocalDatabase) -> None:
    manager = PerSQLSessionManager("s1", database, retry=NEVER)
    team = Team()
    manager.initialize_multi_agent(team)
    team.state["later"] = 1
    manager.sync_multi_agent(team)


def _live(database: LocalDatabase) -> None:
    repository = PerSQLSessionRepository(database, search=True)
    repository.setup()
    repository.for_owner("ada").create_session(session("s1"))
    for number in range(12):
        manager = PerSQLSessionManager(f"s{number}", repository=repository)
        model = ScriptedModel(["hi", ToolCall("count"), "one"])
        agent = Agent(
            model=model,
            session_manager=manager,
            agent_id="a",
            tools=[count],
            callback_handler=None,
        )
        agent("hello " + "x" * 300 * number)
        agent("count")
        if number == 1:
            manager.initialize_multi_agent(Team(step=1))
    if PerSQLStorage is not None:
        storage = PerSQLStorage(database)
        for number in range(6):
            asyncio.run(storage.write(f"k{number}", b"v" * 2_000 * (number + 1)))
    repository.search("hello")
    for number in range(8, 12):
        repository.delete_session(f"s{number}")
    repository.list_messages("s1", "a")


def damaged(whole: bytes, draw: Random) -> bytes:
    """Return a file with some bytes changed, mostly where SQLite keeps its books."""
    data = bytearray(whole)
    if len(data) < _PAGE:
        return whole
    for _ in range(draw.choice((1, 2, 5, 20))):
        data[_place(data, draw)] = draw.choice((0, 0xFF, draw.randrange(256)))
    ending = draw.random()
    if ending < 0.05:
        return bytes(data[: draw.randrange(len(data))])
    if ending < 0.1 and len(data) > 2 * _PAGE:
        one, other = (draw.randrange(len(data) // _PAGE) * _PAGE for _ in range(2))
        data[one : one + _PAGE] = data[other : other + _PAGE]
    return bytes(data)


def _place(data: bytearray, draw: Random) -> int:
    pages = max(1, len(data) // _PAGE)
    page = draw.randrange(pages) * _PAGE
    kind = draw.random()
    if kind < 0.15:
        place = draw.randrange(100)
    elif kind < 0.5:
        place = page + draw.randrange(64 if page else 164)
    elif kind < 0.6:
        (trunk,) = struct.unpack(">I", data[32:36])
        first = (trunk - 1) * _PAGE if 0 < trunk <= pages else page
        place = first + draw.randrange(_HEADER)
    else:
        place = draw.randrange(len(data))
    return min(place, len(data) - 1)


if __name__ == "__main__":
    program.main(Fuzz, "file", 500, __doc__)
