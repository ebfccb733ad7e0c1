"""Tokens that may do less: what works, and which error says what to do."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from strands_persql import (
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RestError,
    RetryPolicy,
)
from strands_persql.admin import SessionAdmin
from strands_persql.admin.catalogue import Order
from strands_persql.errors import AccessDeniedError, PerSQLError, SchemaError, UnavailableError
from tests.engine.engine import Engine
from tests.support import backends
from tests.support.backends import NEVER, Address, Backend
from tests.support.conversation import said, session, session_agent


@pytest.fixture
def hosted(engine: Engine, database_name: str) -> Iterator[Backend]:
    """The hosted database, as its administrator has it."""
    with backends.opened("http", engine=engine, name=database_name) as backend:
        yield backend


@pytest.fixture
def readwrite(engine: Engine, database_name: str) -> Iterator[Backend]:
    """The same, behind a token that may write rows but make no tables."""
    with backends.opened("http", engine=engine, name=database_name, role="readwrite") as backend:
        yield backend


@pytest.fixture
def readonly(engine: Engine, database_name: str) -> Iterator[Backend]:
    """The same, behind a token that may only read."""
    with backends.opened("http", engine=engine, name=database_name, role="readonly") as backend:
        yield backend


def test_without_the_right_to_make_tables_an_error_has_the_sql(
    hosted: Backend, readwrite: Backend
) -> None:
    """A token that may not make tables gets statements, and somebody else may run them."""
    repository = readwrite.repository()
    with pytest.raises(SchemaError, match=r"\.setup\(\)") as caught:
        repository.read_session("s")
    for sql in caught.value.sql.split(";\n"):
        hosted.raw(sql.rstrip(";"))
    agent = readwrite.agent(["hi"], manager=readwrite.manager(repository=repository))
    agent("hello")
    assert said(hosted.agent().messages) == ["hello", "hi"]


def test_after_setup_by_an_administrator_a_lesser_token_writes(
    hosted: Backend, readwrite: Backend
) -> None:
    """``setup`` by whom may do it is all that a token without the right needs."""
    hosted.repository().setup()
    repository = readwrite.repository()
    repository.create_session(session())
    repository.create_agent("s", session_agent(n=1))
    agent = hosted.repository().read_agent("s", "a")
    assert agent is not None
    assert agent.state == {"n": 1}


def test_setup_without_the_right_says_what_to_do(readwrite: Backend) -> None:
    """A call of ``setup`` that may not make the tables that are missing raises with the SQL."""
    with pytest.raises(SchemaError) as caught:
        readwrite.repository().setup()
    assert "CREATE TABLE" in caught.value.sql


def test_what_is_missing_is_named(hosted: Backend, readwrite: Backend) -> None:
    """The error names the tables and columns that are missing, and leaves the SQL to ``sql``."""
    hosted.repository().setup()
    hosted.raw("DROP TABLE strands_multi_agents")
    for event in ("created", "replaced", "deleted"):
        hosted.raw(f"DROP TRIGGER strands_agents_view_{event}")
    hosted.raw("ALTER TABLE strands_agents DROP COLUMN view")
    with pytest.raises(SchemaError) as caught:
        readwrite.repository().setup()
    said = "lacks column strands_agents.view, table strands_multi_agents, triggers, and this"
    assert said in str(caught.value)
    assert "CREATE" not in str(caught.value)


def test_a_token_that_is_unknown_and_one_that_may_not(
    readonly: Backend, engine: Engine, database_name: str
) -> None:
    """401 and 403 have messages of their own, with what to check."""
    with (
        RestClient("psql_live_unknown", base_url=engine.base_url) as client,
        pytest.raises(AccessDeniedError, match="The token isn't known") as caught,
    ):
        PerSQLSessionRepository(client.database(database_name)).read_session("s")
    assert caught.value.status == 401
    with pytest.raises(AccessDeniedError, match="The token is known and may not") as caught:
        PerSQLSessionRepository(readonly.plain, retry=NEVER).create_session(session())
    assert caught.value.status == 403


def test_a_token_that_may_read_is_enough_to_look(hosted: Backend, readonly: Backend) -> None:
    """What looks at sessions, moves them out and checks them runs nothing that writes."""
    manager = hosted.manager()
    agent = hosted.agent(["hi"], manager=manager)
    agent("hello")
    manager.checkpoint(agent, "here")
    admin = SessionAdmin(readonly.plain, retry=NEVER)
    orders: tuple[Order, ...] = ("id", "activity")
    for order in orders:
        assert len(admin.list_sessions(order=order, counts=True).items) == 1
    assert [*admin.check()] == []
    assert [one.agent_id for one in admin.list_agents("s", counts=True)] == ["a"]
    assert len(admin.transcript("s", "a").items) == 2
    assert admin.measure().sessions == 1
    assert admin.export_archive(io.BytesIO()).checkpoints == 1
    repository = PerSQLSessionRepository(readonly.plain, retry=NEVER, read_only=True)
    assert len(repository.list_checkpoints("s")) == 1


def test_setup_that_finds_nothing_to_do_needs_no_right(hosted: Backend, readwrite: Backend) -> None:
    """Where the tables are as they should be, anyone may call ``setup``."""
    hosted.repository().setup()
    readwrite.repository().setup()


def test_an_old_table_without_the_right_to_upgrade_has_the_sql(
    hosted: Backend, readwrite: Backend
) -> None:
    """Tables of 0.1 and a token that may not alter them: the error has the statements to run."""
    columns = "session_id TEXT, agent_id TEXT, message_id INTEGER, data TEXT, created_at TEXT"
    for table in ("sessions", "agents", "messages"):
        hosted.raw(f"CREATE TABLE strands_{table} ({columns})")
    repository = readwrite.repository()
    with pytest.raises(SchemaError) as caught:
        repository.read_session("s")
    for sql in caught.value.sql.split(";\n"):
        hosted.raw(sql.rstrip(";"))
    assert repository.read_session("s") is None


def test_a_token_that_may_read_can_open(hosted: Backend, readonly: Backend) -> None:
    """A read-only token opens, reads and restores, and its writes are refused at once."""
    hosted.agent(["hi"])("hello")
    repository = readonly.repository()
    assert repository.read_session("s") is not None
    agent = readonly.agent(manager=readonly.manager(repository=repository))
    assert said(agent.messages) == ["hello", "hi"]
    readonly.database.reset()
    with pytest.raises(AccessDeniedError):
        repository.update_agent("s", session_agent(n=1))
    assert readonly.database.round_trips == 1


def test_a_token_that_may_read_and_no_tables(readonly: Backend) -> None:
    """Without tables a read-only token gets the error with the SQL."""
    with pytest.raises(SchemaError):
        readonly.repository().read_session("s")


def test_a_refused_token_is_not_repeated_in_its_error(engine: Engine, database_name: str) -> None:
    """A token of another namespace is an access error, and no error or repr shows it."""
    token = engine.token(namespace="other")
    with Address(engine.base_url, database_name, token).open() as database:
        repository = Backend(database).repository()
        with pytest.raises(AccessDeniedError) as caught:
            repository.read_session("s")
        shown = [
            str(caught.value),
            repr(caught.value),
            repr(repository),
            repr(caught.value.__cause__),
        ]
    assert not [text for text in shown if token in text]


def test_a_token_may_change_while_a_client_is_in_use(engine: Engine, database_name: str) -> None:
    """A function is asked for the token of each request: a new one works from then on."""
    role = "readonly"
    with RestClient(lambda: engine.token(role=role), base_url=engine.base_url) as client:
        database = client.database(database_name)
        with pytest.raises(AccessDeniedError):
            PerSQLSessionRepository(database).create_session(session())
        role = "admin"
        PerSQLSessionRepository(database).create_session(session())


def test_a_manager_takes_a_function_for_its_token(engine: Engine, database_name: str) -> None:
    """``from_token`` takes what returns the token too."""
    with PerSQLSessionManager.from_token(
        "s", engine.token, database_name, base_url=engine.base_url
    ) as manager:
        assert list(manager.session_repository.list_sessions()) == []


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        (OSError("s3cr3t store is away"), UnavailableError, "raised OSError"),
        ("two words s3cr3t", AccessDeniedError, "returned what can't be one"),
        (None, AccessDeniedError, "returned what can't be one"),
        ("psql_test_admin_other_s3cr3t", AccessDeniedError, "status 403"),
    ],
)
def test_a_function_without_a_token_is_told(
    engine: Engine,
    database_name: str,
    returned: Any,
    error: type[PerSQLError],
    said: str,
) -> None:
    """What a function raises is as a database out of reach, what it returns is checked, unshown."""

    def token() -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    with RestClient(token, base_url=engine.base_url) as client:
        repository = PerSQLSessionRepository(
            client.database(database_name), retry=RetryPolicy.never()
        )
        with pytest.raises(error, match=said) as caught:
            repository.read_session("s")
    assert "s3cr3t" not in f"{caught.value}{caught.value.__cause__!r}{client!r}"


def test_tokens_that_were_are_not_repeated(engine: Engine, database_name: str) -> None:
    """Whatever a service repeats of the tokens that it was given is in no error."""
    tokens = itertools.cycle([f"psql_bad_{number}_s3cr3t" for number in range(5)])
    with RestClient(lambda: next(tokens), base_url=engine.base_url) as client:
        for _ in range(10):
            with pytest.raises(RestError) as caught:
                client.database(database_name).query("SELECT 1")
            assert "s3cr3t" not in f"{caught.value} {caught.value.detail}"


def test_a_manager_from_a_token_owns_its_client(engine: Engine, database_name: str) -> None:
    """``from_token`` opens a hosted session, and closing the manager closes its connections."""
    with PerSQLSessionManager.from_token(
        "s", engine.token(), database_name, base_url=engine.base_url
    ) as manager:
        assert manager.session_repository.read_session("s") is None
    with pytest.raises(Exception, match="closed"):
        manager.session_repository.read_session("s")
