"""The commands that go back: checkpoints, rewind, fork and truncate."""

import re

import pytest
from strands import Agent

from strands_persql.cli import output
from strands_persql.testing import ScriptedModel
from tests.contract.agents import manager_of
from tests.support.backends import Backend
from tests.support.conversation import said
from tests.unit.cli import Place


def opened(backend: Backend, session_id: str = "trip", agent_id: str = "guide") -> Agent:
    """Open an agent as an application does."""
    return Agent(
        model=ScriptedModel(lambda messages: f"re: {messages[-1]['content'][0]['text']}"),
        session_manager=backend.manager(session_id),
        agent_id=agent_id,
        callback_handler=None,
    )


def talked(backend: Backend) -> Agent:
    """Let an agent have three turns, with a checkpoint behind the first and the second."""
    agent = opened(backend)
    for text in ("porto", "lisbon"):
        agent(text)
        agent.state.set("city", text)
        manager_of(agent).checkpoint(agent, f"at {text}")
    agent("madrid")
    return agent


def spoken(backend: Backend, session_id: str = "trip") -> list[str]:
    """Return what the user has said, of what a new process is given."""
    return said(opened(backend, session_id).messages)[::2]


def test_checkpoints_are_listed(place: Place) -> None:
    """By their ids, with their labels, the oldest first; in JSON too."""
    terminal, backend = place
    talked(backend)

    shown = terminal.run("checkpoints", "trip")
    document = terminal.run("checkpoints", "trip", "--agent", "guide", "--json").json

    assert re.search(r"^[0-9a-f]{16}  guide  at porto .* 2$", shown.out, re.MULTILINE)
    assert (shown.code, shown.err) == (0, "")
    assert [one["label"] for one in document["checkpoints"]] == ["at porto", "at lisbon"]
    assert {*document["checkpoints"][0]} == {
        "session_id", "agent_id", "checkpoint_id", "label", "created_at", "messages",
    }  # fmt: skip


def test_a_long_label_hides_no_id(shell: Place) -> None:
    """In 80 columns it takes several lines, and what names the checkpoint is whole."""
    terminal, backend = shell
    agent = opened(backend)
    agent("hello")
    checkpoint = manager_of(agent).checkpoint(agent, "a label of many words " * 6)
    shown = terminal.run("checkpoints", "trip").out
    assert f"{checkpoint.checkpoint_id}  guide  a label" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_no_checkpoint_and_no_session(shell: Place) -> None:
    """A session without any says so, and one that isn't there is an error."""
    terminal, backend = shell
    opened(backend)("hello")
    assert "no checkpoints" in terminal.run("checkpoints", "trip").err
    assert terminal.run("checkpoints", "nobody").code == output.NOT_FOUND
    assert terminal.run("checkpoints", "trip", "--agent", "b").code == output.NOT_FOUND
    assert terminal.run("checkpoints", "trip", "--json").json["checkpoints"] == []


@pytest.mark.parametrize(
    ("to", "left"),
    [
        (["--to", "at porto"], ["porto"]),
        (["--message", "3"], ["porto", "lisbon"]),
        (["--turns", "2"], ["porto"]),
    ],
)
def test_an_agent_goes_back(place: Place, to: list[str], left: list[str]) -> None:
    """To a checkpoint, with its state; to a message; by turns. The history stays."""
    terminal, backend = place
    talked(backend)

    ran = terminal.run("rewind", "trip", *to, "--yes", "--json")

    assert ran.json == {"session_id": "trip", "agent_id": "guide", "messages": 2 * len(left)}
    assert spoken(backend) == left
    city = "porto" if "--to" in to else "lisbon"
    assert opened(backend).state.get() == {"city": city}
    assert "madrid" in terminal.run("show", "trip").out
    truncated = terminal.run("truncate", "trip", "--yes")
    assert re.search(r"^\d messages of guide of trip are gone\.$", truncated.out, re.MULTILINE)
    assert "madrid" not in terminal.run("show", "trip").out
    assert terminal.run("truncate", "trip", "-y", "--json").json["messages"] == 0


