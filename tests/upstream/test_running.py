"""The runner of Strands' tests, tried on tests of our own."""

import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from tests.upstream import __main__ as program
from tests.upstream.waivers import WAIVERS, reasons

FILES = {
    "pyproject.toml": "[tool.pytest.ini_options]\n",
    "tests/fixtures/mock_session_repository.py": "class MockedSessionRepository: pass\n",
    "tests/test_theirs.py": """
        import pytest
        from strands.types.session import Session, SessionType
        from tests.fixtures.mock_session_repository import MockedSessionRepository

        @pytest.fixture
        def repository():
            return MockedSessionRepository()

        def test_by_a_fixture(repository):
            repository.create_session(Session("a", SessionType.AGENT))
            assert repository.read_session("a").session_id == "a"

        def test_imported_inside():
            from tests.fixtures.mock_session_repository import MockedSessionRepository
            assert MockedSessionRepository().read_session("a") is None

        def test_of_something_else():
            raise AssertionError("is not run")

        @pytest.mark.parametrize("inside", ["sessions", "agents"])
        def test_of_private_dicts(repository, inside):
            assert getattr(repository, inside) == {}
    """,
    # In place of the list of waivers, which is about Strands' tests.
    "conftest.py": """
        from upstream import waivers

        waivers.WAIVERS = (
            waivers.Waiver(
                ("repository",),
                "it reads private dicts",
                (waivers.Tests("tests/test_theirs.py", "", {names}),),
            ),
        )
    """,
}


def run(folder: Path, *waived: str) -> tuple[int, dict[str, int], str]:
    """Run the suite of the repository on our own tests, and return how it ended."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        code = textwrap.dedent(text).replace("{names}", repr(waived))
        (folder / name).write_text(code, "utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "upstream.plugin", "-p", "no:cacheprovider"),
            *("--suite", "repository", "--outcome", "outcome.json", "tests"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(program.ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    found = folder / "outcome.json"
    counts = json.loads(found.read_text("utf-8"))["counts"] if found.exists() else {}
    return done.returncode, counts, done.stdout + done.stderr


def test_ours_is_in_place_of_theirs(tmp_path: Path) -> None:
    """The tests that name what is replaced run on ours, and a waived one is expected to fail."""
    code, counts, output = run(tmp_path, "test_of_private_dicts")

    assert code == 0, output
    assert counts == {"deselected": 1, "passed": 2, "xfailed": 2}


def test_a_failure_without_a_waiver_fails_the_run(tmp_path: Path) -> None:
    """A test that ours doesn't hold and that isn't waived fails the run."""
    code, counts, output = run(tmp_path)

    assert (code, counts["failed"]) == (1, 2), output


def test_a_waiver_of_a_test_that_holds_fails_the_run(tmp_path: Path) -> None:
    """A waived test that passes fails the run."""
    code, counts, output = run(tmp_path, "test_of_private_dicts", "test_by_a_fixture")

    assert (code, counts["failed"]) == (1, 1), output
    assert "XPASS(strict)" in output


@pytest.mark.parametrize("gone", ["test_of_old", "test_of_something_else"])
def test_a_waiver_of_what_is_not_run_fails_the_run(tmp_path: Path, gone: str) -> None:
    """A waiver of a test that isn't there, or that uses nothing of ours, fails the run."""
    code, _, output = run(tmp_path, "test_of_private_dicts", gone)

    assert code == pytest.ExitCode.USAGE_ERROR
    assert f"take the waiver out: tests/test_theirs.py::{gone}" in output


def test_what_cannot_be_fetched_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package index the run ends with what is missing and what to do."""
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(SystemExit, match="could not be fetched from the package index"):
        program.fetch("1.62.0")


def test_only_tests_and_settings_are_unpacked(tmp_path: Path) -> None:
    """Of a source distribution the tests and settings are written, and nothing outside."""
    archive = tmp_path / "strands.tar.gz"
    names = ("pyproject.toml", "src/a.py", "tests/a.py", "tests/../../b.py", "tests/c/d.py")
    with tarfile.open(archive, "w:gz") as members:
        for name in names:
            member = tarfile.TarInfo(f"strands-1/{name}")
            member.size = 1
            members.addfile(member, io.BytesIO(b"#"))

    program.unpack(archive, tmp_path / "out")

    written = (path for path in tmp_path.rglob("*") if path.is_file() and path != archive)
    assert {str(path.relative_to(tmp_path / "out")) for path in written} == {
        "pyproject.toml",
        "tests/a.py",
        "tests/c/d.py",
    }


def test_each_version_has_its_waivers() -> None:
    """A waiver holds on the versions of Strands that have the test."""
    files = {tests.file for waiver in WAIVERS for tests in waiver.tests}
    old, new = (reasons("manager", version) for version in ("1.42.0", "1.62.0"))
    of_bidi = "tests/strands/session/test_repository_session_manager.py::test_append_bidi_message"

    assert all(file.startswith("tests/strands/") for file in files)
    assert (of_bidi in old, of_bidi in new) == (True, False)
    assert not reasons("repository", "1.62.0")
