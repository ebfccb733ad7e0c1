"""What goes in comes out: any JSON that Strands lets through, wherever it stands."""

import enum
import functools
import json
import math
import tempfile
from collections.abc import Callable
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given
from strands import Agent, ToolContext, tool
from strands.session.file_session_manager import FileSessionManager
from strands.types.content import Message
from strands.types.session import SessionMessage, decode_bytes_values

from strands_persql import LocalDatabase, PerSQLSessionRepository
from strands_persql.testing import ScriptedModel, ToolCall
from tests.contract.agents import Scene, answers, as_json, both, calls, contents, unmanaged
from tests.support.backends import Backend
from tests.support.conversation import Team, session, session_agent, stored

pytestmark = pytest.mark.backends("memory")

ENVELOPE = {"__bytes_encoded__": True, "data": "A"}

VALUES: dict[str, Any] = {
    "an envelope that can't be decoded": ENVELOPE,
    "an envelope that can": {"__bytes_encoded__": True, "data": "aGk="},
    "an envelope of no text": {"__bytes_encoded__": True, "data": 5},
    "an envelope with more in it": {**ENVELOPE, "more": [ENVELOPE]},
    "an envelope that says no": {"__bytes_encoded__": False, "data": "aGk="},
    "an envelope in an envelope": {"__bytes_encoded__": True, "data": ENVELOPE},
    "envelopes deep down": [[{"x": [ENVELOPE, {"y": ENVELOPE}]}]],
    "half an envelope": {"__bytes_encoded__": True},
    "no number": math.nan,
    "infinity": math.inf,
    "infinities deep down": {"x": [-math.inf, {"y": math.nan}]},
    "a name of a constant": ["NaN", "Infinity", "-Infinity", None],
    "a lone surrogate": "before \ud83d behind",
    "a surrogate's other half": ["\ude00", {"\udfff": "\ud800\ud800"}],
    "what looks escaped": "\\ud83d \\u0000 \\\\",
    "a NUL": {"a\0b": "\0"},
    "big numbers": [2**70, -(2**63), 1e308, 5e-324, -0.0],
    "whole floats": [1.0, -1.0, 1e16],
    "odd keys": {"": 1, "$": 2, "a.b": 3, "a[0]": 4, '"': 5, "'": 6},
    "separators": "\u2028\u2029\x7f\x1f\ufeff\ufffe",
    "empty things": [{}, [], "", None, {"x": {}}],
}
values = pytest.mark.parametrize("kind", VALUES)


def fetching(value: Any) -> Any:
    """Make a tool whose result is a JSON document."""

    @tool
    def fetch(wanted: Any = None) -> dict[str, Any]:
        """Fetch a document.

        Args:
            wanted: Anything.
        """
        document = {"value": value, "for": repr(type(wanted))}
        return {"status": "success", "content": [{"json": document}, {"text": "done"}]}

    return fetch


def check_sound(backend: Backend) -> None:
    """Assert that SQLite can read the JSON of every row."""
    for table in ("sessions", "agents", "messages", "multi_agents"):
        for row in backend.raw(f"SELECT json_valid(data) AS sound FROM strands_{table}"):
            assert int(row["sound"]) == 1


def check_comes_back(scene: Scene, agent: Agent) -> None:
    """Assert that a new process is given what went in, and goes on with it."""
    fresh = scene.check(agent)
    fresh("and now?")
    assert contents(calls(fresh)[-1]) == contents(fresh.messages[:-1])
    assert contents(fresh.messages[:-2]) == contents(agent.messages)
    scene.check(fresh)
    check_sound(scene.backend)


@both
@values
def test_a_tools_result(backend: Backend, commit: str, kind: str) -> None:
    """A tool's JSON comes back as it was."""
    tools = [fetching(VALUES[kind])]
    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": tools})
    agent = scene.open(ToolCall("fetch"), "done")
    agent("go")
    assert as_json(VALUES[kind]) in _within(as_json(agent.messages[2]))
    check_comes_back(scene, agent)


