"""Large files in messages: what a restart brings back, and the memory that it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Report
from tests.engine.engine import Engine
from tests.support.backends import Address

VIDEO, DOCUMENT = 25_000_000, 16_500_000
MEMORY = 6.0
"""Times the size of the files that a process takes at the most, beyond what it takes without."""

PROGRAM = """
import hashlib, json, resource, sys
from strands import Agent, tool
from strands_persql import PerSQLSessionManager
from strands_persql.testing import ScriptedModel, ToolCall
from tests.support.backends import Address

where, name, token, video, document, does_write = json.loads(sys.stdin.readline())


def content(size):
    # What can't be compressed, and is made anew alike by another process.
    return hashlib.shake_256(str(size).encode()).digest(size)


@tool
def scan():
    "Scan."
    source = {"bytes": content(document)}
    return {
        "status": "success",
        "content": [{"document": {"format": "pdf", "name": "scan", "source": source}}],
    }


def agent_on(database, *replies):
    return Agent(
        model=ScriptedModel([*replies], record_calls=False),
        session_manager=PerSQLSessionManager("s", database),
        tools=[scan],
        callback_handler=None,
    )


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


with Address(where, name, token).open() as database:
    if does_write:
        agent_on(database, "Hello.")("Hi.")
        before = peak()
        agent = agent_on(database, "I have seen it.", ToolCall("scan"), "I have read it.")
        agent([{"video": {"format": "mp4", "source": {"bytes": content(video)}}}])
        agent("Scan the document.")
    else:
        before = peak()
        agent = agent_on(database)
    used = peak() - before
    messages = agent.messages
    found = [
        messages[2]["content"][0]["video"]["source"]["bytes"],
        messages[6]["content"][0]["toolResult"]["content"][0]["document"]["source"]["bytes"],
    ]
    print(json.dumps([used, [one == content(len(one)) for one in found], [*map(len, found)]]))
"""


def in_a_process(address: Address, *, does_write: bool) -> float:
    """Write or restore the files in a process, and give its memory in their sizes."""
    given = [address.where, address.name, address.token, VIDEO, DOCUMENT, does_write]
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ran.returncode == 0, ran.stderr
    used, are_same, sizes = json.loads(ran.stdout)
    assert are_same == [True, True]
    assert sizes == [VIDEO, DOCUMENT]
    return float(used / (VIDEO + DOCUMENT))


def measured(address: Address, kind: str, report: Report) -> None:
    """Write the files in one process and restore them in another."""
    for does_write, what in ((True, "written"), (False, "restored")):
        name = f"memory, 25 MB of video and 16.5 MB of document {what} / size, {kind}"
        report(name, in_a_process(address, does_write=does_write), at_most=MEMORY)


@pytest.mark.benchmark
def test_large_files_on_a_file(tmp_path: Path, report: Report) -> None:
    """They survive a restart byte for byte, within six times their size of memory."""
    measured(Address(str(tmp_path / "agents.db")), "a file", report)


@pytest.mark.benchmark
def test_large_files_on_the_engine(engine: Engine, database_name: str, report: Report) -> None:
    """The same over the hosted database's engine."""
    measured(Address(engine.base_url, database_name, engine.token()), "the engine", report)
