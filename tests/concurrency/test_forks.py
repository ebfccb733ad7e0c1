"""Children of a process that was writing when it forked."""

import os
import threading

import pytest

from strands_persql.testing import InterceptingDatabase
from tests.support.backends import Backend
from tests.support.conversation import in_database
from tests.support.racing import Gate, beside, exit_status

pytestmark = [
    pytest.mark.backends("file"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.mark.parametrize("round_trip", range(3))
def test_a_child_goes_on_with_a_repository_that_was_writing(
    backend: Backend, round_trip: int
) -> None:
    """A fork in the middle of another thread's write leaves no lock behind in the child."""
    gate, database = Gate(), InterceptingDatabase(backend.plain)
    repository = backend.repository(database)

    def ask(text: str) -> None:
        backend.agent(["ok"], manager=backend.manager(repository=repository))(text)

    def stop_at_the_gate(_: object) -> None:
        if next(left, None) is None:
            gate.wait()

    ask("first")
    left = iter(range(round_trip))
    database.before = stop_at_the_gate
    with beside(lambda: ask("second")):
        gate.reached()
        child = os.fork()
        if child == 0:
            database.before = None
            finished = threading.Thread(target=ask, args=("third",), daemon=True)
            finished.start()
            finished.join(10)
            os._exit(int(finished.is_alive()))
        assert exit_status(child) == 0
        gate.open()
    assert sorted(in_database(backend)) == sorted(["first", "second", "third", *["ok"] * 3])
