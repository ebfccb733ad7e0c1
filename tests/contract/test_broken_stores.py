"""The suite is tested too: stores that are wrong, each in one way, must not pass it.

They are made of what is public: the methods of a repository, and the documented tables.
"""

import contextlib
import copy
import inspect
import itertools
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from strands.agent.state import AgentState
from strands.hooks import (
    AfterInvocationEvent,
    BeforeInvocationEvent,
    BeforeModelCallEvent,
    HookRegistry,
    MessageAddedEvent,
)
from strands.types.content import Message
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    Result,
    Value,
)
from strands_persql.errors import AlreadyExistsError, NotFoundError, PerSQLError
from tests.contract import (
    test_agents,
    test_answered_once,
    test_bad_input,
    test_conflicts,
    test_database,
    test_faults,
    test_freshness,
    test_graphs_that_go_on,
    test_late_copies,
    test_manager,
    test_messages,
    test_multi_agents,
    test_restored_edits,
    test_restored_equals_live,
    test_restored_turns,
    test_sessions,
    test_turn_end,
    test_turns,
    test_turns_that_go_on,
    test_two_views,
    test_warm_as_fresh,
    test_warm_redactions,
    test_what_goes_in,
)
from tests.support.backends import FAST, Backend

MODULES = (
    test_database,
    test_sessions,
    test_agents,
    test_messages,
    test_multi_agents,
    test_conflicts,
    test_freshness,
    test_turns,
    test_manager,
    test_faults,
    test_bad_input,
    test_restored_edits,
    test_restored_turns,
    test_turn_end,
    test_warm_as_fresh,
    test_answered_once,
    test_late_copies,
    test_graphs_that_go_on,
    test_restored_equals_live,
    test_turns_that_go_on,
    test_warm_redactions,
    test_two_views,
    test_what_goes_in,
)
TABLES = ("sessions", "agents", "messages", "multi_agents")
LONG_AGO = "2001-02-03T04:05:06+00:00"


Store = type["BrokenDatabase"] | type[PerSQLSessionRepository] | type[PerSQLSessionManager]
Test = Callable[..., None]

BROKEN: list[Any] = []


def rejected_by(test: Test) -> Callable[[Any], Any]:
    """Add a store that is wrong, and name the test of the contract that must fail on it."""

    def add(store: Any) -> Any:
        BROKEN.append(pytest.param(store, test, id=store.__name__))
        return store

    return add


# -- databases that are wrong ----------------------------------------------------------------------


class BrokenDatabase:
    """A database that does what it is told, but for what its class says."""

    trigger: ClassVar[str] = ""
    """What SQLite does behind the library's back: made as soon as the tables are there."""

    def __init__(self, database: LocalDatabase) -> None:
        self.inner = database

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        return self.inner.query(sql, params)

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        results = self.inner.batch(statements, transaction=transaction)
        if self.trigger and any("CREATE TABLE" in one["sql"] for one in statements):
            with contextlib.suppress(sqlite3.OperationalError):  # these are tables of a test's own
                self.inner.query(f"CREATE TRIGGER broken {self.trigger}")
        return results


@rejected_by(test_database.test_a_database_can_hold_sessions)
class NotAtomic(BrokenDatabase):
    """A batch that fails half-way leaves what ran before."""

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        return super().batch(statements, transaction=False)


@rejected_by(test_database.test_a_database_can_hold_sessions)
class Swallowing(BrokenDatabase):
    """A failed batch is answered as if nothing had been found."""

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        try:
            return super().batch(statements, transaction=transaction)
        except sqlite3.Error as error:
            if "no such table: strands" in str(error):
                raise
            return [{"data": []} for _ in statements]


@rejected_by(test_messages.test_messages_are_listed_in_order)
class Dropping(BrokenDatabase):
    """Every fifth batch that writes is answered, and not kept."""

    count = 0

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        writes = any(re.match(r"\s*(INSERT|UPDATE)\b", one["sql"]) for one in statements)
        self.count += writes
        if not writes or self.count % 5:
            return super().batch(statements, transaction=transaction)
        before = {table: self.query(f"SELECT * FROM strands_{table}")["data"] for table in TABLES}
        results = super().batch(statements, transaction=transaction)
        for table, rows in before.items():
            self.query(f"DELETE FROM strands_{table}")
            for row in rows:
                insert(self, table, row)
        return results


