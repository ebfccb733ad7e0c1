"""The checker: it finds each way in which a history can be wrong, and nothing in a right one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.concurrency.checker import Tables, Violation, check, check_blocks
from tests.concurrency.journal import Entry, token

Row = dict[str, Any]

ALL = ("w0.0.u", "w0.0.c0", "w0.0.r0", "w0.0.a", "w1.0.u", "w1.0.a", "w0.1.u", "w0.1.a")


class History:
    """Rows and journals of two writers, right at first, for tests to spoil.

    Writer 0 has a turn with a tool and one that was redacted, writer 1 a plain one between them.
    """

    def __init__(self) -> None:
        self.messages = [
            self.message(0, "t0", text="w0.0.u"),
            self.message(1, "t0", call="w0.0.c0"),
            self.message(2, "t0", result="w0.0.r0"),
            self.message(3, "t0", text="w0.0.a"),
            self.message(4, "t1", text="w1.0.u"),
            self.message(5, "t1", text="w1.0.a"),
            self.message(8, "t2", text="[redacted] w0.1.u"),
            self.message(9, "t2", text="w0.1.a"),
        ]
        self.state: dict[str, Any] = {
            "w0": {"count": 1},
            "shared": {"by": {"w0": 1}},
        }
        self.agent: Row = {
            "created_at": "2026-01-01",
            "version": 2,
            "writes": "a1 ",
            "window_start": 0,
        }
        self.removed = 0
        self.sessions: list[Row] = [{"data": "{}"}]
        texts = [{"role": "user", "content": [{"text": name}]} for name in ALL]
        quiet = {"role": "user", "content": [{"text": "all quiet?"}]}
        self.rest: Entry = {
            "opened": texts,
            "asked": [*texts, quiet],
            "held": [*texts, quiet],
            "restored": [*texts, quiet],
            "unpaired": [],
        }
        self.journals: dict[int, list[Entry]] = {
            0: [
                entry("started", counted=[0, 0]),
                turn(0, 0, "u", "c0", "r0", "a"),
                acknowledged("w0.0.u", "w0.0.c0"),
                entry("ran"),
                acknowledged("w0.0.r0", "w0.0.a", counted=[1, 1]),
                held("w0.0.u", "w0.0.c0", "w0.0.r0", "w0.0.a"),
                turn(0, 1, "u", "a", secret="secret-0-1"),  # noqa: S106 - no password
                shown("w0.0.u", "w0.0.c0", "w0.0.r0", "w0.0.a", "w1.0.u", "w1.0.a", "w0.1.u"),
                acknowledged("w0.1.u", "w0.1.a", counted=[1, 1]),
                held(*ALL),
                entry("redacted", secrets=["secret-0-1"]),
            ],
            1: [
                entry("started", counted=[0, 0]),
                turn(1, 0, "u", "a"),
                acknowledged("w1.0.u", "w1.0.a"),
                held(*ALL[:6]),
            ],
        }

    @staticmethod
    def message(
        message_id: int, turn_id: str, *, text: str = "", call: str = "", result: str = ""
    ) -> Row:
        use = {"toolUse": {"toolUseId": "call", "input": {"call": call}}}
        answer = {"toolResult": {"toolUseId": "call", "content": [{"text": result}]}}
        block = use if call else answer if result else {"text": text}
        data = {"message": {"role": "user", "content": [block]}, "message_id": message_id}
        write_id = f"write-{message_id}"
        return {
            "message_id": message_id,
            "turn": turn_id,
            "write_id": write_id,
            "version": 1,
            "data": json.dumps(data),
        }

    def tables(self) -> Tables:
        data = {
            "state": self.state,
            "created_at": "2026-01-01",
            "conversation_manager_state": {"removed_message_count": self.removed},
        }
        agents = [{"data": json.dumps(data), **self.agent}]
        return Tables(self.sessions, agents, self.messages)

    def check(self, commit: Any = "message") -> list[Violation]:
        return check(self.tables(), self.journals, commit=commit, rest=self.rest)

    def remove(self, *names: str) -> None:
        """Take messages out of the table."""
        self.messages = [row for row in self.messages if not any(n in row["data"] for n in names)]

    def order(self, *places: int) -> None:
        """Put the messages into another order, under ids that grow again."""
        self.messages = [self.messages[place] for place in places]
        for message_id, row in enumerate(self.messages):
            data = {**json.loads(row["data"]), "message_id": message_id}
            row |= {"message_id": message_id, "data": json.dumps(data)}

    def row(self, name: str) -> Row:
        """Give the row of a token."""
        return next(row for row in self.messages if name in row["data"])


def entry(kind: str, *, at: float = 1.0, **facts: Any) -> Entry:
    return {"kind": kind, "at": at, **facts}


def turn(writer: int, number: int, *parts: str, secret: str | None = None) -> Entry:
    return entry("turn", tokens=[token(writer, number, part) for part in parts], secret=secret)


def acknowledged(*names: str, counted: Any = (0, 0)) -> Entry:
    return entry("acknowledged", tokens=list(names), counted=list(counted))


def held(*names: str, at: float = 1.0) -> Entry:
    return entry("held", at=at, tokens=list(names))


def changed(how: str, *, at: float = 1.0, **facts: Any) -> Entry:
    nothing: dict[str, Any] = {"dropped": [], "revived": [], "loaded": [], "edits": {}}
    return entry("changed", at=at, how=how, **{**nothing, **facts})


def shown(*names: str, unpaired: Any = (), since: float = 2.0) -> Entry:
    return entry("shown", tokens=list(names), unpaired=list(unpaired), since=since)


Spoil = Callable[[History], None]
SPOILED: list[Any] = []


def makes(kind: str, commit: str = "message") -> Callable[[Spoil], Spoil]:
    """Add a way to spoil a history, and say what the checker must find then."""

    def add(spoil: Spoil) -> Spoil:
        SPOILED.append(pytest.param(spoil, kind, commit, id=spoil.__name__.strip("_")))
        return spoil

    return add


@makes("message lost")
def _acknowledged_message_gone(history: History) -> None:
    history.remove("w1.0.a")


@makes("message lost")
def _acknowledged_turn_gone(history: History) -> None:
    history.remove("w1.0")


@makes("message doubled")
def _acknowledged_message_twice(history: History) -> None:
    history.messages.append(history.message(10, "t2", text="w0.1.a"))


@makes("message doubled")
def _unacknowledged_message_twice(history: History) -> None:
    history.journals[1].append(turn(1, 1, "u"))
    history.messages.append(history.message(10, "t3", text="w1.1.u"))
    history.messages.append(history.message(11, "t3", text="w1.1.u"))


@makes("write doubled")
def _write_twice(history: History) -> None:
    history.row("w1.0.a")["write_id"] = history.row("w1.0.u")["write_id"]


@makes("message unknown")
def _message_that_nobody_wrote(history: History) -> None:
    history.messages.append(history.message(10, "t3", text="w1.7.u"))


@makes("message unknown")
def _message_of_an_unknown_writer(history: History) -> None:
    history.messages.append(history.message(10, "t3", text="w9.0.u"))


@makes("order")
def _turns_of_a_writer_swapped(history: History) -> None:
    history.journals[0] = [one for one in history.journals[0] if one["kind"] != "shown"]
    history.order(6, 7, 0, 1, 2, 3, 4, 5)


@makes("order")
def _late_message_within_a_life(history: History) -> None:
    history.journals[1][1:] = [turn(1, 1, "u", "a"), *history.journals[1][1:]]
    history.messages.append(history.message(10, "t3", text="w1.1.u"))
    history.messages.append(history.message(11, "t3", text="w1.1.a"))


@makes("turn torn")
def _another_turn_in_between(history: History) -> None:
    history.order(0, 1, 2, 4, 5, 3, 6, 7)


@makes("turn torn")
def _turn_under_two_ids(history: History) -> None:
    history.row("w0.0.a")["turn"] = "t9"


@makes("turn torn")
def _hole_in_a_turn(history: History) -> None:
    history.journals[1][2] = acknowledged("w1.0.a")
    history.remove("w1.0.u")


@makes("turn halved", commit="turn")
def _half_a_turn(history: History) -> None:
    history.journals[1] += [turn(1, 1, "u", "a"), entry("started", counted=[0, 0])]
    history.messages.append(history.message(10, "t3", text="w1.1.u"))


@makes("result apart")
def _result_of_a_call_elsewhere(history: History) -> None:
    history.journals[0] = [one for one in history.journals[0] if one["kind"] != "shown"]
    history.order(0, 3, 1, 4, 2, 5, 6, 7)


@makes("result apart")
def _result_without_its_call(history: History) -> None:
    history.row("w0.0.c0")["data"] = history.message(1, "t0", text="w0.0.c0")["data"]


@makes("increment lost")
def _last_increment_gone(history: History) -> None:
    history.state["w0"] = {"count": 0}


@makes("increment lost")
def _nested_increment_gone(history: History) -> None:
    history.state["shared"] = {"by": {}}


@makes("increment lost")
def _increment_gone_meanwhile(history: History) -> None:
    history.journals[0].append(entry("started", counted=[0, 0]))


@makes("increment lost")
def _increment_gone_from_memory(history: History) -> None:
    history.journals[0] += [entry("ran"), acknowledged(counted=[1, 1])]
    history.agent["version"] = 3


@makes("increment invented")
def _increment_applied_twice(history: History) -> None:
    history.state["w0"] = {"count": 2}


@makes("redaction lost")
def _redacted_text_in_a_message(history: History) -> None:
    row = history.row("w0.1.u")
    row["data"] = row["data"].replace("[redacted]", "secret-0-1")


@makes("redaction lost")
def _redacted_text_in_the_agent(history: History) -> None:
    history.state["summary"] = "He said secret-0-1."


@makes("version")
def _version_that_stood_still(history: History) -> None:
    history.agent |= {"version": 1, "writes": ""}


@makes("version")
def _write_remembered_twice(history: History) -> None:
    history.agent |= {"version": 3, "writes": "a1 a1 "}


@makes("version")
def _more_writes_than_versions(history: History) -> None:
    history.agent["writes"] = "a1 a2 "


@makes("creation time")
def _creation_time_changed(history: History) -> None:
    history.agent["created_at"] = "2026-01-02"


@makes("window")
def _window_beyond_what_was_removed(history: History) -> None:
    history.agent["window_start"] = 10_000


@makes("bad row")
def _message_that_is_no_json(history: History) -> None:
    history.row("w1.0.a")["data"] = "w1.0.a"


@makes("bad row")
def _message_that_is_none(history: History) -> None:
    history.row("w1.0.a")["data"] = '{"text": "w1.0.a"}'


@makes("bad row")
def _message_under_another_id(history: History) -> None:
    history.messages[-1]["message_id"] = 10


@makes("bad row")
def _message_without_a_version(history: History) -> None:
    history.messages[-1]["version"] = 0


@makes("bad row")
def _agent_that_is_no_json(history: History) -> None:
    history.sessions[0]["data"] = "{"


@makes("bad row")
def _two_sessions(history: History) -> None:
    history.sessions.append({"data": "{}"})


@makes("history")
def _message_shown_twice(history: History) -> None:
    history.journals[0].append(shown("w0.1.u", "w0.1.u", since=0.0))


@makes("history")
def _own_message_not_shown(history: History) -> None:
    history.journals[0].append(shown("w0.0.u", "w0.1.a", since=0.0))


@makes("history")
def _own_messages_shown_out_of_order(history: History) -> None:
    history.journals[0].append(shown("w0.1.a", "w0.1.u", since=0.0))


@makes("history")
def _message_of_another_not_shown(history: History) -> None:
    history.journals[0].append(
        shown("w0.0.u", "w0.0.c0", "w0.0.r0", "w0.0.a", "w1.0.u", "w0.1.u", "w0.1.a")
    )


@makes("history")
def _half_of_a_tool_call_shown(history: History) -> None:
    history.journals[0].append(shown("w0.1.a", unpaired=["call-0-0-0"]))


@makes("memory")
def _a_new_process_was_given_more(history: History) -> None:
    seen = shown("w0.0.u", "w0.0.c0", "w0.0.r0", "w0.0.a", "w0.1.u")
    history.journals[0].append({**seen, "fresh": ["w0.0.u", "w1.0.u", "w1.0.a", "w0.1.u"]})


@makes("memory")
def _a_new_process_was_given_less(history: History) -> None:
    history.journals[0].append({**shown(*ALL), "fresh": list(ALL[:4])})


@makes("memory")
def _a_new_process_was_given_another_order(history: History) -> None:
    history.journals[0].append({**shown(*ALL), "fresh": [*ALL[4:], *ALL[:4]]})


@makes("memory")
def _another_memory_at_rest(history: History) -> None:
    history.rest["restored"] = history.rest["restored"][1:]


@makes("memory")
def _another_text_at_rest(history: History) -> None:
    quiet = {"role": "user", "content": [{"text": "w0.0.u, edited"}]}
    history.rest["restored"] = [quiet, *history.rest["restored"][1:]]


@makes("memory")
def _another_question_at_rest(history: History) -> None:
    history.rest["asked"] = history.rest["asked"][2:]


@makes("memory")
def _half_of_a_call_at_rest(history: History) -> None:
    history.rest["unpaired"] = ["call-0-0-0"]


@makes("memory")
def _a_message_twice_at_rest(history: History) -> None:
    for key in ("held", "restored"):
        history.rest[key] = [*history.rest[key], history.rest[key][0]]


@makes("drop lost")
def _a_dropped_message_shown_again(history: History) -> None:
    history.journals[1] += [
        changed("drop", dropped=["w1.0.u", "w1.0.a"]),
        held("w0.0.u", at=1.5),
    ]
    history.journals[0].append(shown("w1.0.u", "w1.0.a", "w0.1.u"))


@makes("edit lost")
def _an_edit_gone(history: History) -> None:
    history.journals[1] += [changed("edit", edits={"w1.0.u": 1}), held(*ALL[:6])]


@makes("edit lost")
def _a_later_edit_gone(history: History) -> None:
    for _ in range(2):
        history.journals[1] += [changed("edit", edits={"w1.0.u": 1}), held(*ALL[:6])]
    history.row("w1.0.u")["data"] = history.message(4, "t1", text="w1.0.u (edit 1)")["data"]


@makes("edit lost")
def _a_text_that_an_edit_has_replaced(history: History) -> None:
    for _ in range(2):
        history.journals[1] += [changed("edit", edits={"w1.0.u": 1}), held(*ALL[:6])]
    both = "w1.0.u (edit 1) w1.0.u (edit 2)"
    history.row("w1.0.u")["data"] = history.message(4, "t1", text=both)["data"]


@makes("edit lost")
def _an_edit_that_nobody_made(history: History) -> None:
    history.journals[1].append(changed("edit", edits={"w1.0.u": 1}))
    history.row("w1.0.u")["data"] = history.message(4, "t1", text="w1.0.u (edit 2)")["data"]


@makes("answered twice")
def _two_answers_to_one_question(history: History) -> None:
    for number in (0, 1):
        history.journals[number].append(entry("approved", interrupt="w0.0.c0"))


@makes("history")
def _a_message_that_was_dropped_elsewhere_only(history: History) -> None:
    history.journals[1] += [changed("drop", dropped=["w0.0.a"]), held(*ALL[:3], *ALL[4:])]
    history.journals[0].append(shown("w0.0.u", "w1.0.u", "w1.0.a", "w0.1.u", since=0.0))


@makes("crash")
def _writer_crashed(history: History) -> None:
    history.journals[1].append(entry("crashed", error="KeyError"))


@pytest.mark.parametrize(("spoil", "kind", "commit"), SPOILED)
def test_a_wrong_history_is_found(spoil: Spoil, kind: str, commit: str) -> None:
    """The checker names what is wrong."""
    history = History()
    spoil(history)

    assert kind in {violation.kind for violation in history.check(commit)}


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_a_right_history_passes(commit: str) -> None:
    """The checker finds nothing where nothing is wrong."""
    assert History().check(commit) == []


class TestWhatIsAllowed:
    """What looks wrong, and isn't."""

    def test_unacknowledged_messages_may_be_lost(self) -> None:
        """A message whose writer was told nothing may be there or not."""
        history = History()
        history.journals[1].append(turn(1, 1, "u", "a"))

        assert history.check() == []
        history.messages.append(history.message(10, "t3", text="w1.1.u"))
        assert history.check() == []

    def test_an_unacknowledged_increment_may_be_lost(self) -> None:
        """An increment whose writer died may be there or not."""
        for count in (1, 2):
            history = History()
            history.journals[0] += [entry("ran"), entry("started", counted=[count, 1])]
            history.state["w0"] = {"count": count}

            assert history.check() == []

    def test_a_dead_writers_request_may_come_late(self) -> None:
        """What was never acknowledged may stand behind what its writer did in its next life."""
        history = History()
        history.journals[1][1:1] = [turn(1, 7, "u"), entry("started", counted=[0, 0])]
        history.messages.append(history.message(10, "t3", text="w1.7.u"))

        assert history.check() == []

    def test_a_failed_turn_may_be_cut_short(self) -> None:
        """A writer that was told of a failure in the middle of a turn may have stored its start."""
        history = History()
        history.journals[1] += [turn(1, 1, "u", "a"), entry("failed", error="UnavailableError")]
        history.messages.append(history.message(10, "t3", text="w1.1.u"))

        assert history.check("turn") == []

    def test_a_made_up_result_may_stand_alone(self) -> None:
        """A result that Strands made up for an interrupted call needn't stand behind it."""
        history = History()
        history.messages.append(history.message(10, "t3", result="Tool was interrupted."))

        assert history.check() == []

    def test_a_turn_that_another_went_on_with_may_have_moved(self) -> None:
        """It stands where the one who went on with it did so, behind later turns of its writer."""
        history = History()
        history.remove("w0.0.r0", "w0.0.a")
        history.messages += [
            history.message(10, "t0", result="w1.1.r0"),
            history.message(11, "t0", text="w1.1.a"),
        ]
        history.order(2, 3, 4, 5, 0, 1, 6, 7)
        history.state = {}
        history.agent |= {"version": 1, "writes": ""}
        there = [*ALL[4:], "w0.0.u", "w0.0.c0", "w1.1.r0", "w1.1.a"]
        texts = [{"role": "user", "content": [{"text": name}]} for name in there]
        quiet = {"role": "user", "content": [{"text": "all quiet?"}]}
        history.rest |= {"opened": texts, "asked": [*texts, quiet]}
        history.rest |= {"held": [*texts, quiet], "restored": [*texts, quiet]}
        history.journals[0] = [
            entry("started", counted=[0, 0]),
            turn(0, 0, "u", "c0"),
            acknowledged("w0.0.u", "w0.0.c0"),
            turn(0, 1, "u", "a", secret="secret-0-1"),  # noqa: S106 - no password
            acknowledged("w0.1.u", "w0.1.a"),
            shown(*there),
        ]
        history.journals[1] += [turn(1, 1, "r0", "a"), acknowledged("w1.1.r0", "w1.1.a")]
        assert history.check() == []

        history.order(0, 1, 4, 5, 6, 7, 2, 3)  # the other's own turns keep their order
        assert history.check() == []
        history.order(2, 3, 4, 5, 0, 1, 6, 7)
        assert {one.kind for one in history.check()} == {"order"}

    def test_what_was_dropped_needs_not_be_shown(self) -> None:
        """What somebody has dropped, or may have when it died, is missing rightly."""
        history = History()
        history.journals[1] += [
            changed("drop", dropped=["w1.0.u", "w1.0.a"]),
            held(*ALL[:4], at=2.5),
        ]
        history.journals[0].append(shown(*ALL[:4], "w0.1.u", "w0.1.a", since=3.0))
        assert history.check() == []

        history = History()
        history.journals[1] += [turn(1, 1, "u", "a"), entry("started", counted=[0, 0])]
        history.journals[0].append(shown(*ALL[:4], "w0.1.u", "w0.1.a"))
        assert history.check() == []

    def test_what_a_window_has_dropped_needs_not_be_shown(self) -> None:
        """What a call has left out of memory is missing from then on, before pins too."""
        history = History()
        history.journals[0] += [held("w0.0.u", *ALL[4:])]
        history.journals[0].append(shown("w0.0.u", *ALL[4:]))

        assert history.check() == []

    def test_what_was_revived_may_be_shown(self) -> None:
        """What was dropped and is loaded again by a rewind may be shown."""
        history = History()
        history.journals[1] += [
            changed("drop", dropped=["w1.0.u", "w1.0.a"]),
            held(*ALL[:4], at=1.5),
            changed("rewind", revived=["w1.0.u", "w1.0.a"], loaded=list(ALL[:6])),
            held(*ALL[:6], at=1.6),
        ]
        history.journals[0].append(shown(*ALL))

        assert history.check() == []

    def test_an_unacknowledged_edit_may_stand_or_not(self) -> None:
        """An edit whose writer was told nothing may be in the row or not."""
        for text in ("w1.0.u", "w1.0.u (edit 1)"):
            history = History()
            history.journals[1].append(changed("edit", edits={"w1.0.u": 1}))
            history.row("w1.0.u")["data"] = history.message(4, "t1", text=text)["data"]

            assert history.check() == []

    def test_a_new_process_may_know_what_came_meanwhile(self) -> None:
        """What was stored after a model was asked may be given to who opens the session then."""
        history = History()
        seen = shown(*ALL[:4], "w0.1.u", since=0.5)
        history.journals[0].append({**seen, "fresh": list(ALL)})

        assert [one for one in history.check() if one.kind == "memory"] == []

    def test_blocks_may_begin_in_the_middle(self) -> None:
        """A stretch of messages may begin with the result of a call before it."""
        assert list(check_blocks(History().messages[2:])) == []
