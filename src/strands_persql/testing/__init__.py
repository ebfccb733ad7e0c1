"""What it takes to test an agent without a model and without a network.

`ScriptedModel` answers from a script. `CountingDatabase` counts the round trips of the database
that it wraps, `FaultyDatabase` loses, repeats and delays them, and `InterceptingDatabase` calls
functions of yours around them. All go around any database, each other included::

    database = CountingDatabase(LocalDatabase())
    model = ScriptedModel([ToolCall("weather", {"city": "Oslo"}), "It rains in Oslo."])
    agent = Agent(model=model, session_manager=PerSQLSessionManager("user-42", database))

`ManualClock` is a clock that a test sets. `strands_persql.testing.conformance` checks a database
of your own.
"""

from strands_persql.testing.clock import ManualClock
from strands_persql.testing.databases import (
    CountingDatabase,
    Fault,
    FaultyDatabase,
    InterceptingDatabase,
)
from strands_persql.testing.model import Redact, Reply, ScriptedModel, ToolCall

__all__ = [
    "CountingDatabase",
    "Fault",
    "FaultyDatabase",
    "InterceptingDatabase",
    "ManualClock",
    "Redact",
    "Reply",
    "ScriptedModel",
    "ToolCall",
]
