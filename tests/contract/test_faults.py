"""Requests that are lost, repeated or late: a write is applied once, or known not to be."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest

from strands_persql import PerSQLSessionRepository, RetryPolicy, Statement
from strands_persql.errors import (
    DatabaseError,
    NotFoundError,
    OutcomeUnknownError,
    PerSQLError,
    StatementError,
    UnavailableError,
)
from strands_persql.testing import (
    CountingDatabase,
    Fault,
    FaultyDatabase,
    InterceptingDatabase,
    ScriptedModel,
    ToolCall,
)
from tests.support.backends import FAST, NEVER, Backend
from tests.support.conversation import (
    Team,
    count,
    ids_in_database,
    in_database,
    listed,
    said,
    session,
    session_agent,
    session_message,
    state_in_database,
    stored,
    user,
)
from tests.support.faults import EVERY_FAULT, UNSURE, Switch

Write = Callable[[PerSQLSessionRepository], Any]
WRITES: dict[str, Write] = {
    "create_session": lambda one: one.create_session(session("new")),
    "create_agent": lambda one: one.create_agent("s", session_agent("b", n=1)),
    "update_agent": lambda one: one.update_agent("s", session_agent(n=1)),
    "create_message": lambda one: one.create_message("s", "a", session_message("two", 2)),
    "update_message": lambda one: one.update_message("s", "a", session_message("changed", 1)),
    "create_multi_agent": lambda one: one.create_multi_agent("s", Team("other", n=1)),
    "update_multi_agent": lambda one: one.update_multi_agent("s", Team(n=1)),
    "delete_session": lambda one: one.delete_session("s"),
}


def two_of_three(fault: Fault) -> Callable[[int], Fault | None]:
    """Let two of three calls go wrong."""
    return lambda call: fault if call % 3 else None


def prepared(backend: Backend, switch: Switch, **options: Any) -> PerSQLSessionRepository:
    """Store what the writes need, and give a repository that has read all of it."""
    stored(backend, "zero", "one", n=0).create_multi_agent("s", Team(n=0))
    repository = backend.repository(switch, **options)
    repository.read_session("s")
    repository.read_agent("s", "a")
    repository.read_multi_agent("s", "team")
    return repository


def content(backend: Backend) -> Any:
    """Give all rows without times and write ids, which differ from run to run."""
    volatile = ("write_id", "writes", "created_at", "updated_at", "stored_at", "data", "epoch")
    return {
        table: [{k: v for k, v in row.items() if k not in volatile} for row in rows]
        for table, rows in backend.dump().items()
    }


@pytest.mark.guarantee(number=4)
@pytest.mark.parametrize("fault", EVERY_FAULT)
@pytest.mark.parametrize("write", WRITES)
def test_a_retried_write_is_applied_once(backend: Backend, write: str, fault: Fault) -> None:
    """Whatever befalls its request, a write that returns has been applied exactly once."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch, retry=FAST)
    switch.next = [fault]
    # Nothing is left by which the second of two equal deletions could know the first one.
    doubled_deletion = write == "delete_session" and fault == "duplicate"
    with contextlib.suppress(*[NotFoundError] if doubled_deletion else []):
        WRITES[write](repository)
    switch.deliver_late()
    after = content(backend)
    backend.repository().delete_session("s") if write != "delete_session" else None
    if write == "create_session":
        backend.repository().delete_session("new")
    clean = prepared(backend, Switch(backend.database))
    WRITES[write](clean)
    assert after == content(backend)


