"""Children of a process that was writing when it forked."""

import os
import threading
from pathlib import Path

import pytest
from strands import Agent

from strands_persql import LocalDatabase, PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.testing import CountingDatabase, ScriptedModel

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def ask(repository: PerSQLSessionRepository, text: str) -> None:
    """Have a turn."""
    manager = PerSQLSessionManager("s", repository=repository)
    Agent(model=ScriptedModel(["ok"]), session_manager=manager, callback_handler=None)(text)


def test_a_child_goes_on_with_a_repository_that_was_writing(tmp_path: Path) -> None:
    """A fork in the middle of another thread's write leaves no lock behind in the child."""
    database = LocalDatabase(tmp_path / "agents.db")
    slow = CountingDatabase(database)
    repository = PerSQLSessionRepository(slow)
    ask(repository, "first")
    slow.latency = 0.2
    writing = threading.Thread(target=ask, args=(repository, "second"))
    writing.start()
    while slow.round_trips % 10 < 5 and writing.is_alive():
        pass
    child = os.fork()
    if child == 0:
        slow.latency = 0
        finished = threading.Thread(target=ask, args=(repository, "third"), daemon=True)
        finished.start()
        finished.join(10)
        os._exit(int(finished.is_alive()))
    assert os.waitpid(child, 0)[1] == 0
    writing.join()
    database.close()
