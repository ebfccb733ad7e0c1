"""The torture at the size of every day; `torture.py` says how to run it larger."""

from pathlib import Path
from typing import Any

import pytest

from tests.concurrency.torture import Report, main, torture
from tests.concurrency.writer import Settings
from tests.engine.engine import Engine


def run(folder: Path, engine: Engine | None = None, **options: Any) -> Report:
    return torture(Settings(folder, limit=60.0, memory=False, **options), engine=engine)


@pytest.mark.guarantee(number=2)
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_processes_on_a_file(tmp_path: Path, commit: str) -> None:
    """Four processes that are killed, on a file with faults, lose, double and mix up nothing."""
    report = run(
        tmp_path, operations=160, commit=commit, faults=True, kill=True, kill_every=0.7, seed=1
    )

    assert not report.violations, str(report)
    assert report.figures["kills"] > 0


@pytest.mark.guarantee(number=2)
@pytest.mark.guarantee(number=4)
def test_processes_over_the_engine(tmp_path: Path, engine: Engine) -> None:
    """Four processes over a faulty network without idempotency keys lose and double nothing."""
    report = run(tmp_path, engine, operations=100, faults=True, seed=2)

    assert not report.violations, str(report)


@pytest.mark.guarantee(number=3)
def test_threads_that_share_a_repository(tmp_path: Path) -> None:
    """Four agents of one process, over one cache, lose, double and mix up nothing."""
    report = run(tmp_path, operations=100, writers=1, threads=4, faults=True, seed=3)

    assert not report.violations, str(report)


@pytest.mark.guarantee(number=7)
def test_raised_conflicts(tmp_path: Path) -> None:
    """Where conflicts are raised, what was acknowledged is there, and no turn is mixed up."""
    report = run(tmp_path, operations=80, on_conflict="raise", faults=True, seed=4)

    assert not report.violations, str(report)
    assert report.figures["calls that raised ConflictError"] > 0


def test_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """The program runs what it is told and says that nothing was wrong."""
    assert main(["--operations", "20", "--writers", "1"]) == 0
    assert "0 violations" in capsys.readouterr().out
