"""What the tests of the command line share: a shell, and the database that it works on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli import Place, on_a_file, on_the_engine


@pytest.fixture(params=["file", "engine"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A shell, and the database that its commands work on."""
    if request.param == "file":
        opened = on_a_file(tmp_path)
    else:
        opened = on_the_engine(
            request.getfixturevalue("engine"), request.getfixturevalue("database_name")
        )
    with opened as found:
        yield found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Place]:
    """A shell beside a file."""
    with on_a_file(tmp_path) as found:
        yield found