@pytest.mark.parametrize("fault", UNSURE)
@pytest.mark.parametrize("write", WRITES)
def test_a_failed_writes_error_says_what_is_known(
    backend: Backend, write: str, fault: Fault
) -> None:
    """Without a retry a lost answer is an unknown outcome, and all else was surely not applied."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch, retry=NEVER)
    before = content(backend)
    switch.next = [fault]
    expected = OutcomeUnknownError if fault == "lost_answer" else UnavailableError
    with pytest.raises(expected) as caught:
        WRITES[write](repository)
    assert caught.value.session_id in ("s", "new")
    assert (content(backend) == before) == (fault != "lost_answer")


@pytest.mark.guarantee(number=1)
@pytest.mark.parametrize("fault", EVERY_FAULT)
@pytest.mark.parametrize("write", [name for name in WRITES if name != "delete_session"])
def test_the_cache_agrees_with_the_database_after_a_fault(
    backend: Backend, write: str, fault: Fault
) -> None:
    """Whether a write raised or not, what is read next is what the database has."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch, retry=NEVER)
    switch.next = [fault]
    with contextlib.suppress(PerSQLError):
        WRITES[write](repository)
    fresh = backend.repository()
    for agent_id in ("a", "b"):
        assert repository.read_agent("s", agent_id) == fresh.read_agent("s", agent_id)
    for multi_agent_id in ("team", "other"):
        assert repository.read_multi_agent("s", multi_agent_id) == fresh.read_multi_agent(
            "s", multi_agent_id
        )
    assert repository.list_messages("s", "a") == fresh.list_messages("s", "a")


@pytest.mark.guarantee(number=4)
@pytest.mark.parametrize("fault", UNSURE)
def test_a_failed_write_of_an_object_can_be_repeated(backend: Backend, fault: Fault) -> None:
    """Writing the same objects again after an error stores each of them once."""
    backend.repository().setup()
    switch = Switch(backend.database)
    repository = backend.repository(switch, retry=NEVER)
    made: list[Callable[[], Any]] = []
    one, agent, message = session(), session_agent(n=0), session_message("zero", 0)
    made.append(lambda: repository.create_session(one))
    made.append(lambda: repository.create_agent("s", agent))
    made.append(lambda: repository.create_message("s", "a", message))
    for write in made:
        switch.next = [fault]
        with pytest.raises(DatabaseError):
            write()
        write()
    agent.state["n"] = 1
    switch.next = [fault]
    with pytest.raises(DatabaseError):
        repository.update_agent("s", agent)
    repository.update_agent("s", agent)
    assert in_database(backend) == ["zero"]
    assert state_in_database(backend) == {"n": 1}


@pytest.mark.guarantee(number=4)
def test_a_lost_answer_that_was_built_upon_is_no_conflict(backend: Backend) -> None:
    """A write whose answer was lost is found to be applied, also when another came after it."""
    stored(backend, n=0, m=0)
    other = backend.repository()
    theirs: Any = other.read_agent("s", "a")

    def let_another_writer_come(*_: object) -> NoReturn:
        database.after = None
        theirs.state["m"] = 1
        other.update_agent("s", theirs)
        raise ConnectionResetError("lost")

    database = InterceptingDatabase(backend.plain)
    strict = backend.repository(database, on_conflict="raise")
    ours = strict.read_agent("s", "a")
    assert ours is not None
    ours.state["n"] = 1
    database.after = let_another_writer_come
    strict.update_agent("s", ours)
    assert state_in_database(backend) == {"n": 1, "m": 1}
    assert backend.raw("SELECT version FROM strands_agents") == [{"version": 3}]


def test_a_state_whose_answer_was_lost_survives_anothers(backend: Backend) -> None:
    """A state stored without an answer and built upon is neither lost in memory nor stored."""
    switch = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(switch, retry=NEVER))
    agent = backend.agent(manager=manager)
    agent.state.set("ours", 1)
    switch.next = ["lost_answer"]
    with pytest.raises(OutcomeUnknownError):
        manager.sync_agent(agent)
    other = backend.agent(["hi"])
    other.state.set("theirs", 2)
    other("q")
    manager.append_message(user("x"), agent)
    manager.sync_agent(agent)
    assert agent.state.get() == {"ours": 1, "theirs": 2}
    assert state_in_database(backend) == {"ours": 1, "theirs": 2}