@rejected_by(test_faults.test_a_retried_write_is_applied_once)
class Doubling(BrokenDatabase):
    """A message that is sent twice is stored twice: the id of its write is taken for another."""

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        if any("INSERT INTO strands_messages" in one["sql"] for one in statements):
            found = self.query("SELECT write_id FROM strands_messages")["data"]
            others = {row["write_id"]: row["write_id"][::-1] for row in found}
            statements = [
                {**one, "params": [others.get(value, value) for value in one.get("params", ())]}
                for one in statements
            ]
        return super().batch(statements, transaction=transaction)


@rejected_by(test_sessions.test_sessions_of_like_names_keep_apart)
class CaseFolding(BrokenDatabase):
    """Ids that differ by case are taken for one."""

    def batch(self, statements: Any, /, *, transaction: bool = False) -> Sequence[Result]:
        folded = [
            {**one, "sql": re.sub(r"\b(\w+_id) TEXT\b", r"\1 TEXT COLLATE NOCASE", one["sql"])}
            for one in statements
        ]
        return super().batch(folded, transaction=transaction)


@rejected_by(test_conflicts.test_two_turns_at_once_are_kept_whole)
class Interleaving(BrokenDatabase):
    """A turn is never moved behind another writer's."""

    trigger = (
        "BEFORE UPDATE OF message_id ON strands_messages WHEN NEW.message_id <> OLD.message_id"
        " BEGIN SELECT RAISE(IGNORE); END"
    )


@rejected_by(test_freshness.test_an_open_sees_a_turn_that_moved)
class Unmarked(BrokenDatabase):
    """Changes of old messages leave no mark that an open could see."""

    trigger = (
        "AFTER UPDATE OF epoch ON strands_agents WHEN NEW.epoch <> OLD.epoch BEGIN"
        " UPDATE strands_agents SET epoch = OLD.epoch"
        " WHERE session_id = OLD.session_id AND agent_id = OLD.agent_id; END"
    )


@rejected_by(test_agents.test_each_update_adds_one_to_the_version)
class TwoVersions(BrokenDatabase):
    """A write counts as two."""

    trigger = (
        "AFTER UPDATE OF version ON strands_agents WHEN NEW.version = OLD.version + 1 BEGIN"
        " UPDATE strands_agents SET version = version + 1"
        " WHERE session_id = OLD.session_id AND agent_id = OLD.agent_id; END"
    )


@rejected_by(test_agents.test_an_update_keeps_when_the_agent_was_created)
class NewBirthday(BrokenDatabase):
    """An update makes a row's creation another one."""

    trigger = (
        "AFTER UPDATE OF data ON strands_agents BEGIN"
        f" UPDATE strands_agents SET created_at = '{LONG_AGO}',"
        f" data = json_set(data, '$.created_at', '{LONG_AGO}')"
        " WHERE session_id = OLD.session_id AND agent_id = OLD.agent_id; END"
    )


@rejected_by(test_faults.test_a_lost_answer_that_was_built_upon_is_no_conflict)
class ForgetsWrites(BrokenDatabase):
    """Rows remember no more than the latest write that has been applied to them."""

    trigger = (
        "AFTER UPDATE OF writes ON strands_agents WHEN OLD.writes <> '' BEGIN"
        " UPDATE strands_agents SET writes = replace(NEW.writes, OLD.writes, '')"
        " WHERE session_id = OLD.session_id AND agent_id = OLD.agent_id; END"
    )


@rejected_by(test_restored_equals_live.test_pins_in_the_middle)
class ForgetsViews(BrokenDatabase):
    """What an agent works with is always the end of the history."""

    trigger = (
        "AFTER UPDATE OF view ON strands_agents WHEN NEW.view IS NOT OLD.view BEGIN"
        " UPDATE strands_agents SET view = OLD.view"
        " WHERE session_id = OLD.session_id AND agent_id = OLD.agent_id; END"
    )


