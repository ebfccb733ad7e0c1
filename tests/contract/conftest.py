"""The contract holds for every one of these."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.contract import backends
from tests.contract.backends import Backend
from tests.engine.engine import Engine

# The persql SDK itself is one more, wherever it is installed.
KINDS = ["memory", "file", "sdk", "http", *(["persql"] if find_spec("persql") else [])]


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """An empty database of each kind."""
    folder: Path = request.getfixturevalue("tmp_path")
    if request.param == "http":
        engine: Engine = request.getfixturevalue("engine")
        opened = backends.http(engine, request.getfixturevalue("database_name"))
    elif request.param == "memory":
        opened = backends.memory()
    elif request.param == "file":
        opened = backends.file(folder)
    elif request.param == "persql":
        opened = backends.persql()
    else:
        opened = backends.sdk(folder)
    with opened as backend:
        yield backend
