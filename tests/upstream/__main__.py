"""Fetches Strands' source distribution and runs its tests with ours in place of theirs.

``make upstream`` runs it; it needs what Strands' tests need (moto, pytest-asyncio).
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .replacements import SUITES, Suite

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """What came of a suite."""

    ok: bool
    counts: dict[str, int]
    waived: dict[str, int]
    output: str


def fetch(release: str) -> Path:
    """Return the folder with a release's tests, fetched from the package index if need be."""
    folder = ROOT / "build" / "upstream" / release
    if (folder / "pyproject.toml").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fetching the source distribution of strands-agents {release}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download"]
    options = ["--no-deps", "--no-binary", "strands-agents", "--retries", "2", "-d", str(folder)]
    done = subprocess.run(
        [*command, *options, f"strands-agents=={release}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    archives = [*folder.glob("*.tar.gz")]
    if done.returncode or not archives:
        sys.exit(
            f"{done.stderr.strip()}\n\nThe source distribution of strands-agents {release} could"
            " not be fetched from the package index, and its tests are run from there. Reach the"
            " index once; what was fetched is kept in build/upstream."
        )
    unpack(archives[0], folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Write a source distribution's tests and settings to a folder."""
    with tarfile.open(archive) as members:
        for member in members:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            wanted = path.parts[:1] == ("tests",) or path.name == "pyproject.toml"
            source = members.extractfile(member) if wanted and member.isfile() else None
            if source is None or ".." in path.parts:
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read())


def run(name: str, folder: Path) -> Outcome:
    """Run a suite in a process of its own."""
    suite = SUITES[name]
    outcome = folder / f"{name}.json"
    outcome.unlink(missing_ok=True)
    names = [theirs.partition(":")[2] for theirs in suite.theirs]
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    files = [
        str(file.relative_to(folder))
        for file in sorted((folder / "tests" / "strands").rglob("test_*.py"))
        if any(one in file.read_text("utf-8") for one in names)
    ]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "upstream.plugin"),
            *("--suite", name, "--outcome", str(outcome), "--timeout", "60"),
            *("-o", "addopts=", "-p", "no:cacheprovider", "-q", "--tb=short", *files),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=900,
    )
    found: dict[str, Any] = json.loads(outcome.read_text("utf-8")) if outcome.exists() else {}
    counts = found.get("counts", {})
    ok = done.returncode == 0 and counts.get("passed", 0) > 0
    return Outcome(ok, counts, found.get("waived", {}), done.stdout)


def show(suite: Suite, outcome: Outcome, *, why: bool) -> None:
    """Print a suite's line, and what went wrong."""
    counts = outcome.counts
    words = [f"{counts.get('passed', 0)} passed"]
    words += [f"{counts[kind]} {kind}" for kind in ("failed", "error", "skipped") if kind in counts]
    if waived := sum(outcome.waived.values()):
        words.append(f"{waived} waived")
    print(f"  {suite.describes:<46} {', '.join(words)}")
    if why:
        for reason, number in sorted(outcome.waived.items(), key=lambda item: -item[1]):
            print(f"    {number:>3}  {reason}")
    if not outcome.ok:
        print(outcome.output)


def main() -> None:
    """Run the suites, and end with 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one")
    parser.add_argument("--why", action="store_true", help="print the reasons of what is waived")
    options = parser.parse_args()
    release = version("strands-agents")
    folder = fetch(release)
    print(f"the tests of strands-agents {release}, with ours in place of theirs:")
    wanted = options.suite or list(SUITES)
    able = [name for name in wanted if SUITES[name].missing is None]
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = dict(zip(able, pool.map(lambda name: run(name, folder), able), strict=True))
    for name in wanted:
        if name in outcomes:
            show(SUITES[name], outcomes[name], why=options.why)
        else:
            print(f"  {SUITES[name].describes:<46} left out: {SUITES[name].missing}")
    sys.exit(not all(outcome.ok for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
