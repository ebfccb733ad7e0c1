"""Two owners in one database, and all that one of them can try against the other."""

import asyncio
import base64
import contextlib
import inspect
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strands import Agent
from strands.types.exceptions import SessionException

from strands_persql import LocalDatabase, PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.admin import SessionAdmin
from strands_persql.errors import PerSQLError
from strands_persql.testing import ScriptedModel, ToolCall
from tests.support.backends import FAST, Backend
from tests.support.conversation import (
    Team,
    count,
    session,
    session_agent,
    session_message,
    user,
)

WORDS = "nobody else is to read this"
SCOPE = "@alice~"
TABLES = ("sessions", "agents", "messages", "multi_agents", "checkpoints", "contents")
REFUSED = (PerSQLError, SessionException, ValueError, LookupError)
"""How an attempt may end, besides finding nothing."""


def alices(repository: PerSQLSessionRepository, session_id: str = "x") -> PerSQLSessionManager:
    """Store a session of Alice's with everything in it that one may have, and return its manager.

    Its agent ``a`` has a checkpoint, has gone back behind a message, and has large content. There
    is a message of no session besides, for a check to find, a value of a storage's, and a session
    of the same id that is nobody's, with a value too.
    """
    manager = PerSQLSessionManager(session_id, repository=repository.for_owner("alice"))
    replies = [f"{WORDS} 1", ToolCall("count"), f"{WORDS} 2", "gone back behind"]
    agent = opened(manager, *replies, tools=[count])
    agent(f"{WORDS} 3")
    agent(f"{WORDS} 4")
    agent.state.set("secret", WORDS)
    manager.checkpoint(agent, WORDS)
    agent("dropped")
    manager.rewind(agent, 1)
    large: Any = {"format": "png", "source": {"bytes": WORDS.encode() * 30_000}}
    manager.append_message({"role": "user", "content": [{"image": large}]}, agent)
    repository.for_owner("alice").create_multi_agent(session_id, Team(secret=WORDS))
    repository.create_session(session(session_id))
    repository.create_agent(session_id, session_agent(words=WORDS))
    repository.create_message(session_id, "a", session_message(WORDS, 0))
    repository.database.query(
        "INSERT INTO strands_messages (session_id, agent_id, message_id, data) VALUES (?, ?, ?, ?)",
        [f"{SCOPE}lost", "a", 0, f'{{"lost": "{WORDS}"}}'],
    )
    for key in (f"session/{session_id}/notes", f"{SCOPE}/session/{session_id}/notes"):
        sql = "INSERT INTO strands_objects (key, data, write_id) VALUES (?, ?, ?)"
        repository.database.query(sql, [key, WORDS, key])
    return manager


def opened(manager: PerSQLSessionManager, *replies: Any, **options: Any) -> Agent:
    """Make an agent ``a`` of a session."""
    return Agent(
        session_manager=manager,
        agent_id="a",
        model=ScriptedModel([*replies]),
        callback_handler=None,
        **options,
    )


def rows_of_others(backend: Backend) -> dict[str, list[dict[str, Any]]]:
    """Return all rows that aren't Bob's."""
    keys = {**dict.fromkeys(TABLES, "session_id"), "objects": "key"}
    return {
        table: backend.raw(
            f"SELECT * FROM strands_{table} WHERE substr({key}, 1, 5) <> '@bob~' ORDER BY 1, 2, 3"
        )
        for table, key in keys.items()
    }


@dataclass
class Attempt:
    """What an attacker has: access narrowed to its owner, an id, and objects that have leaked."""

    repository: PerSQLSessionRepository
    session_id: str
    checkpoint: Any

    @property
    def admin(self) -> SessionAdmin:
        return SessionAdmin(self.repository.database, retry=FAST, owner=self.repository.owner)

    @property
    def manager(self) -> PerSQLSessionManager:
        return PerSQLSessionManager(self.session_id, repository=self.repository)

    def agent(self, *replies: Any) -> tuple[PerSQLSessionManager, Agent]:
        manager = self.manager
        return manager, opened(manager, *(replies or ["mine"]))


def _said(attempt: Attempt) -> Any:
    _, agent = attempt.agent()
    agent("what did they say?")
    return agent.messages, agent.state.get()


def _team(attempt: Attempt) -> Any:
    team = Team(mine=True)
    attempt.manager.initialize_multi_agent(team)
    return team.state


def _synced_team(attempt: Attempt) -> Any:
    team, manager = Team(mine=True), attempt.manager
    manager.initialize_multi_agent(team)
    team.state["mine"] = False
    manager.sync_multi_agent(team)
    return team.state


def _appended(name: str) -> Callable[[Attempt], Any]:
    def append(attempt: Attempt) -> Any:
        manager, agent = attempt.agent()
        getattr(manager, name)(user("mine"), agent)
        return agent.messages

    return append


