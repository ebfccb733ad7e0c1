"""Two writers who work with different parts of one history: nothing is lost, and all agree.

Of two views, what either side dropped is dropped and what either side said stays; an edit beats
the text that it was made on, a redaction beats all.
"""

from collections.abc import Callable
from typing import Any

import pytest
from strands import Agent
from strands.agent.conversation_manager import SlidingWindowConversationManager

from strands_persql.testing import Redact, Reply, ToolCall
from tests.contract.agents import (
    OVERFLOW,
    Options,
    Scene,
    asked,
    both,
    edit,
    is_for_summary,
    manager_of,
    mark,
    needs,
    pin,
    refused,
    sliding,
    summarizing,
    unmanaged,
)
from tests.support.backends import Backend
from tests.support.conversation import assistant, said, user

pytestmark = pytest.mark.backends("memory", "http")


class Two:
    """Two agents of one session that are open side by side, after some turns that both know.

    Args:
        backend: Where the session is.
        commit: When both commit.
        one: Gives the options of the first.
        other: Gives the options of the second.
        turns: How many turns both know.
    """

    def __init__(
        self,
        backend: Backend,
        commit: str,
        one: Options = unmanaged,
        other: Options | None = None,
        turns: int = 4,
    ) -> None:
        self.scene = Scene(backend, commit, other or one)
        self.commit = commit
        beginning = self.scene.open(**sliding(100)()) if other else self.scene.open()
        for number in range(turns):
            beginning.model = self.scene.model(f"a{number}")
            beginning(f"q{number}")
        self.one = self.scene.open(**one())
        self.other = self.scene.open()
        self.said = said([message for message, _ in self.scene.said])
        assert said(self.one.messages) == said(self.other.messages) == self.said

    def turn(self, agent: Agent, prompt: str, *replies: Reply) -> None:
        """Let one of the two have a turn."""
        agent.model = self.scene.model(*replies)
        agent(prompt)

    def settle(self) -> list[str]:
        """Let both have another turn, and give what the session then says, to all alike."""
        for agent in (self.one, self.other, self.one):
            self.turn(agent, "And?")
            self.agrees(agent)
        rows = [row["message"] for row in self.scene.rows()]
        spoken = [message for message, _ in self.scene.said]
        assert len(rows) == len(spoken)
        assert {row.get("tracking_id") for row in rows} == {
            one.get("tracking_id") for one in spoken
        }
        return said(self.one.messages)

    def agrees(self, agent: Agent) -> None:
        """Assert that an agent that had the latest turn has what a new process is given."""
        assert self.scene.invalid == []
        assert said(agent.messages) == said(self.scene.open().messages)
        assert agent.messages == self.scene.open().messages


# -- drops -----------------------------------------------------------------------------------------


@both
def test_what_either_dropped_is_dropped(backend: Backend, commit: str) -> None:
    """Two that have dropped different turns agree on what neither of them dropped."""
    two = Two(backend, commit)
    del two.one.messages[0:2]
    two.turn(two.one, "one", "1")
    del two.other.messages[4:6]
    two.turn(two.other, "two", "2")
    two.agrees(two.other)
    left = ["q1", "a1", "q3", "a3", "one", "1", "two", "2"]
    assert two.settle()[:8] == left


@both
def test_what_one_clears_the_other_forgets(backend: Backend, commit: str) -> None:
    """An agent that begins anew leaves to both what was said since, by either."""
    two = Two(backend, commit)
    two.turn(two.other, "two", "2")
    two.one.messages.clear()
    two.turn(two.one, "one", "1")
    left = two.settle()
    assert "q0" not in left
    assert {"two", "2", "one", "1"} <= set(left)


@pytest.mark.guarantee(number=17)
@both
@pytest.mark.parametrize("sizes", [(4, 40), (40, 4), (4, 6), (2, 5), (0, 40), (3, 3)])
def test_two_windows(backend: Backend, commit: str, sizes: tuple[int, int]) -> None:
    """Windows of different sizes leave what is in both, and all that was said since."""
    two = Two(backend, commit, sliding(sizes[0]), sliding(sizes[1]))
    for number in range(5):
        agent = (two.one, two.other)[number % 2]
        two.turn(agent, f"turn {number}", *[ToolCall("step")] * (number % 3), f"answer {number}")
        two.agrees(agent)
    two.scene.check_rows()