@pytest.mark.guarantee(number=4)
def test_a_straggler_changes_nothing(backend: Backend) -> None:
    """A copy of an update that arrives after later updates is not applied again."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch)
    switch.next = ["delayed_duplicate"]
    repository.update_agent("s", session_agent(n=1))
    repository.update_agent("s", session_agent(n=2))
    switch.next = ["delayed_duplicate"]
    repository.create_message("s", "a", session_message("two", 2))
    repository.create_message("s", "a", session_message("three", 3))
    switch.deliver_late()
    assert state_in_database(backend) == {"n": 2}
    assert in_database(backend) == ["zero", "one", "two", "three"]


@pytest.mark.guarantee(number=11)
@pytest.mark.parametrize("fault", UNSURE)
def test_a_fault_while_opening_is_no_new_session(backend: Backend, fault: Fault) -> None:
    """A session that can't be read raises, and nothing of it is written over."""
    backend.agent(["hi"])("hello")
    before = backend.dump()
    switch = Switch(backend.database)
    repository = backend.repository(switch, retry=NEVER)
    switch.next = [fault]
    with pytest.raises(DatabaseError):
        backend.manager(repository=repository)
    switch.next = [fault]
    with pytest.raises(DatabaseError):
        repository.read_session("s")
    assert backend.dump() == before
    assert said(backend.agent(manager=backend.manager(repository=repository)).messages) == [
        "hello",
        "hi",
    ]


@pytest.mark.parametrize("fault", UNSURE)
def test_an_agent_that_could_not_be_started_can_be_started_again(
    backend: Backend, fault: Fault
) -> None:
    """After a fault at an agent's creation its manager takes it anew, with its messages once."""
    backend.repository().setup()
    switch = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(switch, retry=NEVER))
    switch.next = [fault]
    with pytest.raises(DatabaseError):
        backend.agent(manager=manager, messages=[user("first")])
    agent = backend.agent(["hi"], manager=manager, messages=[user("first")])
    agent("hello")
    assert in_database(backend) == ["first", "hello", "hi"]


@pytest.mark.guarantee(number=14)
@pytest.mark.parametrize("fault", UNSURE)
@pytest.mark.parametrize("failing", range(4))
def test_a_failed_append_goes_out_with_the_next_write(
    backend: Backend, fault: Fault, failing: int
) -> None:
    """What an agent said and could not store is stored first next time, once, without a hole."""
    switch = Switch(backend.database)
    faulty = backend.repository(switch, retry=NEVER)
    agent = backend.agent(
        [ToolCall("count"), "one", ToolCall("count"), "two", "three"],
        manager=backend.manager(repository=faulty),
        tools=[count],
    )
    switch.next = [None] * failing + [fault]
    with pytest.raises(Exception, match=r"database|answer"):
        agent("first")
    agent("second")
    agent("third")
    texts = in_database(backend)
    assert texts == said(agent.messages)
    assert ids_in_database(backend) == list(range(len(texts)))
    assert said(backend.agent().messages) == texts
    assert state_in_database(backend) == agent.state.get()


@pytest.mark.guarantee(number=14)
def test_a_failed_append_and_another_writer_keep_both_whole(backend: Backend) -> None:
    """An unsaved message goes out in order, behind what another writer stored meanwhile."""
    switch = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(switch, retry=NEVER))
    agent = backend.agent(manager=manager)
    switch.next = ["lost_request"]
    agent.messages.append(user("unsaved"))
    with pytest.raises(UnavailableError):
        manager.append_message(agent.messages[-1], agent)
    backend.agent(["other"])("between")
    agent.messages.append(user("next"))
    manager.append_message(agent.messages[-1], agent)
    texts = in_database(backend)
    assert sorted(texts) == ["between", "next", "other", "unsaved"]
    assert texts.index("unsaved") < texts.index("next")
    assert texts.index("other") == texts.index("between") + 1


@pytest.mark.guarantee(number=14)
def test_a_failed_redaction_goes_out_with_the_next_write(backend: Backend) -> None:
    """A redaction that could not be stored isn't forgotten."""
    switch = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(switch, retry=NEVER))
    agent = backend.agent(["fine"], manager=manager)
    agent.messages.append(user("secret"))
    manager.append_message(agent.messages[0], agent)
    switch.next = ["lost_request"]
    agent.messages[0] = user("[gone]")
    with pytest.raises(UnavailableError):
        manager.redact_latest_message(agent.messages[0], agent)
    assert in_database(backend) == ["secret"]
    agent("next")
    assert in_database(backend) == ["[gone]", "next", "fine"]