def _redacted(attempt: Attempt) -> Any:
    manager, agent = attempt.agent()
    agent.messages.append(user("[redacted]"))
    manager.redact_latest_message(user("[redacted]"), agent)
    return agent.messages


def _synced(name: str) -> Callable[[Attempt], Any]:
    def sync(attempt: Attempt) -> Any:
        manager, agent = attempt.agent()
        agent.state.set("secret", "mine")
        done = getattr(manager, name)(agent)
        if inspect.isawaitable(done):
            asyncio.run(_finished(done))
        return agent.state.get()

    return sync


async def _finished(awaitable: Any) -> None:
    await awaitable


def _rewound(attempt: Attempt) -> Any:
    manager, agent = attempt.agent()
    tries: list[Callable[[], Any]] = [
        lambda: manager.rewind(agent, attempt.checkpoint),
        lambda: manager.rewind(agent, attempt.checkpoint.checkpoint_id),
        lambda: manager.rewind(agent, 1),
    ]
    for one in tries:
        with contextlib.suppress(*REFUSED):
            one()
    return agent.messages, agent.state.get()


def _rewound_unopened(attempt: Attempt) -> Any:
    found = []
    for to in (attempt.checkpoint, attempt.checkpoint.checkpoint_id, 1):
        with contextlib.suppress(*REFUSED):
            found.append(attempt.repository.rewind_session(attempt.session_id, "a", to))
    return found


def _truncated(attempt: Attempt) -> Any:
    manager, agent = attempt.agent()
    return manager.truncate(agent), agent.messages


def _kept(attempt: Attempt) -> Any:
    manager, agent = attempt.agent()
    manager.checkpoint(agent, "mine")
    return manager.checkpoints(agent)


def _forked(attempt: Attempt) -> Any:
    repository, copies = attempt.repository, []
    for number, at in enumerate((None, attempt.checkpoint, attempt.checkpoint.checkpoint_id)):
        with contextlib.suppress(*REFUSED):
            copies.append(repository.fork_session(attempt.session_id, f"copy{number}", at=at))
            copies += repository.list_messages(f"copy{number}", "a")  # type: ignore[arg-type]
    return copies


def _forked_over(attempt: Attempt) -> Any:
    attempt.repository.create_session(session("own"))
    return attempt.repository.fork_session("own", attempt.session_id)


def _exported(attempt: Attempt) -> Any:
    target = io.BytesIO()
    with contextlib.suppress(*REFUSED):
        attempt.admin.export_archive(target, [attempt.session_id])
    attempt.admin.export_archive(target)
    return target.getvalue()


def _exported_files(attempt: Attempt) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for session_ids in ([attempt.session_id], None):
            with contextlib.suppress(*REFUSED):
                attempt.admin.export_directory(folder, session_ids, existing="replace")
        return [(str(path), path.read_text()) for path in Path(folder).rglob("*") if path.is_file()]


def _imported_files(attempt: Attempt) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / f"session_{attempt.session_id}"
        mine.mkdir()
        (mine / "session.json").write_text(
            f'{{"session_id": "{attempt.session_id}", "session_type": "AGENT"}}'
        )
        return attempt.admin.import_directory(folder, existing="replace")


def _repaired(attempt: Attempt) -> Any:
    found = list(attempt.admin.check())
    return found, attempt.admin.repair(found)


def _measured(attempt: Attempt) -> Any:
    with contextlib.suppress(*REFUSED):
        attempt.admin.measure(attempt.session_id)
    return attempt.admin.measure(starts_with=attempt.session_id)


def _searched(attempt: Attempt, searchable: Any) -> Any:
    attempt.admin.setup(search=True)
    found = [searchable.search("nobody else")]
    for agent_id in (None, "a"):
        with contextlib.suppress(*REFUSED):
            found.append(
                searchable.search("nobody", session_id=attempt.session_id, agent_id=agent_id)
            )
    return found


def _listed(attempt: Attempt) -> Any:
    admin, repository = attempt.admin, attempt.repository
    found: list[Any] = [
        repository.list_sessions(),
        repository.list_sessions(after=attempt.session_id),
        repository.list_sessions(starts_with=attempt.session_id),
        repository.list_sessions(starts_with="@"),
        admin.list_sessions(counts=True),
    ]
    for order in ("id", "activity"):
        found.append(admin.list_sessions(order=order, counts=True))
        found.append(admin.list_sessions(order=order, starts_with="@"))
    found.append(admin.list_sessions(after=attempt.session_id))
    found.append(admin.list_sessions(order="activity", after=f"9999 {attempt.session_id}"))
    return found