@both
@values
def test_a_tools_input(backend: Backend, commit: str, kind: str) -> None:
    """What a model hands to a tool comes back as it was."""
    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [fetching("nothing")]})
    agent = scene.open(ToolCall("fetch", {"wanted": VALUES[kind]}), "done")
    agent("go")
    assert as_json(VALUES[kind]) in _within(as_json(agent.messages[1]))
    check_comes_back(scene, agent)


@both
@values
def test_a_message(backend: Backend, commit: str, kind: str) -> None:
    """A prompt's own content and metadata come back as they were."""
    value = VALUES[kind]
    scene = Scene(backend, commit, unmanaged)
    result = {"toolUseId": "t1", "status": "success", "content": [{"json": {"value": value}}]}
    use = {"toolUseId": "t1", "name": "fetch", "input": {"value": value}}
    prompt: list[Any] = [
        {"role": "user", "content": [{"text": value if isinstance(value, str) else "go"}]},
        {"role": "assistant", "content": [{"toolUse": use}]},
        {
            "role": "user",
            "content": [{"toolResult": result}],
            "metadata": {"custom": {"value": value}},
        },
    ]
    agent = scene.open("done")
    agent(prompt)
    check_comes_back(scene, agent)


@both
@values
def test_the_state(backend: Backend, commit: str, kind: str) -> None:
    """A value of the agent's state comes back as it was, changed or untouched."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    agent.state.set("value", VALUES[kind])
    agent.state.set("deep", {"er": [VALUES[kind]]})
    agent("go")
    agent("untouched")
    scene.check(agent)
    fresh = scene.open()
    assert as_json(fresh.state.get("value")) == as_json(VALUES[kind])
    fresh.state.set("deep", {"er": "changed"})
    fresh("changed")
    scene.check(fresh)
    assert as_json(fresh.state.get("value")) == as_json(VALUES[kind])
    check_sound(backend)


@both
@values
def test_an_interrupt(backend: Backend, commit: str, kind: str) -> None:
    """An interrupt's reason and its answer come back as they were, in another process."""
    value, given = VALUES[kind], []

    @tool(context=True)
    def ask(tool_context: ToolContext) -> str:
        """Ask a human."""
        given.append(tool_context.interrupt("ask", reason=value))
        return "heard"

    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [ask]})
    agent = scene.open(ToolCall("ask"))
    result = agent("go")
    fresh = scene.check(agent)
    assert [as_json(one.reason) for one in fresh._interrupt_state.interrupts.values()] == [
        as_json(value)
    ]
    fresh.model = scene.model("done")
    fresh(answers(result.interrupts, {"value": value}))
    assert as_json(given) == as_json([{"value": value}])
    scene.check(fresh)
    check_sound(backend)


@values
def test_a_graphs_state(backend: Backend, kind: str) -> None:
    """A graph's or swarm's state comes back as it was, created or updated."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(value=VALUES[kind]))
    assert _graph(backend) == as_json({"id": "team", "value": VALUES[kind]})
    repository.update_multi_agent("s", Team(value=[VALUES[kind], b"\0\xff"]))
    assert _graph(backend) == as_json({"id": "team", "value": [VALUES[kind], b"\0\xff"]})
    check_sound(backend)


def _graph(backend: Backend) -> Any:
    repository = backend.repository(backend.reopen())
    repository.read_session("s")
    return as_json(repository.read_multi_agent("s", "team"))


@values
def test_a_repositorys_records(backend: Backend, kind: str) -> None:
    """Records that a bare repository stores come back as they were, from memory and elsewhere."""
    value = VALUES[kind]
    repository = backend.repository()
    repository.create_session(session())
    repository.create_agent("s", session_agent("a", value=value))
    message: Any = {"role": "user", "content": [{"json": {"value": value}}]}
    repository.create_message("s", "a", SessionMessage.from_message(message, 0))
    for one in (repository, backend.repository(backend.reopen())):
        one.read_session("s")
        agent = one.read_agent("s", "a")
        assert agent is not None
        assert as_json(agent.state) == as_json({"value": value})
        assert as_json(one.list_messages("s", "a")[0].to_message()) == as_json(message)
    check_sound(backend)


def _within(value: Any) -> list[Any]:
    """Give a value and all that is in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(each for one in inner for each in _within(one))]