@both
def test_windows_that_move_at_once(backend: Backend, commit: str) -> None:
    """Two windows that move in turns that overlap lose nothing that either turn said."""
    two = Two(backend, commit, sliding(6), sliding(6))

    def interrupting(_: Any) -> Reply:
        two.turn(two.other, "two", "2")
        return "1"

    two.one.model = two.scene.model(replying=interrupting)
    two.one("one")
    left = said(two.scene.open().messages)
    assert {"one", "1", "two", "2"} <= set(left)
    two.agrees(two.one)
    two.settle()
    assert {"one", "1", "two", "2"} <= set(two.scene.transcript())


@both
def test_what_was_never_seen_is_not_dropped(backend: Backend, commit: str) -> None:
    """An agent that drops all it knows drops nothing that another has said meanwhile."""
    two = Two(backend, commit)

    def dropping(_: Any) -> Reply:
        two.turn(two.other, "two", "2")
        del two.one.messages[:-1]
        return "1"

    two.one.model = two.scene.model(replying=dropping)
    two.one("one")
    assert sorted(said(two.scene.open().messages)) == ["1", "2", "one", "two"]
    assert {"one", "1", "two", "2"} <= set(two.settle())


@both
@pytest.mark.parametrize("size", [6, 8, 40])
@pytest.mark.parametrize("speaks", [True, False])
def test_what_one_drops_while_another_has_a_turn(
    backend: Backend, commit: str, size: int, speaks: bool
) -> None:
    """A window that moves, and an edit, at the end of a turn bring nothing back."""
    two = Two(backend, commit, sliding(size), sliding(40))

    def dropping(_: Any) -> Reply:
        del two.other.messages[4:6]
        if speaks:
            two.turn(two.other, "two", "2")
        else:
            manager_of(two.other).sync_agent(two.other)
        edit(two.one.messages, -3)
        return "1"

    two.one.model = two.scene.model(replying=dropping)
    two.one("one")
    held = said(two.scene.open().messages)
    assert "q2" not in held
    assert "a2" not in held
    assert {"one", "1", *(["two", "2"] if speaks else [])} <= set(held)
    assert "q2" not in two.settle()


# -- summaries -------------------------------------------------------------------------------------


def to_summarize() -> Options:
    """Give what makes the options of an agent that summarizes all but its latest messages."""
    return summarizing(summary_ratio=0.8, preserve_recent_messages=2)


@both
def test_a_summary_of_one_is_both(backend: Backend, commit: str) -> None:
    """What one has summarized the other has summarized, and goes on from there."""
    two = Two(backend, commit, to_summarize())
    two.turn(two.one, "one", OVERFLOW, "1")
    assert said(two.one.messages)[0] == "summary 1"
    left = said(two.one.messages)
    two.turn(two.other, "two", "2")
    two.agrees(two.other)
    assert said(two.other.messages) == [*left, "two", "2"]
    assert two.settle()[: len(left)] == left


@both
def test_what_was_never_seen_is_not_behind_a_summary(backend: Backend, commit: str) -> None:
    """A summary stands for what its writer knew, not for what another has said meanwhile."""
    two = Two(backend, commit, to_summarize())
    answers = iter(["overflow", "1"])

    def reply(messages: Any) -> Reply:
        if is_for_summary(messages):
            return "in short"
        answer = next(answers)
        if answer == "overflow":
            two.turn(two.other, "two", "2")
            return OVERFLOW
        return answer

    two.one.model = two.scene.model(replying=reply)
    two.one("one")
    left = said(two.scene.open().messages)
    assert left[0] == "in short"
    assert {"two", "2", "one", "1"} <= set(left)
    assert {"two", "2", "one", "1"} <= set(two.settle())


@both
def test_summaries_of_as_many_other_messages(backend: Backend, commit: str) -> None:
    """Two who have each put a summary in the place of five messages, not the same, hide no more."""
    two = Two(backend, commit)
    for agent, place in ((two.one, 0), (two.other, 2)):
        agent.messages[place : place + 5] = [user(f"summary from {place} on")]
        agent.conversation_manager.removed_message_count = 5
    two.turn(two.one, "one", "1")
    two.turn(two.other, "two", "2")
    two.agrees(two.other)
    summaries = ["summary from 0 on", "summary from 2 on"]
    left = two.settle()
    assert sorted(left[:2]) == summaries
    assert left[2:7] == ["a3", "one", "1", "two", "2"]