REPOSITORY: dict[str, Callable[[Attempt], Any]] = {
    "as_read_only": lambda it: it.repository.as_read_only().list_messages(it.session_id, "a"),
    "create_agent": lambda it: it.repository.create_agent(it.session_id, session_agent()),
    "create_message": lambda it: it.repository.create_message(
        it.session_id, "a", session_message("mine", 9)
    ),
    "create_multi_agent": lambda it: it.repository.create_multi_agent(it.session_id, Team()),
    "create_session": lambda it: it.repository.create_session(session(it.session_id)),
    "delete_session": lambda it: it.repository.delete_session(it.session_id),
    "for_owner": lambda it: it.repository.for_owner("alice").list_messages("x", "a"),
    "fork_session": _forked,
    "list_checkpoints": lambda it: it.repository.list_checkpoints(it.session_id),
    "list_messages": lambda it: it.repository.list_messages(it.session_id, "a"),
    "list_sessions": _listed,
    "read_agent": lambda it: it.repository.read_agent(it.session_id, "a"),
    "read_message": lambda it: it.repository.read_message(it.session_id, "a", 0),
    "read_multi_agent": lambda it: it.repository.read_multi_agent(it.session_id, "team"),
    "read_session": lambda it: it.repository.read_session(it.session_id),
    "rewind_session": _rewound_unopened,
    "search": lambda it: _searched(it, it.repository),
    "set_expiry": lambda it: it.repository.set_expiry(it.session_id, 1),
    "truncate_session": lambda it: it.repository.truncate_session(it.session_id, "a"),
    "update_agent": lambda it: it.repository.update_agent(it.session_id, session_agent(n=1)),
    "update_message": lambda it: it.repository.update_message(
        it.session_id, "a", session_message("mine", 0)
    ),
    "update_multi_agent": lambda it: it.repository.update_multi_agent(it.session_id, Team(n=1)),
}
MANAGER: dict[str, Callable[[Attempt], Any]] = {
    "append_bidi_message": _appended("append_bidi_message"),
    "append_message": _appended("append_message"),
    "checkpoint": _kept,
    "checkpoints": _kept,
    "initialize": _said,
    "initialize_bidi_agent": _said,
    "initialize_multi_agent": _team,
    "redact_latest_message": _redacted,
    "register_hooks": _said,
    "rewind": _rewound,
    "save": _synced("save"),
    "sync_agent": _synced("sync_agent"),
    "sync_bidi_agent": _synced("sync_bidi_agent"),
    "sync_multi_agent": _synced_team,
    "truncate": _truncated,
}
ADMIN: dict[str, Callable[[Attempt], Any]] = {
    "check": lambda it: [*it.admin.check(it.session_id), *it.admin.check()],
    "copy_from": lambda it: it.admin.copy_from(it.admin, [it.session_id], existing="replace"),
    "erase": lambda it: it.admin.erase(it.session_id, purge=False).was_there,
    "export_archive": _exported,
    "export_directory": _exported_files,
    "import_archive": lambda it: it.admin.import_archive(
        io.BytesIO(archive_of(it.session_id)), existing="replace"
    ),
    "import_directory": _imported_files,
    "list_agents": lambda it: it.admin.list_agents(it.session_id, counts=True),
    "list_multi_agents": lambda it: it.admin.list_multi_agents(it.session_id),
    "list_sessions": _listed,
    "measure": _measured,
    "repair": _repaired,
    "search": lambda it: _searched(it, it.admin),
    "sweep": lambda it: it.admin.sweep(),
    "transcript": lambda it: it.admin.transcript(it.session_id, "a"),
}
BESIDES: dict[str, Callable[[Attempt], Any]] = {
    "fork_session, over another's": _forked_over,
    "delete_session, without having seen it": lambda it: it.repository.delete_session(
        it.session_id
    ),
}
HARMLESS = {
    "missing_sql": "is about tables",
    "setup": "is about tables",
    "stats": "counts requests of the process",
    "close": "stores what the attacker's agents have",
    "from_token": "is the constructor",
    "open": "is the constructor",
}
ATTEMPTS = {
    **{f"repository.{name}": call for name, call in REPOSITORY.items()},
    **{f"manager.{name}": call for name, call in MANAGER.items()},
    **{f"admin.{name}": call for name, call in ADMIN.items()},
    **BESIDES,
}


def methods(cls: type) -> set[str]:
    """Return the public methods of a class."""
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


def tells(found: Any) -> bool:
    """Whether an answer has anything that Alice's session says."""
    text = repr(found)
    return WORDS in text or base64.b64encode(WORDS.encode()).decode()[:20] in text


def tried(call: Callable[[Attempt], Any], attempt: Attempt) -> Any:
    """Return what an attempt brought, or the error that it ended with."""
    try:
        return call(attempt)
    except REFUSED as error:
        return error


def archive_of(session_id: str) -> bytes:
    """Return an archive of a session of this id that has nothing in it."""
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).create_session(session(session_id))
        target = io.BytesIO()
        SessionAdmin(database).export_archive(target)
        return target.getvalue()