@rejected_by(test_restored_edits.test_what_an_application_does_between_turns)
class ForgetsEdits(BrokenDatabase):
    """A message stays what it was when it was said."""

    trigger = (
        "AFTER UPDATE OF data ON strands_messages WHEN NEW.data <> OLD.data BEGIN"
        " UPDATE strands_messages SET data = OLD.data WHERE session_id = OLD.session_id"
        " AND agent_id = OLD.agent_id AND message_id = NEW.message_id; END"
    )


@rejected_by(test_restored_turns.test_a_redacted_text_is_in_no_row)
class KeepsSecrets(BrokenDatabase):
    """The row of a message that was redacted has what it was before, too."""

    trigger = (
        "AFTER UPDATE OF data ON strands_messages"
        " WHEN NEW.data LIKE '%redact_message%' AND NEW.data NOT LIKE '%was_before%' BEGIN"
        " UPDATE strands_messages SET data = json_set(NEW.data, '$.was_before', OLD.data)"
        " WHERE session_id = OLD.session_id"
        " AND agent_id = OLD.agent_id AND message_id = NEW.message_id; END"
    )


def insert(database: Database, table: str, row: dict[str, Any]) -> None:
    """Put a row back as it was."""
    marks = ", ".join("?" * len(row))
    columns = ", ".join(row)
    database.query(f"INSERT INTO strands_{table} ({columns}) VALUES ({marks})", [*row.values()])


# -- repositories that are wrong -------------------------------------------------------------------


@rejected_by(test_conflicts.test_changes_of_two_writers_are_both_kept)
class LostUpdate(PerSQLSessionRepository):
    """The last writer's update stands, whatever it had seen."""

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        found = self.read_agent(session_id, session_agent.agent_id)
        if found is None:
            raise NotFoundError("it does not exist")
        session_agent.created_at = found.created_at
        self.database.query(
            "UPDATE strands_agents SET data = ?, version = version + 1"
            " WHERE session_id = ? AND agent_id = ?",
            [json.dumps(session_agent.to_dict()), session_id, session_agent.agent_id],
        )
        self.cache.clear()


@rejected_by(test_conflicts.test_changes_of_two_writers_are_both_kept)
class ReadsFirst(PerSQLSessionRepository):
    """An update reads what is there and writes over it."""

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        self.cache.clear()
        found = self.read_agent(session_id, session_agent.agent_id)
        made = copy_of(session_agent)
        if found is not None:
            made.created_at = session_agent.created_at = found.created_at
        super().update_agent(session_id, made)


@rejected_by(test_conflicts.test_a_redaction_wins_over_a_later_stale_update)
class Unredacting(PerSQLSessionRepository):
    """The later update of a message stands, also over a redaction."""

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        self.cache.clear()
        super().update_message(session_id, agent_id, copy_of(session_message))


@rejected_by(test_agents.test_creating_an_agent_twice_raises_and_resets_nothing)
class SecondAgentResets(PerSQLSessionRepository):
    """Creating an agent that is there makes it anew."""

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        try:
            super().create_agent(session_id, session_agent)
        except AlreadyExistsError:
            self.database.query(
                "DELETE FROM strands_agents WHERE session_id = ? AND agent_id = ?",
                [session_id, session_agent.agent_id],
            )
            super().create_agent(session_id, session_agent)


@rejected_by(test_sessions.test_creating_a_session_twice_raises_and_resets_nothing)
class CreatesQuietly(PerSQLSessionRepository):
    """A second creation of a session is taken for a success."""

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        try:
            return super().create_session(session)
        except AlreadyExistsError:
            return session


@rejected_by(test_agents.test_an_agent_needs_its_session)
class Unparented(PerSQLSessionRepository):
    """Agents are stored under sessions that aren't there."""

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        try:
            super().create_agent(session_id, session_agent)
        except NotFoundError:
            self.database.query(
                "INSERT INTO strands_sessions (session_id) VALUES (?)", [session_id]
            )
            super().create_agent(session_id, session_agent)
            self.database.query("DELETE FROM strands_sessions WHERE session_id = ?", [session_id])


@rejected_by(test_messages.test_a_taken_id_gives_way_to_the_next_free_one)
class AppendOverwrites(PerSQLSessionRepository):
    """A message whose id is taken replaces the one that has it."""

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        if self.read_agent(session_id, agent_id) is not None:
            self.database.query(
                "DELETE FROM strands_messages"
                " WHERE session_id = ? AND agent_id = ? AND message_id = ?",
                [session_id, agent_id, session_message.message_id],
            )
            self.cache.clear()
        super().create_message(session_id, agent_id, session_message)


