"""Storages are there where Strands has them, and cost nothing where nobody asks for them."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

import strands_persql

NAMES = [
    "FullTextSearch",
    "PerSQLStorage",
    "StorageConflictError",
    "session_from_snapshots",
    "snapshots_from_session",
]


def run_python(code: str) -> str:
    """Run code in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.skipif(find_spec("strands.storage") is None, reason="this Strands has no storages")
@pytest.mark.parametrize("name", NAMES)
def test_names_of_storages_are_found_when_they_are_asked_for(name: str) -> None:
    """Each name can be imported from the package, and is the one of its module."""
    from strands_persql import snapshots  # noqa: PLC0415 - not in older versions of Strands

    assert getattr(strands_persql, name) is getattr(snapshots, name)
    assert getattr(snapshots, name).__name__ == name


def test_other_names_are_missing_as_ever() -> None:
    """A name that isn't there is an AttributeError, as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = strands_persql.Nothing


def test_importing_the_package_imports_no_storage() -> None:
    """Who asks for no storage doesn't pay for its import."""
    code = "import sys, strands_persql; print('strands_persql.snapshots' in sys.modules)"

    assert run_python(code) == "False"


def test_an_older_strands_is_named() -> None:
    """Where Strands has no storages, the import says so, and which version is there."""
    code = (
        "import strands, strands_persql, sys; sys.modules['strands.storage'] = None\n"
        "try:\n    from strands_persql import PerSQLStorage\n"
        "except ImportError as error:\n    print(error)"
    )

    said = run_python(code)

    assert "strands.storage" in said
    assert "upgrade strands-agents" in said
    assert "PerSQLSessionManager" in said
