"""What the torture's writers do to their agents' memory between two turns."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from strands import Agent, ToolContext, tool
from strands.types.content import Message, Messages

from tests.concurrency.journal import TOKEN, Entry, Journal, writer_of


def tokens_of(message: Message) -> list[str]:
    """Give the tokens in a message."""
    return list(dict.fromkeys(TOKEN.findall(json.dumps(message["content"]))))


def tokens_in(messages: Iterable[Message]) -> list[str]:
    """Give the tokens in messages, in order."""
    return [name for message in messages for name in tokens_of(message)]


def asking(journal: Journal) -> Any:
    """Make a tool that asks for leave, and writes down that it has been given."""

    @tool(context=True)
    def ask(call: str, tool_context: ToolContext) -> str:
        """Ask for leave.

        Args:
            call: Names the call.
        """
        leave = str(tool_context.interrupt("leave"))
        journal.write("approved", interrupt=call)
        return leave

    return ask


class Memory:
    """Changes an agent's memory, and writes down before what it is about to change.

    Args:
        number: The writer's number: it edits, drops and pins messages of its own.
        journal: Where to write.
        chance: What decides.
        entries: What the writer has written in earlier lives.
    """

    def __init__(
        self, number: int, journal: Journal, chance: random.Random, entries: Iterable[Entry]
    ) -> None:
        self._number, self._journal, self._chance = number, journal, chance
        self._snapshot: Any = None
        self._edits: Counter[str] = Counter()
        for entry in entries:
            self._edits.update(entry.get("edits") or {} if entry["kind"] == "changed" else {})

    def change(self, kind: str, agent: Agent) -> None:
        """Do to an agent's memory what a kind of turn begins with, if it can be done."""
        if kind == "edit":
            self._edit(agent.messages)
        elif kind == "drop":
            self._drop(agent.messages)
        elif kind == "pin":
            self._pin(agent.messages)
        elif kind == "rewind":
            self._rewind(agent)
        elif self._chance.random() < 0.1:
            self._snapshot = agent.take_snapshot(include=["messages"])

    def _own(self, messages: Messages) -> list[int]:
        """Give the places of the writer's prompts that an answer stands behind."""
        found = []
        for place in range(len(messages) - 1):
            names = tokens_in(messages[place : place + 2])
            texts = all(set(one["content"][0]) == {"text"} for one in messages[place : place + 2])
            if texts and len(names) == 2 and {writer_of(one) for one in names} == {self._number}:
                turns = {one.rpartition(".")[0] for one in names}
                found += [place] * (len(turns) == 1 and names[0].endswith(".u"))
        return found

    def _edit(self, messages: Messages) -> None:
        places = [place for place in self._own(messages) if "redacted" not in str(messages[place])]
        if not places:
            return
        message = messages[self._chance.choice(places)]
        name = tokens_of(message)[0]
        self._edits[name] += 1
        self._write("edit", edits={name: 1})
        message["content"] = [{"text": f"question {name} (edit {self._edits[name]})"}]

    def _drop(self, messages: Messages) -> None:
        if places := self._own(messages):
            place = self._chance.choice(places)
            self._write("drop", dropped=tokens_in(messages[place : place + 2]))
            del messages[place : place + 2]

    def _pin(self, messages: Messages) -> None:
        if places := self._own(messages):
            metadata: Any = messages[self._chance.choice(places)].setdefault("metadata", {})
            self._write("pin")
            metadata.setdefault("custom", {})["pinned"] = True

    def _rewind(self, agent: Agent) -> None:
        if self._snapshot is None:
            return
        loaded = tokens_in(self._snapshot.data["messages"])
        held = tokens_in(agent.messages)
        self._write(
            "rewind",
            dropped=[name for name in held if name not in loaded],
            revived=[name for name in loaded if name not in held],
            loaded=loaded,
        )
        agent.load_snapshot(self._snapshot)

    def _write(self, how: str, **facts: Any) -> None:
        nothing: dict[str, Any] = {"dropped": [], "revived": [], "loaded": [], "edits": {}}
        self._journal.write("changed", how=how, **{**nothing, **facts})