@rejected_by(test_sessions.test_deleting_a_session_leaves_no_row_of_it)
class DeletesByPrefix(PerSQLSessionRepository):
    """Deleting a session deletes those whose ids begin like its own."""

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        super().delete_session(session_id)
        for other in self.list_sessions(starts_with=session_id):
            super().delete_session(other.session_id)


@rejected_by(test_sessions.test_deleting_a_session_leaves_no_row_of_it)
class DeletesHalf(PerSQLSessionRepository):
    """Deleting a session leaves its messages."""

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        sql = "SELECT * FROM strands_messages WHERE session_id = ?"
        messages = self.database.query(sql, [session_id])["data"]
        super().delete_session(session_id)
        for row in messages:
            insert(self.database, "messages", row)


@rejected_by(test_messages.test_messages_are_listed_in_order)
class Backwards(PerSQLSessionRepository):
    """Messages come in the wrong order."""

    def list_messages(self, *args: Any, **kwargs: Any) -> list[SessionMessage]:
        return super().list_messages(*args, **kwargs)[::-1]


@rejected_by(test_messages.test_messages_are_listed_in_order)
class AsText(PerSQLSessionRepository):
    """Messages are ordered by their ids as text."""

    def list_messages(self, *args: Any, **kwargs: Any) -> list[SessionMessage]:
        return sorted(super().list_messages(*args, **kwargs), key=lambda one: str(one.message_id))


@rejected_by(test_messages.test_pages_are_slices)
class Unpaged(PerSQLSessionRepository):
    """A page's limit is overlooked."""

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        return super().list_messages(session_id, agent_id, None, offset)


@rejected_by(test_freshness.test_an_open_sees_what_was_acknowledged_before_it)
class StaleForever(PerSQLSessionRepository):
    """What was once read is never asked for again."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **{**options, "max_staleness": 1e9})


@rejected_by(test_messages.test_a_write_and_a_read_of_it_cost_one_round_trip)
class DeafReader(PerSQLSessionRepository):
    """What it reads from memory doesn't have its own writes."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._reader = PerSQLSessionRepository(database, **{**options, "cache": None})

    def read_session(self, *args: Any, **kwargs: Any) -> Session | None:
        return self._reader.read_session(*args, **kwargs)

    def read_agent(self, *args: Any, **kwargs: Any) -> SessionAgent | None:
        return self._reader.read_agent(*args, **kwargs)

    def list_messages(self, *args: Any, **kwargs: Any) -> list[SessionMessage]:
        return self._reader.list_messages(*args, **kwargs)


@rejected_by(test_agents.test_what_was_given_and_got_is_nobodys_alias)
class Aliasing(PerSQLSessionRepository):
    """Who reads an agent or a message gets the object that another reader has."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._given: dict[Any, Any] = {}

    def _again(self, found: Any, *key: Any) -> Any:
        pristine, given = self._given.get(key, (None, None))
        if found is None or pristine != found:
            pristine, given = self._given[key] = copy_of(found), found
        return given

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        agent: SessionAgent | None = self._again(
            super().read_agent(session_id, agent_id), session_id, agent_id
        )
        return agent

    def list_messages(self, *args: Any, **kwargs: Any) -> list[SessionMessage]:
        found = super().list_messages(*args, **kwargs)
        return [self._again(one, *args[:2], one.message_id) for one in found]


@rejected_by(test_sessions.test_a_missing_session_is_found_as_soon_as_it_is_there)
class RemembersNothing(PerSQLSessionRepository):
    """That a session wasn't there is remembered."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._missing: set[str] = set()

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        if session_id in self._missing:
            return None
        found = super().read_session(session_id)
        if found is None:
            self._missing.add(session_id)
        return found


