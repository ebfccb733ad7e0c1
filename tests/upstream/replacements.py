"""Classes of ours that have the constructors of those that Strands' tests call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from strands.session.session_repository import SessionRepository

from strands_persql import LocalDatabase, PerSQLSessionManager, PerSQLSessionRepository

from .waivers import Kind

MOCKED_REPOSITORY = "tests.fixtures.mock_session_repository:MockedSessionRepository"
REPOSITORY_MANAGER = "strands.session.repository_session_manager:RepositorySessionManager"
FILE_MANAGER = "strands.session.file_session_manager:FileSessionManager"
MEMORY_STORAGE = "strands.storage.in_memory_storage:InMemoryStorage"
FILE_STORAGE = "strands.storage.local_file_storage:LocalFileStorage"

Classes = Mapping[str, type]
"""Our classes by the ``module:name`` of theirs."""

_databases: list[LocalDatabase] = []


def _open(folder: Any = None) -> LocalDatabase:
    """Open a database in memory, or the one in a folder."""
    if folder is None:
        database = LocalDatabase()
    else:
        Path(folder).mkdir(parents=True, exist_ok=True)
        database = LocalDatabase(Path(folder) / "ours.db")
    _databases.append(database)
    return database


def close_databases() -> None:
    """Close the databases that a test has opened."""
    while _databases:
        _databases.pop().close()


class _Repository(PerSQLSessionRepository):
    """In place of the repository of dicts that Strands' tests have."""

    def __init__(self) -> None:
        super().__init__(_open())


class _Manager(PerSQLSessionManager):
    """In place of the manager on any repository."""

    committing: Literal["message", "turn"] = "message"

    def __init__(self, session_id: str, session_repository: Any, **_: Any) -> None:
        super().__init__(session_id, repository=session_repository, commit=self.committing)


class _FileManager(PerSQLSessionManager):
    """In place of the manager on files, which is its own repository."""

    committing: Literal["message", "turn"] = "message"

    def __init__(self, session_id: str, storage_dir: Any = None, **_: Any) -> None:
        super().__init__(session_id, _open(storage_dir), commit=self.committing)


def _passed_on(name: str) -> Callable[..., Any]:
    def method(self: PerSQLSessionManager, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.session_repository, name)(*args, **kwargs)

    return method


for _name in ("delete_session", *SessionRepository.__dict__):
    if _name.startswith(("create_", "read_", "update_", "delete_", "list_")):
        setattr(_FileManager, _name, _passed_on(_name))


class _TurnManager(_Manager):
    committing = "turn"


class _TurnFileManager(_FileManager):
    committing = "turn"


def _storages() -> Classes:
    storage: Any = import_module("strands_persql.snapshots").PerSQLStorage

    def in_memory(self: Any, **options: Any) -> None:
        storage.__init__(self, _open(), **options)

    def in_folder(self: Any, base_dir: Any = "./.strands/", **options: Any) -> None:
        storage.__init__(self, _open(base_dir), **options)

    return {
        MEMORY_STORAGE: type("InMemoryStorage", (storage,), {"__init__": in_memory}),
        FILE_STORAGE: type("LocalFileStorage", (storage,), {"__init__": in_folder}),
    }


@dataclass(frozen=True)
class Suite:
    """One run of Strands' tests.

    Args:
        describes: What is in place of what.
        theirs: The ``module:name`` of each class that is replaced.
        classes: Returns our classes for them.
        kind: The waivers that hold for it.
        needs: The ``module:name`` of what it can't be run without, each with what to say then.
    """

    describes: str
    theirs: tuple[str, ...]
    classes: Callable[[], Classes]
    kind: Kind
    needs: Mapping[str, str]

    @property
    def missing(self) -> str | None:
        """Why it is left out, or None if it can be run."""
        for path, sentence in self.needs.items():
            module, _, name = path.partition(":")
            if find_spec(module) is None or not hasattr(import_module(module), name):
                return sentence
        return None


SUITES = {
    "repository": Suite(
        "Strands' manager on PerSQLSessionRepository",
        (MOCKED_REPOSITORY,),
        lambda: {MOCKED_REPOSITORY: _Repository},
        "repository",
        {},
    ),
    "manager": Suite(
        'PerSQLSessionManager, commit="message"',
        (MOCKED_REPOSITORY, REPOSITORY_MANAGER, FILE_MANAGER),
        lambda: {
            MOCKED_REPOSITORY: _Repository,
            REPOSITORY_MANAGER: _Manager,
            FILE_MANAGER: _FileManager,
        },
        "manager",
        {},
    ),
    "turn": Suite(
        'PerSQLSessionManager, commit="turn"',
        (MOCKED_REPOSITORY, REPOSITORY_MANAGER, FILE_MANAGER),
        lambda: {
            MOCKED_REPOSITORY: _Repository,
            REPOSITORY_MANAGER: _TurnManager,
            FILE_MANAGER: _TurnFileManager,
        },
        "manager",
        {},
    ),
    "storage": Suite(
        "PerSQLStorage",
        (MEMORY_STORAGE, FILE_STORAGE),
        _storages,
        "storage",
        {
            "strands.storage:Storage": "this version of Strands has no storages",
            "strands_persql.snapshots:PerSQLStorage": "PerSQLStorage isn't there yet",
        },
    ),
}