def test_the_beginning_of_an_id_names_a_checkpoint(shell: Place) -> None:
    """Four characters do, where they are one's alone; the words say where the agent is."""
    terminal, backend = shell
    talked(backend)
    listed = terminal.run("checkpoints", "trip", "--json").json["checkpoints"]

    ran = terminal.run("rewind", "trip", "--to", listed[0]["checkpoint_id"][:6], "-y")

    assert "gone back to the checkpoint 'at porto', and works with 2 messages" in ran.out
    agent = opened(backend)
    for _ in range(2):
        manager_of(agent).checkpoint(agent, "twice")
    several = terminal.run("rewind", "trip", "--to", "twice", "-y")
    assert (several.code, "names several" in several.err) == (output.USAGE, True)


def test_a_session_is_forked(place: Place) -> None:
    """As it is, at a checkpoint, at a message, without turns; the original stays."""
    terminal, backend = place
    talked(backend)

    ran = terminal.run("fork", "trip", "now")
    assert ran.out == "now is a copy of trip.\n"
    assert terminal.run("fork", "trip", "then", "--at", "at porto", "--json").json == {
        "session_id": "then", "copy_of": "trip", "agent_id": "guide",
    }  # fmt: skip
    assert (
        "in which guide has gone back to message 3"
        in terminal.run("fork", "trip", "at-3", "--message", "3").out
    )
    assert terminal.run("fork", "trip", "less", "--turns", "2", "-a", "guide").code == 0
    taken = terminal.run("fork", "trip", "now", "--json")
    assert (taken.code, taken.json["error"]["type"]) == (output.EXISTS, "AlreadyExistsError")

    known = {name: spoken(backend, name) for name in ("trip", "now", "then", "at-3", "less")}
    assert known == {
        "trip": ["porto", "lisbon", "madrid"],
        "now": ["porto", "lisbon", "madrid"],
        "then": ["porto"],
        "at-3": ["porto", "lisbon"],
        "less": ["porto"],
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rewind", "trip", "-y"], output.USAGE, "say where to"),
        (["rewind", "trip", "-t", "1", "-m", "1", "-y"], output.USAGE, "one of them"),
        (["rewind", "trip", "-t", "9", "-y"], output.USAGE, "from 1 to 3"),
        (["rewind", "trip", "-m", "99", "-y"], output.USAGE, "doesn't work with message 99"),
        (["rewind", "trip", "--to", "nowhere", "-y"], output.NOT_FOUND, "no checkpoint 'nowhere'"),
        (["rewind", "trip", "-t", "1", "-a", "b", "-y"], output.NOT_FOUND, "there are guide"),
        (["rewind", "nobody", "-t", "1", "-y"], output.NOT_FOUND, "does not exist"),
        (["fork", "trip", "copy", "-a", "guide"], output.USAGE, "--agent goes with"),
        (["fork", "trip", "copy", "-t", "9"], output.USAGE, "from 1 to 3"),
        (["fork", "nobody", "copy"], output.NOT_FOUND, "does not exist"),
        (["rewind", "trip", "-t", "1"], output.USAGE, "give --yes"),
        (["truncate", "trip"], output.USAGE, "give --yes"),
    ],
)
def test_what_was_not_meant(shell: Place, arguments: list[str], code: int, words: str) -> None:
    """It is said in words or as JSON, and changes nothing."""
    terminal, backend = shell
    talked(backend)
    before = backend.dump()

    ran, as_json = terminal.run(*arguments), terminal.run(*arguments, "--json")

    assert (ran.code, as_json.code) == (code, code)
    assert words in ran.err
    assert words in as_json.json["error"]["message"]
    assert backend.dump() == before


def test_the_agent_is_asked_for_where_there_are_several(shell: Place) -> None:
    """None is taken by chance."""
    terminal, backend = shell
    talked(backend)
    opened(backend, agent_id="other")("hello")

    for command in (["rewind", "trip", "-t", "1", "-y"], ["truncate", "trip", "-y"]):
        ran = terminal.run(*command)
        assert (ran.code, "choose an agent with --agent: guide, other" in ran.err) == (2, True)
    assert terminal.run("rewind", "trip", "-t", "1", "-y", "-a", "other").code == 0
    assert terminal.run("fork", "trip", "copy").code == 0