@rejected_by(test_late_copies.test_a_late_copy_of_a_deletion_by_who_had_it_open)
class DeletesWhatIsThere(PerSQLSessionRepository):
    """A deletion takes the session of its id, whichever that is by then."""

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        if self.read_session(session_id) is None:
            raise NotFoundError("it isn't there", session_id=session_id)
        self.database.batch(
            [
                {"sql": f"DELETE FROM strands_{table} WHERE session_id = ?", "params": [session_id]}
                for table in TABLES
            ],
            transaction=True,
        )
        self.cache.clear()


def copy_of(record: Any) -> Any:
    """Make a record anew, that knows nothing of where its values come from."""
    return None if record is None else type(record)(**copy.deepcopy(fields(record)))


def fields(record: Any) -> dict[str, Any]:
    """Give what a record's constructor takes."""
    return {name: getattr(record, name) for name in type(record).__dataclass_fields__}


# -- managers that are wrong ----------------------------------------------------------------------


class _Deafened:
    """A registry of hooks to which some callbacks are never added."""

    def __init__(self, registry: HookRegistry, unheard: tuple[type, ...]) -> None:
        self._registry, self._unheard = registry, unheard

    def add_callback(self, event_type: Any, callback: Any, **options: Any) -> None:
        types = event_type if isinstance(event_type, list) else [event_type]
        if heard := [one for one in types if one not in self._unheard]:
            chosen = heard if isinstance(event_type, list) else heard[0]
            self._registry.add_callback(chosen, callback, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


@rejected_by(test_turn_end.test_state_that_a_later_hook_sets)
class Deaf(PerSQLSessionManager):
    """A manager that isn't told when a turn is over."""

    unheard: ClassVar[tuple[type, ...]] = (AfterInvocationEvent,)

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        super().register_hooks(_Deafened(registry, self.unheard), **kwargs)  # type: ignore[arg-type]


@rejected_by(test_warm_as_fresh.test_a_turn_that_goes_on_while_another_is_asked)
class Unlearning(PerSQLSessionManager):
    """What others have said since an agent was called is kept from its model."""

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        known: list[Message] = []
        registry.add_callback(
            BeforeInvocationEvent, lambda event: known.extend(event.agent.messages)
        )
        registry.add_callback(MessageAddedEvent, lambda event: known.append(event.message))
        registry.add_callback(BeforeModelCallEvent, lambda event: keep(event.agent))
        super().register_hooks(registry, **kwargs)

        def keep(agent: Any) -> None:
            agent.messages[:] = [one for one in agent.messages if any(one is it for it in known)]


@rejected_by(test_answered_once.test_a_double_click)
class AsksNobody(Deaf):
    """A manager that isn't told when a turn begins: who goes on with one asks nobody."""

    unheard: ClassVar[tuple[type, ...]] = (BeforeInvocationEvent,)


class _Restoring(PerSQLSessionManager):
    """A manager that restores something else than what was stored."""

    def initialize(self, agent: Any, **kwargs: Any) -> None:
        super().initialize(agent, **kwargs)
        self.spoil(agent)

    def spoil(self, agent: Any) -> None:
        """Spoil what has been restored."""
        raise NotImplementedError


@rejected_by(test_restored_equals_live.test_pins_at_the_start)
class ForgetsMarks(_Restoring):
    """Metadata isn't restored: neither pins nor marks."""

    def spoil(self, agent: Any) -> None:
        for message in agent.messages:
            message.pop("metadata", None)


@rejected_by(test_restored_equals_live.test_two_summaries)
class ForgetsTheFirst(_Restoring):
    """The first message isn't restored: a pin, a summary, or the window's first."""

    def spoil(self, agent: Any) -> None:
        del agent.messages[:1]


@rejected_by(test_restored_turns.test_an_interrupt_that_waits)
class ForgetsInterrupts(_Restoring):
    """That an agent waits for an answer isn't restored."""

    def spoil(self, agent: Any) -> None:
        agent._interrupt_state.deactivate()


@rejected_by(test_restored_equals_live.test_a_sliding_window)
class ForgetsWhatWasRemoved(_Restoring):
    """What the conversation manager has counted isn't restored."""

    def spoil(self, agent: Any) -> None:
        agent.conversation_manager.removed_message_count = 0


@rejected_by(test_restored_turns.test_initial_messages)
class TwoOfEach(_Restoring):
    """The latest message is restored twice."""

    def spoil(self, agent: Any) -> None:
        agent.messages += agent.messages[-1:]


@rejected_by(test_restored_equals_live.test_the_default_window_over_a_long_turn)
class ForgetsResults(_Restoring):
    """Results of tools aren't restored, so that a model is shown calls without them."""

    def spoil(self, agent: Any) -> None:
        agent.messages[:] = [one for one in agent.messages if "toolResult" not in one["content"][0]]


@rejected_by(test_what_goes_in.test_the_state)
class TextsForValues(_Restoring):
    """Values of the state are restored as texts."""

    def spoil(self, agent: Any) -> None:
        agent.state = AgentState({key: str(value) for key, value in agent.state.get().items()})


# -- the judgement ---------------------------------------------------------------------------------


def cases(test: Test) -> Iterator[dict[str, Any]]:
    """Give the values of a test's parameters besides the backend, for each time that it is run."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for chosen in itertools.product(*map(_cases, marks)):
        yield {name: value for case in chosen for name, value in case.items()}


def _cases(mark: pytest.Mark) -> list[dict[str, Any]]:
    names = mark.args[0]
    if isinstance(names, str):
        return [{names: value} for value in mark.args[1]]
    return [dict(zip(names, values, strict=True)) for values in mark.args[1]]


def contract() -> Iterator[Test]:
    """Give every test of the contract that takes a backend and its parameters alone."""
    for module in MODULES:
        for name, test in inspect.getmembers(module, inspect.isfunction):
            marks = getattr(test, "pytestmark", ())
            # Only pytest can let what is marked so pass.
            is_plain = not {mark.name for mark in marks} & {"xfail", "filterwarnings"}
            if name.startswith("test_") and is_plain:
                taken = {name for case in cases(test) for name in case}
                if set(inspect.signature(test).parameters) == {"backend", *taken}:
                    yield test


def failures(test: Test, store: Store | None = None) -> Iterator[str]:
    """Give the cases of a test that fail on a broken store, or on the sound one."""
    for case in cases(test):
        with LocalDatabase() as database:
            try:
                test(backend_of(store, database), **case)
            except pytest.skip.Exception:
                continue
            except (AssertionError, pytest.fail.Exception, PerSQLError) as failure:
                yield f"{test.__name__}{list(case.values())}: {failure!r}"


def backend_of(store: Store | None, database: LocalDatabase) -> Backend:
    """Make a backend whose database or repository is the broken one."""
    if store is None:
        return Backend(database)
    if issubclass(store, BrokenDatabase):
        return Backend(store(database))
    if issubclass(store, PerSQLSessionManager):
        return _Managed(database, store)
    return _Stored(database, store)


class _Stored(Backend):
    """A backend whose repositories are broken."""

    def __init__(self, database: Database, store: type[PerSQLSessionRepository]) -> None:
        super().__init__(database)
        self._store = store

    def repository(
        self, database: Database | None = None, **options: Any
    ) -> PerSQLSessionRepository:
        options.setdefault("retry", FAST)
        return self._store(database or self.database, **options)


class _Managed(Backend):
    """A backend whose managers are broken."""

    def __init__(self, database: Database, store: type[PerSQLSessionManager]) -> None:
        super().__init__(database)
        self._store = store

    def manager(
        self,
        session_id: str = "s",
        *,
        repository: PerSQLSessionRepository | None = None,
        commit: Any = "message",
        **options: Any,
    ) -> PerSQLSessionManager:
        repository = repository or self.repository(**options)
        return self._store(session_id, repository=repository, commit=commit)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_sound_store_passes() -> None:
    """The runner that judges broken stores finds nothing to blame in the sound one."""
    assert [failure for test in contract() for failure in failures(test)] == []


def test_the_runner_finds_the_tests() -> None:
    """Hundreds of the contract's tests take part in the judgement, each store's own among them."""
    tests = list(contract())
    assert sum(len(list(cases(test))) for test in tests) > 200
    assert [store.id for store in BROKEN if store.values[1] not in tests] == []


@pytest.mark.parametrize(("store", "test"), BROKEN)
def test_a_broken_store_is_rejected(store: Store, test: Test) -> None:
    """The test of the contract that is about it fails on each broken store."""
    assert next(failures(test, store), None) is not None