@both
def test_two_summaries_at_once(backend: Backend, commit: str) -> None:
    """Two who summarize at the same time keep what each has said, and agree on one memory."""
    two = Two(backend, commit, to_summarize())
    first: list[str] = []

    def reply(messages: Any) -> Reply:
        if is_for_summary(messages):
            return "in short"
        if not first:
            first.append("overflow")
            return OVERFLOW
        two.turn(two.other, "two", OVERFLOW, "2")
        return "1"

    two.one.model = two.scene.model(replying=reply)
    two.one("one")
    assert {"one", "1", "two", "2"} <= set(said(two.scene.open().messages))
    assert {"one", "1", "two", "2"} <= set(two.settle())


@both
def test_a_summary_and_a_drop(backend: Backend, commit: str) -> None:
    """What one dropped stays dropped when the other summarizes what it doesn't yet know."""
    two = Two(backend, commit, to_summarize())
    del two.one.messages[2:4]
    two.turn(two.one, "one", "1")
    two.turn(two.other, "two", OVERFLOW, "2")
    left = two.settle()
    assert "q1" not in left
    assert {"two", "2"} <= set(left)
    assert [text for text in left if text.startswith("summary")]


# -- pins ------------------------------------------------------------------------------------------


@both
def test_a_pin_of_one_is_kept_by_both(backend: Backend, commit: str) -> None:
    """A message that one has pinned stays when the other's window drops all around it."""
    needs("pinned messages")
    two = Two(backend, commit, sliding(40))
    pin(two.one.messages, 1)
    two.turn(two.one, "one", "1")
    two.turn(two.other, "two", "2")
    two.other.conversation_manager = SlidingWindowConversationManager(4)
    for number in range(3):
        two.turn(two.other, f"two {number}")
        two.agrees(two.other)
    assert said(two.other.messages)[0] == "a0"
    assert len(two.other.messages) < 8
    assert two.settle()[0] == "a0"


@both
def test_two_pins(backend: Backend, commit: str) -> None:
    """Messages that each has pinned are pinned for both."""
    needs("pinned messages")
    two = Two(backend, commit, sliding(40))
    pin(two.one.messages, 0)
    two.turn(two.one, "one")
    pin(two.other.messages, 2)
    two.turn(two.other, "two")
    two.settle()
    for agent in (two.one, two.scene.open()):
        pinned = [
            said([message])[0]
            for message in agent.messages
            if message.get("metadata", {}).get("custom", {}).get("pinned")
        ]
        assert pinned == ["q0", "q1"]


# -- edits and redactions --------------------------------------------------------------------------


def put(agent: Agent, index: int, text: str) -> None:
    """Change what a message of an agent's memory says."""
    agent.messages[index]["content"] = [{"text": text}]


@both
@pytest.mark.guarantee(number=17)
@pytest.mark.parametrize("who", ["its own window", "another writer"])
def test_an_edit_of_what_leaves_memory(backend: Backend, commit: str, who: str) -> None:
    """What was edited is in its row as it was edited, also where its window moves on."""
    two = Two(backend, commit, sliding(8 if who == "its own window" else 40), sliding(40))
    edit(two.one.messages, 0)
    if who == "another writer":
        del two.other.messages[0:2]
        two.turn(two.other, "two", ToolCall("count"), "2")
    two.turn(two.one, "one", ToolCall("count"), "1")
    assert "q0, edited" not in said(two.one.messages)
    assert two.scene.transcript()[0] == "q0, edited"
    two.agrees(two.one)
    two.settle()
    assert two.scene.transcript()[0] == "q0, edited"


@both
def test_an_edit_beats_the_text_that_it_was_made_on(backend: Backend, commit: str) -> None:
    """A writer that still has the old text learns the edit, and doesn't bring the old text back."""
    two = Two(backend, commit)
    put(two.one, 0, "q0, edited")
    two.turn(two.one, "one")
    two.turn(two.other, "two")
    two.agrees(two.other)
    assert two.settle()[0] == "q0, edited"
    assert two.scene.transcript()[0] == "q0, edited"
    assert '"q0"' not in str(backend.dump())