# -- bytes -----------------------------------------------------------------------------------------


@both
def test_bytes_are_readable_by_strands(backend: Backend, commit: str) -> None:
    """Bytes beside a dict that looks like their envelope come back, and Strands can decode them."""
    png = bytes(range(256))
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("A picture.")
    image = {"image": {"format": "png", "source": {"bytes": png}}}
    agent(cast("Any", [{"text": "What is this?"}, image]))
    fresh = scene.check(agent)
    assert fresh.messages == agent.messages
    row = backend.raw("SELECT data FROM strands_messages ORDER BY message_id")[0]
    read = decode_bytes_values(json.loads(row["data"]))
    assert read["message"]["content"] == agent.messages[0]["content"]
    assert SessionMessage.from_dict(json.loads(row["data"])).to_message() == agent.messages[0]


@both
def test_bytes_and_what_looks_like_them(backend: Backend, commit: str) -> None:
    """A result with bytes and a result that only looks so are told apart."""

    @tool
    def fetch() -> dict[str, Any]:
        """Fetch a picture and its description."""
        image = {"format": "png", "source": {"bytes": b"aGk="}}
        return {"status": "success", "content": [{"json": dict(ENVELOPE)}, {"image": image}]}

    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [fetch]})
    agent = scene.open(ToolCall("fetch"), "done")
    agent("go")
    fresh = scene.check(agent)
    assert fresh.messages == agent.messages
    result = fresh.messages[2]["content"][0]["toolResult"]["content"]
    assert result[0]["json"] == ENVELOPE
    assert result[1]["image"]["source"]["bytes"] == b"aGk="