def test_a_redaction_of_an_unsaved_message_is_stored_redacted(backend: Backend) -> None:
    """A message whose append failed and that was redacted then is stored redacted, once."""
    for fault in UNSURE:
        switch = Switch(backend.database)
        repository = backend.repository(switch, retry=NEVER)
        manager = backend.manager(fault, repository=repository)
        agent = backend.agent(["fine"], manager=manager)
        agent.messages.append(user("secret"))
        switch.next = [fault]
        with pytest.raises(DatabaseError):
            manager.append_message(agent.messages[0], agent)
        agent.messages[0] = user("[gone]")
        manager.redact_latest_message(agent.messages[0], agent)
        agent("next")
        assert in_database(backend, fault) == ["[gone]", "next", "fine"]


def test_a_model_error_leaves_a_session_to_go_on_with(backend: Backend) -> None:
    """When the model raises, the user's message stays stored, and the next turn follows it."""
    agent = backend.agent([RuntimeError("no model"), "fine"])
    with pytest.raises(Exception, match="no model"):
        agent("first")
    assert in_database(backend) == ["first"]
    agent("second")
    assert in_database(backend) == said(agent.messages)


def test_an_error_of_the_sql_is_raised_at_once(backend: Backend) -> None:
    """What no retry can mend is sent once and raised as our own error."""

    def refuse(_: Sequence[Statement]) -> NoReturn:
        raise ValueError("syntax error in your SQL")

    database = CountingDatabase(InterceptingDatabase(backend.plain, before=refuse))
    with pytest.raises(StatementError, match="syntax error"):
        backend.repository(database).read_session("s")
    assert database.round_trips == 1


@pytest.mark.guarantee(number=16)
def test_retries_end_with_their_budget(backend: Backend) -> None:
    """A database that stays away is an error of ours that tells for whom and how often."""
    down = FaultyDatabase(backend.database, lambda _: "lost_request")
    repository = backend.repository(down, retry=RetryPolicy(budget=0.05, first_wait=0.001))
    with pytest.raises(UnavailableError, match=r"session 's' in \d+ tries"):
        repository.read_session("s")
    assert repository.stats().retries >= 1


def test_batches_that_answer_short_are_an_error(backend: Backend) -> None:
    """A database that gives fewer results than statements isn't believed."""

    stored(backend)
    short = InterceptingDatabase(backend.plain, after=lambda _, results: results[:-1])
    with pytest.raises(PerSQLError):
        backend.repository(short).read_session("s")


def test_a_retry_is_told_from_a_missing_session(backend: Backend) -> None:
    """A deletion whose answer was lost and that is tried again succeeded; a new one raises."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch)
    switch.next = ["lost_answer"]
    repository.delete_session("s")
    with pytest.raises(NotFoundError):
        repository.delete_session("s")


@pytest.mark.guarantee(number=2)
def test_two_turns_within_faults_are_never_doubled(backend: Backend) -> None:
    """Duplicates and lost answers at every step leave each message once, in all memories."""
    for fault in EVERY_FAULT:
        database = FaultyDatabase(backend.database, two_of_three(fault))
        repository = backend.repository(database)
        session_id = f"of-{fault}"
        one = backend.agent(
            [ToolCall("count"), "1", "2"],
            manager=backend.manager(session_id, repository=repository),
            tools=[count],
        )
        two = backend.agent(["3", "4"], manager=backend.manager(session_id))
        one("q1")
        two("q2")
        one("q3")
        two("q4")
        database.deliver_late()
        expected = ["q1", "call count", "result 1", "1", "q2", "3", "q3", "2", "q4", "4"]
        assert in_database(backend, session_id) == expected, fault
        assert said(two.messages) == expected
        assert isinstance(two.model, ScriptedModel)
        assert said(two.model.calls[-1]) == expected[:-1]
        repository.read_session(session_id)
        assert said(m.to_message() for m in repository.list_messages(session_id, "a")) == expected


@pytest.mark.guarantee(number=1)
def test_the_cache_is_not_asked_after_a_failed_write(backend: Backend) -> None:
    """After an unknown outcome the next read asks the database."""
    switch = Switch(backend.database)
    repository = prepared(backend, switch, retry=NEVER, max_staleness=1000)
    switch.next = ["lost_answer"]
    with pytest.raises(OutcomeUnknownError):
        repository.create_message("s", "a", session_message("two", 2))
    assert listed(repository) == ["zero", "one", "two"]
