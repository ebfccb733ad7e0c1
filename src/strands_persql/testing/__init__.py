"""What it takes to test an agent without a model and without a network.

`ScriptedModel` answers from a script. `CountingDatabase` counts the round trips of the database
that it wraps, `FaultyDatabase` loses, repeats and delays them. Both go around any database, each
other included::

    database = CountingDatabase(LocalDatabase())
    model = ScriptedModel([ToolCall("weather", {"city": "Oslo"}), "It rains in Oslo."])
    agent = Agent(model=model, session_manager=PerSQLSessionManager("user-42", database))
"""

from strands_persql.testing.databases import CountingDatabase, Fault, FaultyDatabase
from strands_persql.testing.model import Redact, Reply, ScriptedModel, ToolCall

__all__ = [
    "CountingDatabase",
    "Fault",
    "FaultyDatabase",
    "Redact",
    "Reply",
    "ScriptedModel",
    "ToolCall",
]