@both
def test_edits_of_different_messages(backend: Backend, commit: str) -> None:
    """Two who edit different messages keep both edits."""
    two = Two(backend, commit)
    put(two.one, 0, "q0, edited")
    put(two.other, 2, "q1, edited")
    two.turn(two.one, "one")
    two.turn(two.other, "two")
    left = two.settle()
    assert left[0] == "q0, edited"
    assert left[2] == "q1, edited"
    assert two.scene.transcript()[:3] == ["q0, edited", "a0", "q1, edited"]


@both
def test_edits_of_one_message(backend: Backend, commit: str) -> None:
    """Of two edits of one message one stands, for all alike."""
    two = Two(backend, commit)
    put(two.one, 0, "edited by one")
    put(two.other, 0, "edited by two")
    two.turn(two.one, "one")
    two.turn(two.other, "two")
    left = two.settle()
    assert left[0] in ("edited by one", "edited by two")
    assert two.scene.transcript()[0] == left[0]


@both
@pytest.mark.parametrize("first", ["the edit", "the drop"])
def test_an_edit_and_a_drop(backend: Backend, commit: str, first: str) -> None:
    """A message that one edits and the other drops is dropped, and its row has the edit."""
    two = Two(backend, commit)
    changes: dict[str, Callable[[], object]] = {
        "the edit": lambda: put(two.one, 0, "q0, edited"),
        "the drop": lambda: two.other.messages.__delitem__(slice(0, 2)),
    }
    for change in changes.values():
        change()
    agents = [two.one, two.other] if first == "the edit" else [two.other, two.one]
    for number, agent in enumerate(agents):
        two.turn(agent, f"turn {number}")
    assert two.settle()[0] == "q1"
    assert two.scene.transcript()[0] == "q0, edited"


def redact_first(two: Two) -> None:
    """Redact the first message, as an operator would."""
    repository = two.scene.backend.repository()
    repository.read_session("s")
    record = repository.list_messages("s", "a", 1)[0]
    record.message = {**record.message, "content": [{"text": "[gone]"}]}
    record.redact_message = record.message
    repository.update_message("s", "a", record)


@both
@pytest.mark.parametrize("first", ["the redaction", "the edit"])
def test_a_redaction_beats_an_edit(backend: Backend, commit: str, first: str) -> None:
    """A redacted message stays redacted, whoever edited the text before or knows it still."""
    two = Two(backend, commit)
    put(two.one, 0, "q0, edited")
    if first == "the redaction":
        redact_first(two)
        two.turn(two.one, "one")
    else:
        two.turn(two.one, "one")
        redact_first(two)
    two.turn(two.other, "two")
    assert two.settle()[0] == "[gone]"
    assert two.scene.transcript()[0] == "[gone]"
    assert "q0" not in str(backend.dump())


@both
def test_a_redaction_of_what_another_has_summarized(backend: Backend, commit: str) -> None:
    """A redaction of a message that is in nobody's memory any more changes its row all the same."""
    two = Two(backend, commit, to_summarize())
    two.turn(two.one, "one", OVERFLOW, "1")
    redact_first(two)
    two.turn(two.other, "two")
    assert two.settle()[0] == "summary 1"
    assert two.scene.transcript()[0] == "[gone]"
    assert "q0" not in str(backend.dump())


@both
def test_a_guardrail_while_another_has_a_turn(backend: Backend, commit: str) -> None:
    """A guardrail's redaction goes to its own prompt, whatever came between."""
    two = Two(backend, commit)

    def reply(_: Any) -> Reply:
        two.turn(two.other, "two", "2")
        return Redact("[gone]")

    two.one.model = two.scene.model(replying=reply)
    two.one("the SECRET")
    left = two.settle()
    assert "[gone]" in left
    assert {"two", "2"} <= set(left)
    assert "SECRET" not in str(backend.dump())


# -- what was put in -------------------------------------------------------------------------------