# -- any JSON --------------------------------------------------------------------------------------

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.just(ENVELOPE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=()), max_size=3)
            | st.sampled_from(["__bytes_encoded__", "data"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(documents, documents)
def test_any_document(one: Any, other: Any) -> None:
    """Whatever JSON is in a message and a state, a new process reads the same."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database)
        repository.create_session(session())
        repository.create_agent("s", session_agent("a", value=one))
        message = cast("Message", {"role": "user", "content": [{"json": {"value": other}}]})
        repository.create_message("s", "a", SessionMessage.from_message(message, 0))
        fresh = PerSQLSessionRepository(database)
        fresh.read_session("s")
        agent = fresh.read_agent("s", "a")
        assert agent is not None
        assert as_json(agent.state) == as_json({"value": one})
        assert as_json(fresh.list_messages("s", "a")[0].to_message()) == as_json(message)


# -- depth -----------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    """Make lists and dicts within each other."""
    value: Any = "end"
    for level in range(depth):
        value = {"x": value} if level % 2 else [value]
    return value


def survives(manager: Callable[[], Any], depth: int, place: str) -> bool:
    """Whether a nested value comes back in another process's agent."""
    value = nested(depth)

    def opened() -> Agent:
        model = ScriptedModel([ToolCall("fetch", {"wanted": value}), "done"])
        tools = [fetching(value if place == "a result" else "nothing")]
        return Agent(
            model=model if place != "the state" else ScriptedModel(["done"]),
            tools=tools,
            agent_id="a",
            session_manager=manager(),
            callback_handler=None,
        )

    try:
        agent = opened()
        if place == "the state":
            agent.state.set("x", value)
        agent("go")
        fresh = opened()
        as_it_was = contents(fresh.messages) == contents(agent.messages)
        return as_it_was and as_json(fresh.state.get()) == as_json(agent.state.get())
    except Exception as error:
        if "recursion" not in str(error):
            raise
        return False


@functools.cache
def depth_of_strands(place: str) -> int:
    """Find out how deep a value may be for Strands' own file store to bring it back."""
    low, high = 100, 1_000
    with tempfile.TemporaryDirectory() as folder:
        while low < high:
            middle = (low + high + 1) // 2
            name = f"s{middle}"
            if survives(lambda name=name: FileSessionManager(name, folder), middle, place):  # type: ignore[misc]
                low = middle
            else:
                high = middle - 1
    return low


@pytest.mark.parametrize("place", ["a result", "an input", "the state"])
def test_nesting_as_deep_as_strands_goes(backend: Backend, place: str) -> None:
    """What Strands' own file store brings back comes back from here, however deep it is."""
    deepest = depth_of_strands(place)
    assert deepest > 200
    assert survives(backend.manager, deepest - 3, place)
    check_sound(backend)


# -- types -----------------------------------------------------------------------------------------


class Colour(str, enum.Enum):
    """A text that has a name."""

    RED = "red"


class Level(enum.IntEnum):
    """A number that has a name."""

    LOW = 1


class Money(float):
    """A number of a class of its own."""


TYPES: dict[str, tuple[Any, Any]] = {
    "int keys": ({1: 10, 2: 20}, {"1": 11, "2": 20}),
    "a key that is gone": ({1: 10, 2: 20}, {"2": 20}),
    "odd keys": ({True: 1, None: 2, 0.5: 3}, {"true": 2, "null": 2, "0.5": 3}),
    "a tuple": ((1, 2), [3, 4]),
    "nested tuples": ({"at": ((1, 2), {"x": (3,)})}, {"at": [[1, 2], {"x": [4]}]}),
    "an enum of text": (Colour.RED, "green"),
    "an enum of numbers": ([Level.LOW], [2]),
    "a float's subclass": ({"sum": Money(1.5)}, {"sum": 2.5}),
    "no number": (math.nan, 1.0),
    "infinity": ([math.inf], [0]),
    "a whole float": (1.0, 1),
    "a truth value": (True, 1),
    "an envelope": (dict(ENVELOPE), {**ENVELOPE, "data": "B"}),
    "a lone surrogate": ("\ud800", "\udc00"),
}


@both
@pytest.mark.parametrize("kind", TYPES)
def test_who_changed_nothing_overwrites_nothing(backend: Backend, commit: str, kind: str) -> None:
    """A value that JSON gives back as another type isn't taken for a change of who set it once."""
    mine, theirs = TYPES[kind]
    scene = Scene(backend, commit, unmanaged)
    one = scene.open()
    one.state.set("value", mine)
    one.state.set("untouched", mine)
    one("hello")
    two = scene.open()
    assert as_json(two.state.get("value")) == as_json(mine)
    two.state.set("value", theirs)
    two("I changed it")
    for _ in range(2):
        one("I changed nothing")
        assert as_json(one.state.get("value")) == as_json(theirs)
        assert as_json(scene.open().state.get("value")) == as_json(theirs)
        assert as_json(scene.open().state.get("untouched")) == as_json(mine)


@both
def test_keys_of_both_are_kept(backend: Backend, commit: str) -> None:
    """Two who change different int keys of one dict keep both changes."""
    scene = Scene(backend, commit, unmanaged)
    one = scene.open()
    one.state.set("votes", {1: 10, 2: 20, 3: 30})
    one("hello")
    two = scene.open()
    two.state.set("votes", {**two.state.get("votes"), "1": 11})
    two("one more for the first")
    votes = one.state.get("votes")
    votes[2] = 21
    del votes[3]
    one.state.set("votes", votes)
    one("one more for the second")
    assert as_json(one.state.get("votes")) == {"1": 11, "2": 21}
    assert scene.open().state.get("votes") == {"1": 11, "2": 21}


@both
def test_untouched_values_cost_no_write(backend: Backend, commit: str) -> None:
    """A state that JSON gives back as another type is written once, not in each turn."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    for kind, (mine, _) in TYPES.items():
        agent.state.set(kind, mine)
    agent("hello")
    manager = scene.manager()
    fresh = scene.open(manager=manager)
    version = backend.raw("SELECT version FROM strands_agents")
    backend.database.reset()
    for one, its in ((agent, agent._session_manager), (fresh, manager)):
        assert its is not None
        its.sync_agent(one)
    assert backend.raw("SELECT version FROM strands_agents") == version
    assert backend.database.round_trips == 0
