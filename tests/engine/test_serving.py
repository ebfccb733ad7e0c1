"""The engine as a program, for a first hosted script."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .fixtures import require_engine

ROOT = Path(__file__).resolve().parents[2]


def serve(*options: str) -> "subprocess.Popen[str]":
    """Start the program."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engine", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shown(process: "subprocess.Popen[str]") -> str:
    """Return what the program prints, up to the last line of its example."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "session = " in line:
            break
    return "".join(lines)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_script_runs(stop: signal.Signals, tmp_path: Path) -> None:
    """What is printed is a script that reaches the engine, which ends in silence when told to."""
    require_engine()
    with serve("--folder", str(tmp_path)) as process:
        text = shown(process)
        script = text.partition("In a script:")[2].replace("\n  ", "\n")
        more = "\nwith client:\n    print(session.session_repository.list_sessions())\n"
        done = subprocess.run(
            [sys.executable, "-c", script + more],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        process.send_signal(stop)
        errors = process.communicate(timeout=20)[1]

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert (process.returncode, errors) == (0, "")
    assert [*tmp_path.glob("data/*")] != []


def test_the_role_is_in_the_token() -> None:
    """A token of another role is printed where one is asked for."""
    require_engine()
    with serve("--role", "readonly") as process:
        text = shown(process)
        process.send_signal(signal.SIGINT)

    assert re.search(r"token    psql_test_readonly_acme_", text)