@both
def test_messages_that_each_has_put_in(backend: Backend, commit: str) -> None:
    """What each has put in by hand, and never said, stays in the memory of both."""
    two = Two(backend, commit)
    two.one.messages.insert(0, user("put in by one"))
    two.turn(two.one, "one")
    two.other.messages.insert(4, user("put in by two"))
    two.other.messages.insert(5, assistant("I see."))
    two.turn(two.other, "two")
    left = two.settle()
    assert [left.count(f"put in by {name}") for name in ("one", "two")] == [1, 1]
    assert left[0] == "put in by one"
    assert left[left.index("put in by two") + 1] == "I see."


@both
def test_marks_of_both(backend: Backend, commit: str) -> None:
    """Marks that each has put into a message's metadata are known to both."""
    two = Two(backend, commit)
    mark(two.one.messages, 0)
    two.turn(two.one, "one")
    mark(two.other.messages, 3)
    two.turn(two.other, "two")
    two.settle()
    for agent in (two.one, two.scene.open()):
        marked = [
            place
            for place, message in enumerate(agent.messages)
            if message.get("metadata", {}).get("custom")
        ]
        assert marked == [0, 3]


@both
def test_a_rewind_beside_another_writer(backend: Backend, commit: str) -> None:
    """A rewind drops what its agent knew, and nothing that the other has said meanwhile."""
    two = Two(backend, commit)
    snapshot = two.one.take_snapshot(preset="session")
    two.turn(two.one, "dropped", "dropped too")
    two.turn(two.other, "two", "2")
    two.one.load_snapshot(snapshot)
    two.turn(two.one, "one", "1")
    left = two.settle()
    assert "dropped" not in left
    assert {"one", "1", "two", "2"} <= set(left)
    assert "dropped" in two.scene.transcript()


@both
@pytest.mark.parametrize("earlier_is_first", [False, True])
def test_what_both_bring_back_is_in_its_order(
    backend: Backend, commit: str, earlier_is_first: bool
) -> None:
    """Old turns that each brings back to memory are one behind the other, as they were said."""
    two = Two(backend, commit)
    had = two.one.messages[:4], two.other.messages[:4]
    del two.one.messages[:4]
    for agent, prompt in ((two.one, "one"), (two.other, "two"), (two.one, "three")):
        two.turn(agent, prompt, prompt.upper())
    assert "q0" not in said(two.one.messages) + said(two.other.messages)
    two.one.messages[:0] = had[0][:2]
    two.other.messages[:0] = had[1][2:]
    agents = [two.one, two.other] if earlier_is_first else [two.other, two.one]
    for agent in agents:
        two.turn(agent, "back", "again")
    assert two.settle()[:5] == ["q0", "a0", "q1", "a1", "q2"]


# -- raise, and whole turns ------------------------------------------------------------------------


@both
@pytest.mark.parametrize("change", ["a drop", "an edit", "a summary"])
def test_under_raise_the_second_is_refused(backend: Backend, commit: str, change: str) -> None:
    """Where conflicts are raised, who has not seen another's view writes nothing."""
    scene = Scene(backend, commit, to_summarize())
    scene.open("a0")("q0")
    scene.open("a1")("q1")
    scene.open("a2")("q2")
    one, other = (scene.open("x", conflict="raise") for _ in range(2))
    if change == "a drop":
        del one.messages[:2]
    elif change == "an edit":
        put(one, 0, "q0, edited")
    else:
        one.model = scene.model(OVERFLOW, "x")
    one("one")
    before = backend.dump()
    refused(lambda: other("two"))
    after = backend.dump()
    assert after["agents"] == before["agents"]
    assert after["messages"] == before["messages"]
    assert said(scene.open().messages) == said(one.messages)


@both
@pytest.mark.parametrize("size", range(2, 9))
def test_a_turn_is_taken_in_whole_or_not_at_all(backend: Backend, commit: str, size: int) -> None:
    """Of a turn that another writer's window has cut nobody is given a half that can't be used."""
    two = Two(backend, commit, sliding(size), sliding(40))
    two.turn(two.one, "one", ToolCall("step"), ToolCall("count"), "1")
    two.turn(two.other, "two", "2")
    two.agrees(two.other)
    two.turn(two.one, "three", ToolCall("step"), "3")
    two.agrees(two.one)
    two.settle()
    assert isinstance(two.one.conversation_manager, SlidingWindowConversationManager)
    assert asked(two.one)[-1] == "And?"
