"""A writer's own record: what it was about to do, and what it was told has been done.

Each line is one JSON object with its ``kind`` and the time ``at`` which it was written, in seconds
of the clock that all processes of a machine share:

``started``       a manager and its agent were opened; ``counted`` is what the restored state holds,
                  and ``held`` the tokens in the agent's memory
``turn``          an agent is about to be called: the ``tokens`` of its messages, in order, and the
                  ``secret`` that will be redacted, or null
``ran``           a tool is about to count up by one
``acknowledged``  these ``tokens`` are stored, and so are the increments ``counted`` so far
``redacted``      these ``secrets`` are gone
``shown``         the ``tokens`` that the model was given; those that others had been told are
                  stored before the time ``since`` must be among them; and the tool calls and
                  results that stood ``unpaired`` there, which a real model refuses; now and then
                  also the tokens that a process was given which opened the session then, ``fresh``
``changed``       the agent's memory is about to be changed ``how``: tokens ``dropped`` from it,
                  ``revived`` in it, ``loaded`` into it, and the number of ``edits`` of others
``held``          a call is over, and what it changed is stored: the ``tokens`` in memory now
``approved``      a tool has been given leave, after the ``interrupt`` that it asked with
``failed``        a call raised ``error``, one that a database's fault explains
``crashed``       a call raised an error that nothing explains
``finished``      all of the writer's operations are done
"""

import json
import os
import re
import time
from pathlib import Path
from typing import Any, TypeAlias

Entry: TypeAlias = dict[str, Any]

TOKEN = re.compile(r"\bw\d+\.\d+\.[a-z]\d*(?!\w)")
"""A token names the writer, its turn and the part of the turn, such as ``w3.17.c0``."""


SECRET = re.compile(r"\bsecret-\d+-\d+(?!\w)")
"""What stands in a message beside its token, to be redacted."""


def token(writer: int, turn: int, part: str) -> str:
    """Make the token of one part of a turn."""
    return f"w{writer}.{turn}.{part}"


def writer_of(name: str) -> int:
    """Tell which writer a token is of."""
    return int(name[1 : name.index(".")])


class Journal:
    """A file that one writer appends to; what was written survives the writer's death."""

    def __init__(self, path: Path) -> None:
        """Open it, to go on behind what is there."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, **facts: Any) -> None:
        """Append an entry; one system call, so that a killed process leaves no half of it."""
        entry = {"kind": kind, "at": time.monotonic(), **facts}
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_journal(path: Path) -> list[Entry]:
    """Read all entries, or none where there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
