"""Writers that update one agent at once; importable by the processes that race."""

from multiprocessing.synchronize import Barrier
from pathlib import Path

from strands.types.session import Session, SessionAgent, SessionType

from strands_persql import LocalDatabase, PerSQLSessionRepository
from strands_persql.databases.protocol import Database

SESSION, AGENT = "raced", "assistant"
PATIENCE = 60.0


class Updater:
    """A writer with a repository of its own, that counts under a key of its own."""

    def __init__(self, database: Database, key: str) -> None:
        self._repository = PerSQLSessionRepository(database)
        self._key = key
        found = self._repository.read_agent(SESSION, AGENT)
        assert found is not None
        self._agent = found

    def update(self, times: int) -> None:
        for _ in range(times):
            self._agent.state[self._key] = self._agent.state.get(self._key, 0) + 1
            self._repository.update_agent(SESSION, self._agent)


def create(database: Database) -> None:
    """Create the agent that is raced for."""
    repository = PerSQLSessionRepository(database)
    repository.create_session(Session(SESSION, SessionType.AGENT))
    repository.create_agent(SESSION, SessionAgent(AGENT, {}, {}))


def counted(database: Database) -> dict[str, int]:
    """Give what each writer has counted, as the database has it."""
    agent = PerSQLSessionRepository(database).read_agent(SESSION, AGENT)
    assert agent is not None
    return agent.state


def race(path: Path, key: str, rounds: int, updates: int, begin: Barrier, end: Barrier) -> None:
    """Update in rounds that begin and end together with those of others: a process's work."""
    with LocalDatabase(path) as database:
        racer = Updater(database, key)
        for _ in range(rounds):
            begin.wait(PATIENCE)
            racer.update(updates)
            end.wait(PATIENCE)
