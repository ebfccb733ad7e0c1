"""Agents over real HTTP to the engine beneath PerSQL, with every fault that a network has."""

import contextlib
import itertools
import json
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from strands import Agent
from strands.types.content import Messages
from strands.types.session import SessionMessage

from strands_persql import (
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RetryPolicy,
)
from strands_persql.errors import (
    AccessDeniedError,
    DatabaseOpenError,
    NotFoundError,
    OutcomeUnknownError,
    PerSQLError,
    UnavailableError,
)
from strands_persql.testing import Redact, Reply, ScriptedModel, ToolCall
from tests.engine.engine import Engine
from tests.engine.proxy import FaultProxy, Request
from tests.support.conversation import (
    Team,
    assistant,
    count,
    plain,
    said,
    session,
    session_agent,
    session_message,
    user,
)
from tests.support.servers import RawServer, dripping

NEVER = RetryPolicy.never()


class Hosted:
    """A hosted database: through the proxy, and straight behind its back.

    Attributes:
        engine: The engine.
        proxy: The proxy before it.
        name: The database's name.
    """

    def __init__(self, engine: Engine, proxy: FaultProxy, name: str) -> None:
        self.engine, self.proxy, self.name = engine, proxy, name
        self._through = RestClient(engine.token(), base_url=proxy.base_url)
        self._straight = RestClient(engine.token(), base_url=engine.base_url)

    def repository(self, *, straight: bool = False, **options: Any) -> PerSQLSessionRepository:
        """Make a repository with a cache of its own, on the one pool of connections."""
        client = self._straight if straight else self._through
        return PerSQLSessionRepository(client.database(self.name), **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Give all rows of a table, behind the library's back."""
        sql = f"SELECT * FROM strands_{table} ORDER BY 1, 2, 3"
        rows: list[dict[str, Any]] = self._straight.database(self.name).query(sql)["data"]
        return rows

    def close(self) -> None:
        """Close the connections."""
        self._through.close()
        self._straight.close()


@pytest.fixture
def hosted(engine: Engine, fault_proxy: FaultProxy, database_name: str) -> Iterator[Hosted]:
    """An empty hosted database, with its tables."""
    database = Hosted(engine, fault_proxy, database_name)
    database.repository(straight=True).setup()
    yield database
    database.close()


# -- conversations ---------------------------------------------------------------------------------


def reply_to(messages: Messages) -> Reply:
    """Answer by what was said last: each third question takes a tool, some are redacted."""
    last = said(messages)[-1]
    number = int(last.rpartition(" ")[2])
    if last.startswith("result"):
        return f"counted {number}"
    if number % 3 == 0:
        return ToolCall("count", id=f"call-{number}")
    return Redact(f"redacted {number}", "no") if number % 7 == 5 else f"answer {number}"


def expected(turns: int) -> list[str]:
    """Tell what a conversation of so many turns says, from its rules alone."""
    texts: list[str] = []
    for turn in range(turns):
        counted = turn // 3 + 1
        if turn % 3 == 0:
            texts += [f"question {turn}", "call count", f"result {counted}", f"counted {counted}"]
        elif turn % 7 == 5:
            texts += [f"redacted {turn}", "no"]
        else:
            texts += [f"question {turn}", f"answer {turn}"]
    return texts


def converse(
    opened: Callable[[], PerSQLSessionManager],
    turns: int,
    *,
    reopen_every: int = 10,
    listening: Callable[[Messages], None] = lambda _: None,
) -> None:
    """Have a conversation of so many turns, opening the session anew every so often."""

    def reply(messages: Messages) -> Reply:
        listening(messages)
        return reply_to(messages)

    for number in range(turns):
        if number % reopen_every == 0:
            agent = Agent(
                model=ScriptedModel(reply),
                session_manager=opened(),
                agent_id="a",
                tools=[count],
                callback_handler=None,
            )
        agent.state.set("turns", number + 1)
        agent(f"question {number}")


def stored(hosted: Hosted) -> list[str]:
    """Tell what the database's messages say, and see that each id is taken once, without holes."""
    rows = hosted.rows("messages")
    assert [row["message_id"] for row in rows] == list(range(len(rows)))
    return said(SessionMessage.from_dict(json.loads(row["data"])).to_message() for row in rows)


def essence(hosted: Hosted, *, versions: bool = True) -> dict[str, Any]:
    """Give what is stored, without the times and ids that differ from run to run."""

    def content(row: dict[str, Any]) -> Any:
        data = json.loads(row["data"])
        if "message" in data:
            redacted = data["redact_message"]
            return plain([data["message"]]), None if redacted is None else plain([redacted])
        return {key: data[key] for key in data if not key.endswith("_at") and key != "_internal"}

    keys = ["session_id", "agent_id", "multi_agent_id", "message_id", "window_start"]
    keys += ["version"] if versions else []
    return {
        table: [{**{k: row.get(k) for k in keys}, "is": content(row)} for row in hosted.rows(table)]
        for table in ("sessions", "agents", "messages", "multi_agents")
    }


class Killer:
    """Kills the engine with SIGKILL when it is told to, a moment later, and starts it again.

    Attributes:
        kills: How often it did.
    """

    def __init__(self, engine: Engine) -> None:
        self.kills = 0
        self._engine = engine
        self._told: queue.Queue[float | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def tell(self, after: float) -> None:
        """Let it kill once more in so many seconds, while its caller goes on."""
        self._told.put(after)

    def _work(self) -> None:
        while (after := self._told.get()) is not None:
            time.sleep(after)
            self._engine.restart()
            self.kills += 1

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._told.put(None)
        self._thread.join(60.0)


@pytest.mark.timeout(300)
def test_an_engine_killed_twenty_times_loses_and_doubles_nothing(
    engine: Engine, hosted: Hosted
) -> None:
    """SIGKILL at 20 moments of a 500-message conversation leaves each message there once."""
    repositories: list[PerSQLSessionRepository] = []
    draw = Random(11)  # noqa: S311 - faults, not secrets
    turns, questions = 188, itertools.count()

    def opened() -> PerSQLSessionManager:
        repositories.append(hosted.repository(straight=True))
        return PerSQLSessionManager("s", repository=repositories[-1])

    with Killer(engine) as killer:

        def listening(_: Messages) -> None:
            if next(questions) % 12 == 5:
                killer.tell(after=draw.uniform(0, 0.01))

        converse(opened, turns, listening=listening)
    assert killer.kills >= 20
    assert stored(hosted) == expected(turns)
    assert len(expected(turns)) >= 500
    assert json.loads(hosted.rows("agents")[0]["data"])["state"] == {"n": 63, "turns": turns}
    assert sum(one.stats().retries for one in repositories) >= 20


FAULTS: dict[str, type[PerSQLError] | None] = {
    "latency:0.02": None,
    "latency_after:0.02": None,
    "429:0": UnavailableError,
    "status:408": UnavailableError,
    "status:503": OutcomeUnknownError,
    "500_before": OutcomeUnknownError,
    "500_after": OutcomeUnknownError,
    "cut_answer": OutcomeUnknownError,
    "close_before": OutcomeUnknownError,
    "close_after": OutcomeUnknownError,
    "reset_after": OutcomeUnknownError,
    "not_json": OutcomeUnknownError,
    "not_json_before": OutcomeUnknownError,
    "duplicate": None,
    "duplicate_first": None,
    "delay_duplicate:1": None,
    "delay_duplicate:5": None,
}
"""Each fault of the wire, and what a write that met it raises where nothing is tried again."""


def every_third(seed: int) -> Callable[[Request], str | None]:
    """Let every third request go wrong, each in a way of its own."""
    draw = Random(seed)  # noqa: S311 - faults, not secrets
    faults = sorted(FAULTS)
    return lambda request: draw.choice(faults) if request.number % 3 == 0 else None


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("commit", "turns", "seed"), [("message", 188, 1), ("message", 40, 2), ("turn", 60, 3)]
)
def test_a_fault_on_every_third_request_changes_nothing(
    engine: Engine, hosted: Hosted, commit: Any, turns: int, seed: int
) -> None:
    """With default settings a conversation among faults ends as it does without any."""
    calm = Hosted(engine, hosted.proxy, hosted.name + "-calm")
    converse(lambda: PerSQLSessionManager("s", repository=calm.repository(), commit=commit), turns)
    assert stored(calm) == expected(turns)

    hosted.proxy.strip_idempotency_key = True
    hosted.proxy.script = every_third(seed)
    hosted.proxy.reset()
    converse(
        lambda: PerSQLSessionManager("s", repository=hosted.repository(), commit=commit), turns
    )
    faults = {request.fault for request in hosted.proxy.requests} - {None}
    assert len(faults) > (10 if turns == 188 else 5)
    hosted.proxy.script = None
    hosted.repository().read_session("s")
    assert stored(hosted) == expected(turns)
    assert essence(hosted) == essence(calm)
    calm.close()


# -- each fault at each step -----------------------------------------------------------------------


class Scene:
    """A session with an agent, two messages and a team, and what is about to happen to it."""

    def __init__(self, hosted: Hosted, **options: Any) -> None:
        straight = hosted.repository(straight=True)
        first = PerSQLSessionManager("s", repository=straight)
        self.start("a", first, messages=[user("zero"), assistant("one")])
        straight.create_multi_agent("s", Team(n=0))
        self.repository = hosted.repository(retry=NEVER, **options)
        self.manager = PerSQLSessionManager("s", repository=self.repository)
        self.agent = self.start("a", self.manager)
        self.message = self.repository.read_message("s", "a", 1)
        self.record = self.repository.read_agent("s", "a")
        self.repository.read_multi_agent("s", "team")
        self.new = session_message("two", 2)
        self.new_agent, self.new_session = session_agent("c", n=1), session("t")

    def start(self, agent_id: str, manager: PerSQLSessionManager, **options: Any) -> Agent:
        """Make an agent, which opens or creates it in the session."""
        return Agent(
            model=ScriptedModel([]),
            session_manager=manager,
            agent_id=agent_id,
            callback_handler=None,
            **options,
        )

    def open(self) -> None:
        """Open the session, as another manager."""
        PerSQLSessionManager("s", repository=self.repository)

    def start_agent(self) -> None:
        """Create an agent by its manager."""
        self.start("b", self.manager, messages=[user("first")])

    def append(self) -> None:
        """Append a message by the manager."""
        self.agent.messages.append(user("two"))
        self.manager.append_message(self.agent.messages[-1], self.agent)

    def sync(self) -> None:
        """Store an agent's state by the manager."""
        self.agent.state.set("n", 1)
        self.manager.sync_agent(self.agent)

    def redact(self) -> None:
        """Redact the latest message by the manager."""
        self.manager.redact_latest_message(user("[gone]"), self.agent)

    def create_session(self) -> None:
        """Create another session."""
        self.repository.create_session(self.new_session)

    def create_agent(self) -> None:
        """Create an agent by the repository."""
        self.repository.create_agent("s", self.new_agent)

    def create_message(self) -> None:
        """Append a message by the repository."""
        self.repository.create_message("s", "a", self.new)

    def update_agent(self) -> None:
        """Replace the state by the repository."""
        assert self.record is not None
        self.record.state["n"] = 1
        self.repository.update_agent("s", self.record)

    def update_message(self) -> None:
        """Replace a message by the repository."""
        assert self.message is not None
        self.message.redact_message = user("[gone]")
        self.repository.update_message("s", "a", self.message)

    def update_multi_agent(self) -> None:
        """Replace a team's state."""
        self.repository.update_multi_agent("s", Team(n=1))

    def delete_session(self) -> None:
        """Delete the session."""
        self.repository.delete_session("s")


STEPS = [name for name in vars(Scene) if not name.startswith("_") and name != "start"]
HELD = ("append", "redact")
"""What a manager holds after it failed, and stores with whatever comes next."""


def memory(repository: PerSQLSessionRepository, *, opened: bool) -> Any:
    """Give all that a repository reads of the session."""
    if not opened and repository.read_session("s") is None:
        return None
    read: dict[Any, Any] = {"team": repository.read_multi_agent("s", "team")}
    for agent_id in "abc":
        read[agent_id] = repository.read_agent("s", agent_id)
        if read[agent_id] is not None:
            read[agent_id, "says"] = repository.list_messages("s", agent_id)
    return read


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_each_fault_at_each_step_is_known_and_mended(
    engine: Engine, hosted: Hosted, step: str, fault: str
) -> None:
    """What raises says what is known, memory is true after it, and doing it again does it once."""
    hosted.proxy.strip_idempotency_key = True
    scene = Scene(hosted)
    error = UnavailableError if step == "open" and FAULTS[fault] else FAULTS[fault]
    before = essence(hosted)
    hosted.proxy.script = [fault]
    if step == "delete_session" and fault == "duplicate":
        error = NotFoundError  # nothing is left by which the second of two could know the first
    with pytest.raises(error) if error else contextlib.nullcontext() as caught:
        getattr(scene, step)()
    if error is UnavailableError:
        assert essence(hosted) == before
    if error:
        assert caught is not None
        assert caught.value.session_id in ("s", "t")
    gone = not hosted.rows("sessions")
    if not gone:
        assert memory(scene.repository, opened=True) == memory(
            hosted.repository(straight=True), opened=False
        )
    if error and not gone:
        scene.manager.close() if step in HELD else getattr(scene, step)()
    hosted.proxy.drop_connections()
    hosted.repository().read_session("flushes what is late")
    again = hosted.repository(straight=True)
    assert memory(scene.repository, opened=False) == memory(again, opened=False)
    clean = Hosted(engine, hosted.proxy, hosted.name + "-clean")
    getattr(Scene(clean), step)()
    # An update of an object that its caller makes twice is two writes, of one content.
    versions = not (step.startswith("update") and error is OutcomeUnknownError)
    assert essence(hosted, versions=versions) == essence(clean, versions=versions)
    clean.close()


@pytest.mark.parametrize("step", ["sync", "update_agent", "update_message", "update_multi_agent"])
@pytest.mark.parametrize("fault", ["500_before", "500_after"])
def test_a_write_done_again_is_no_conflict_with_itself(
    hosted: Hosted, step: str, fault: str
) -> None:
    """Under ``raise``, too, what raised for want of an answer may be written again."""
    scene = Scene(hosted, on_conflict="raise")
    hosted.proxy.script = [fault]
    with pytest.raises(OutcomeUnknownError):
        getattr(scene, step)()
    getattr(scene, step)()
    assert hosted.proxy.requests[-1].fault is None


@pytest.mark.parametrize("fault", ["429:0", "500_before", "500_after"])
def test_a_message_appended_again_after_a_fault_is_stored_once(hosted: Hosted, fault: str) -> None:
    """The very message whose append raised may be handed to the manager again."""
    scene = Scene(hosted)
    message = user("two")
    hosted.proxy.script = [fault]
    with pytest.raises(PerSQLError):
        scene.manager.append_message(message, scene.agent)
    scene.manager.append_message(message, scene.agent)
    assert stored(hosted) == ["zero", "one", "two"]


# -- what goes over the wire -----------------------------------------------------------------------


def test_one_connection_serves_a_conversation(hosted: Hosted) -> None:
    """All requests of a conversation, openings included, go over one TCP connection."""
    converse(lambda: PerSQLSessionManager("s", repository=hosted.repository()), 20, reopen_every=5)
    assert (hosted.proxy.count > 50, hosted.proxy.connections) == (True, 1)


def writes(request: Request) -> bool:
    """Tell whether a request may change something."""
    return any(not each["sql"].lstrip().startswith("SELECT") for each in request.statements)


def test_each_write_has_a_key_of_its_own(hosted: Hosted) -> None:
    """A write's idempotency key stays through its retries and is no other's; reads have none."""
    draw = Random(5)  # noqa: S311 - faults, not secrets
    retried = ["500_before", "500_after", "close_after", "429:0", *[None] * 8]
    hosted.proxy.script = lambda _: draw.choice(retried)
    retry = RetryPolicy(first_wait=0.001, max_wait=0.01)
    converse(
        lambda: PerSQLSessionManager("s", repository=hosted.repository(retry=retry)),
        20,
        reopen_every=5,
    )
    keys: dict[bytes, set[str | None]] = {}
    for request in hosted.proxy.requests:
        keys.setdefault(request.body, set()).add(request.idempotency_key)
        assert (request.idempotency_key is not None) == writes(request)
    written = [found for body, found in keys.items() if found != {None}]
    assert all(len(found) == 1 for found in written)
    assert len(set.union(*written)) == len(written) > 40
    assert hosted.proxy.count > len(keys)


def test_a_service_that_asks_to_wait_is_waited_for(hosted: Hosted) -> None:
    """A ``Retry-After`` is the least that is waited before the request is sent again."""
    waited: list[float] = []
    repository = hosted.repository(retry=RetryPolicy(sleep=waited.append))
    hosted.proxy.script = ["429:7", "429:3"]
    assert repository.read_session("s") is None
    assert len(waited) == 2
    assert waited[0] >= 7
    assert 3 <= waited[1] < 7
    assert repository.stats().retries == 2


def test_a_service_that_asks_for_too_long_is_not_waited_for(hosted: Hosted) -> None:
    """A ``Retry-After`` beyond the budget is an error at once, which says that nothing was done."""
    waited: list[float] = []
    repository = hosted.repository(retry=RetryPolicy(sleep=waited.append))
    hosted.proxy.script = ["429:60"]
    with pytest.raises(UnavailableError) as caught:
        repository.create_session(session())
    assert (waited, caught.value.status, hosted.rows("sessions")) == ([], 429, [])


def test_a_service_that_drips_is_an_error_that_names_the_session() -> None:
    """An agent on a service that never ends its answer isn't held up for ever."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    with (
        RawServer(dripping(head)) as server,
        RestClient("token", base_url=server.base_url, timeout=0.3) as client,
    ):
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="did not answer within") as caught:
            PerSQLSessionManager("s", client.database("acme/x"), retry=NEVER)
        took = time.monotonic() - begun
    assert caught.value.session_id == "s"
    assert took < 2


@pytest.mark.parametrize("fault", ["close_after", "not_json", "429:60", "status:401", "status:403"])
def test_a_failing_manager_shows_no_token(
    engine: Engine, hosted: Hosted, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """With every logger on, neither errors nor tracebacks nor reprs of a manager have its token."""
    caplog.set_level(logging.DEBUG)
    base_url = hosted.proxy.base_url
    manager = PerSQLSessionManager.from_token(
        "s", engine.token(), hosted.name, base_url=base_url, retry=NEVER
    )
    agent = Agent(model=ScriptedModel([]), session_manager=manager, callback_handler=None)
    shown = [repr(manager), str(manager), repr(manager.session_repository), repr(vars(manager))]
    failing: list[Callable[[], Any]] = [
        lambda: agent("hello"),
        lambda: manager.sync_agent(agent),
        lambda: PerSQLSessionManager.from_token(
            "s", engine.token(), hosted.name, base_url=base_url, retry=NEVER
        ),
    ]
    hosted.proxy.script = [fault] * 9
    for call in failing:
        with pytest.raises(Exception, match=r"database|answer") as caught:
            call()
        logging.getLogger(__name__).error("it failed", exc_info=caught.value)
        shown += [*traceback.format_exception(caught.value), repr(vars(caught.value))]
    hosted.proxy.script = None
    manager.close()
    assert engine.token() not in "".join(shown) + caplog.text
    assert "s3cr3t" not in "".join(shown) + caplog.text


def test_no_frame_of_a_failure_holds_the_token(hosted: Hosted) -> None:
    """What reports errors with the local variables of each frame doesn't report the token."""
    hosted.proxy.script = ["close_before"]
    with pytest.raises(PerSQLError) as caught:
        hosted.repository(retry=NEVER).read_session("s")
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "s3cr3t" not in "".join(told.format())


def test_a_manager_that_could_not_be_opened_leaves_no_connection(
    engine: Engine, hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``from_token`` raises, the client that it made is closed."""
    closed: list[RestClient] = []
    close = RestClient.close

    def closing(client: RestClient) -> None:
        closed.append(client)
        close(client)

    monkeypatch.setattr(RestClient, "close", closing)
    hosted.proxy.script = ["status:401"]
    with pytest.raises(PerSQLError):
        PerSQLSessionManager.from_token(
            "s", engine.token(), hosted.name, base_url=hosted.proxy.base_url
        )
    assert len(closed) == 1


def test_closing_closes_the_client_in_any_case(engine: Engine, hosted: Hosted) -> None:
    """Where two agents' states can't be stored, the error says both, and the client is closed."""
    manager = PerSQLSessionManager.from_token(
        "s", engine.token(), hosted.name, base_url=hosted.proxy.base_url, retry=NEVER
    )
    for agent_id in ("a", "b"):
        agent = Agent(session_manager=manager, agent_id=agent_id, callback_handler=None)
        agent.state.set("n", 1)
    hosted.proxy.script = ["status:401"] * 2
    with pytest.raises(AccessDeniedError) as caught:
        manager.close()
    said = str(caught.value)
    assert said.index("agent 'a'") < said.index("agent 'b'") < said.index("client is closed")
    with pytest.raises(DatabaseOpenError, match="closed"):
        manager.session_repository.read_session("s")


@pytest.mark.parametrize(("commit", "requests"), [("message", 4), ("turn", 1)])
def test_an_agent_with_tools_end_to_end(hosted: Hosted, commit: Any, requests: int) -> None:
    """A tool turn is stored in its requests, and another process's agent goes on from it."""
    manager = PerSQLSessionManager("s", repository=hosted.repository(), commit=commit)
    replies: list[Reply] = ["Hello.", ToolCall("count"), "It is one."]
    agent = Agent(
        model=ScriptedModel(replies),
        session_manager=manager,
        agent_id="a",
        tools=[count],
        callback_handler=None,
    )
    agent("Hi.")
    hosted.proxy.reset()
    agent("Count.")
    assert hosted.proxy.count == requests
    again = Agent(
        model=ScriptedModel([ToolCall("count"), "It is two."]),
        session_manager=PerSQLSessionManager("s", repository=hosted.repository(), commit=commit),
        agent_id="a",
        tools=[count],
        callback_handler=None,
    )
    assert plain(again.messages) == plain(agent.messages)
    again("And on.")
    assert again.state.get() == {"n": 2}
    assert stored(hosted) == said(again.messages)
