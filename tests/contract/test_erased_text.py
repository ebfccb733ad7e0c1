"""What was deleted or redacted is in no byte of a file's database when the call returns."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from strands import Agent
from strands.types.session import SessionMessage

from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    StatementError,
)
from strands_persql.admin import SessionAdmin
from strands_persql.testing import CountingDatabase, Redact, ScriptedModel
from tests.support.conversation import user

MARK = "s3cret of 1970"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


@pytest.fixture
def database(path: Path) -> Iterator[LocalDatabase]:
    with LocalDatabase(path) as made:
        yield made


def contents(path: Path) -> bytes:
    """Return the bytes of the database and of its log."""
    return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))


def talk(database: LocalDatabase, session_id: str = "s", *replies: str | Redact) -> Agent:
    """Say something secret in a session, and something else."""
    model = ScriptedModel(replies or ("hi", "well"))
    manager = PerSQLSessionManager(session_id, CountingDatabase(database))
    agent = Agent(model=model, session_manager=manager, agent_id="a", callback_handler=None)
    agent(f"{MARK} in {session_id} {'x' * 9_000}")
    agent("something else")
    return agent


def test_a_deleted_session_is_gone(database: LocalDatabase, path: Path) -> None:
    """After ``delete_session`` no byte of it is in the file or its log; others are as they were."""
    for session_id in ("s", "t"):
        talk(database, session_id)
    assert contents(path).count(f"{MARK} in s".encode()) > 0
    PerSQLSessionRepository(CountingDatabase(database)).delete_session("s")
    assert f"{MARK} in s".encode() not in contents(path)
    assert f"{MARK} in t".encode() in contents(path)


@pytest.mark.parametrize("purge", [True, False])
def test_an_erased_session_is_gone(database: LocalDatabase, path: Path, purge: bool) -> None:
    """So it is after an administrator's erasure, with a purge or without."""
    talk(database)
    SessionAdmin(database).erase("s", purge=purge)
    assert MARK.encode() not in contents(path)


class DamagedDatabase(LocalDatabase):
    """A file that can't be written anew."""

    def purge(self) -> bool:
        raise sqlite3.DatabaseError("database disk image is malformed")


def test_a_file_that_cant_be_purged_says_so(path: Path) -> None:
    """The error is one of ours, and the rows are gone all the same."""
    with DamagedDatabase(path) as damaged:
        talk(damaged)
        with pytest.raises(StatementError, match="could not be purged"):
            SessionAdmin(damaged).erase("s")
        assert PerSQLSessionRepository(damaged).read_session("s") is None


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_what_a_guardrail_redacts_is_gone(database: LocalDatabase, path: Path, commit: str) -> None:
    """When the invocation returns, a redacted prompt is nowhere, whenever it was stored."""
    manager = PerSQLSessionManager("s", database, commit=commit)  # type: ignore[arg-type]
    model = ScriptedModel([Redact("[gone]"), "well"])
    agent = Agent(model=model, session_manager=manager, callback_handler=None)
    agent(MARK)
    assert MARK.encode() not in contents(path)
    assert b"[gone]" in contents(path)


def test_what_a_repository_redacts_is_gone(database: LocalDatabase, path: Path) -> None:
    """When ``update_message`` returns, the text that it redacts is nowhere."""
    talk(database)
    repository = PerSQLSessionRepository(database)
    message = repository.read_message("s", "a", 0)
    assert message is not None
    message.redact_message = user("[gone]")
    message.message = user("[gone]")
    repository.update_message("s", "a", message)
    assert MARK.encode() not in contents(path)


def test_a_reader_elsewhere_is_named(
    database: LocalDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where others still read the old state the log keeps it, a warning says so, for a while."""
    talk(database)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM strands_messages").fetchall()
    PerSQLSessionRepository(database).delete_session("s")
    assert PerSQLSessionRepository(database).read_session("s") is None
    assert "call checkpoint() on the database later" in caplog.text
    reader.close()
    assert database.checkpoint()
    assert MARK.encode() not in contents(path)


def test_turns_pay_for_no_checkpoint(database: LocalDatabase, path: Path) -> None:
    """Without a deletion or redaction the log is left alone."""
    talk(database)
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size > 0


def test_an_edit_pays_for_no_checkpoint(database: LocalDatabase, path: Path) -> None:
    """A message that is replaced without being redacted leaves the log alone too."""
    talk(database)
    repository = PerSQLSessionRepository(database)
    repository.update_message("s", "a", SessionMessage(user("another"), 0))
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
