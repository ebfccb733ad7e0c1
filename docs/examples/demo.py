"""An agent continues where a killed process stopped, while another process writes beside it.

Run it with `make demo`, or with `python docs/examples/demo.py` where the package is installed. It
takes no token, no network and no model key: a script replaces the model, and answers from the
conversation that it is given. A real model answers only where STRANDS_PERSQL_DEMO_MODEL names its
provider (anthropic, bedrock or openai); it then takes that provider's key, and costs money.
"""

import contextlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from strands import Agent, ToolContext, tool
from strands.models.model import Model
from strands.types.content import Messages

from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import Reply, ScriptedModel, ToolCall

SESSION = "trip"
WAITING = "book_seat is running"
NEW = "a new database: makes its tables, the session and the agent"

# -- an agent with tools and state, like any other -------------------------------------------------


@tool(context=True)
def book_seat(city: str, tool_context: ToolContext) -> str:
    """Book a seat on the train.

    Args:
        city: Where to.
        tool_context: What Strands tells the tool.
    """
    say("tool", WAITING)
    sys.stdin.readline()  # the railway takes its time: until `main` below gives the word
    tool_context.agent.state.set("seat", f"12A to {city}")
    return f"seat 12A to {city} is booked"


@tool(context=True)
def add_guest(name: str, tool_context: ToolContext) -> str:
    """Add someone to the travel party.

    Args:
        name: Who.
        tool_context: What Strands tells the tool.
    """
    guests = tool_context.agent.state.get("guests") or []
    tool_context.agent.state.set("guests", [*guests, name])
    return f"{name} comes along"


def talk(path: str, prompts: list[str]) -> None:
    """Open the session, new or not, and say something: all that each process does."""
    logging.getLogger("strands").setLevel(logging.ERROR)  # it warns of the tool call cut short
    with LocalDatabase(path) as database, PerSQLSessionManager(SESSION, database) as session:
        agent = Agent(
            model=choose_model(),
            tools=[book_seat, add_guest],
            system_prompt="You plan a journey. Book seats and add guests at once, without asking.",
            session_manager=session,
            callback_handler=None,
        )
        stats = session.session_repository.stats
        found = f"with {len(agent.messages)} messages"
        say("opened", found if agent.messages else NEW, stats().round_trips)
        for prompt in prompts:
            say("user", prompt)
            before = stats()
            answer = agent(prompt)
            say("agent", str(answer).strip(), (stats() - before).round_trips)


def say(who: str, what: str, round_trips: int | None = None) -> None:
    """Print a line."""
    trips = "" if round_trips is None else f"{round_trips} round trip{'s' * (round_trips != 1)}"
    print(f"  {who:<7} {what:<66} {trips:>14}".rstrip(), flush=True)


# -- its model -------------------------------------------------------------------------------------

PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("AnthropicModel", {"model_id": "claude-sonnet-4-5", "max_tokens": 1024}),
    "bedrock": ("BedrockModel", {}),
    "openai": ("OpenAIModel", {"model_id": "gpt-4o-mini"}),
}


def choose_model() -> Model:
    """Return the scripted model, or a real one where STRANDS_PERSQL_DEMO_MODEL names it."""
    name = os.environ.get("STRANDS_PERSQL_DEMO_MODEL")
    if not name:
        return ScriptedModel(think)
    if name not in PROVIDERS:
        sys.exit(f"STRANDS_PERSQL_DEMO_MODEL={name} | must be one of {', '.join(PROVIDERS)}")
    model, settings = PROVIDERS[name]
    try:
        module = importlib.import_module(f"strands.models.{name}")
    except ImportError:
        sys.exit(f"{name} needs its package: pip install 'strands-agents[{name}]'")
    chosen: Model = getattr(module, model)(**settings)
    return chosen


def think(messages: Messages) -> Reply:
    """Answer from the conversation alone, as a model would."""
    users = [message["content"] for message in messages if message["role"] == "user"]
    said = [block["text"] for content in users for block in content if "text" in block]
    people = re.findall(r"I'm (\w+)", " ".join(said))
    home, goal = (re.search(rf"{word} ([A-Z]\w+)", " ".join(said)) for word in ("from", "to"))
    result = users[-1][0].get("toolResult")
    if result:
        return f"Done: {result['content'][0].get('text')}."
    if "come along" in said[-1]:
        return ToolCall("add_guest", {"name": people[-1]})
    if home and goal and "Who" in said[-1]:
        return f"{' and '.join(people)}, from {home[1]} to {goal[1]}."
    if goal:
        return ToolCall("book_seat", {"city": goal[1]})
    return f"Nice to meet you, {people[0]}."


# -- what happens ----------------------------------------------------------------------------------

NEXT = """
What to look at next: README.md, docs/tutorial.md, docs/reference/cli.md, docs/how-to/hosted.md"""


def main(path: str) -> None:
    """Have three processes on one session, and show what the database holds in the end."""
    print("strands-persql: three processes share one session, and one of them is killed")

    print("\nProcess 1 begins the session, and is killed in the middle of its second turn.")
    with start(path, "Hi, I'm Ada from Lisbon.", "Book a seat to Oslo, please.") as first:
        follow(first, until=WAITING)
        first.kill()
    say("SIGKILL", "process 1 is dead; each message that it had said is stored")

    print("\nProcess 2 opens the session, and knows from it who wants what.")
    with start(path, "Go on, please.", "Who travels, and where?") as second:
        follow(second, until=WAITING)

        print("\nProcess 3 has a turn of its own while process 2 waits for its tool.")
        with start(path, "I'm Ben, and I come along.") as third:
            follow(third)

        print("\nProcess 2 ends its turn, which moves behind process 3's, and learns of that one.")
        print("the seat is booked", file=second.stdin, flush=True)
        follow(second)
    show(path)
    print(NEXT)


def start(path: str, *prompts: str) -> "subprocess.Popen[str]":
    """Start this program again, to open the session and say something."""
    return subprocess.Popen(  # noqa: S603 - this very program
        [sys.executable, __file__, path, *prompts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def follow(process: "subprocess.Popen[str]", until: str | None = None) -> None:
    """Show what a process prints, until it prints something or ends."""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if until and until in line:
            return
    if process.wait():
        sys.exit(f"a process ended with code {process.returncode}")


def show(path: str) -> None:
    """Show what the database holds, with nothing but SQL."""
    with LocalDatabase(path) as database:
        messages = database.query(
            "SELECT message_id, turn, data FROM strands_messages ORDER BY message_id"
        )["data"]
        state = database.query("SELECT json_extract(data, '$.state') AS state FROM strands_agents")[
            "data"
        ]
        counts = {
            table: database.query(f"SELECT count(*) AS n FROM strands_{table}")["data"][0]["n"]  # noqa: S608
            for table in ("sessions", "agents", "messages", "multi_agents")
        }

    print("\nThe transcript, as the database holds it (ids have gaps where turns met):")
    turns = [turn for turn, _ in groupby(row["turn"] for row in messages)]
    for row in messages:
        message = json.loads(row["data"])["message"]
        text = " ".join(in_words(block) for block in message["content"])
        turn = f"turn {turns.index(row['turn']) + 1}"
        print(f"  {turn}  {row['message_id']:>2}  {message['role']:<9}  {text}")
    print(f"\nAgent state     {state[0]['state']}")
    print("Rows            " + ", ".join(f"{table} {n}" for table, n in counts.items()))
    print(f"Turns           {count_turns(turns, messages)}")


def count_turns(turns: list[str], messages: list[dict[str, Any]]) -> str:
    """Return how many turns there are, and of which kind; `turns` has one entry a stretch."""
    last = {row["turn"]: json.loads(row["data"])["message"] for row in messages}
    finished = [
        one["role"] == "assistant" and not any("toolUse" in block for block in one["content"])
        for one in last.values()
    ]
    mixed = "none mixed with another" if len(turns) == len(last) else "MIXED"
    cut = f"{finished.count(True)} finished, {finished.count(False)} cut short by the kill"
    return f"{len(last)}, {mixed}: {cut}"


def suggest(path: str) -> None:
    """Name two commands that show more of what was made, where they are installed."""
    program = Path(sys.executable).with_name("strands-persql")
    if not program.exists() or importlib.util.find_spec("typer") is None:
        return
    with contextlib.suppress(ValueError):
        program = program.relative_to(Path.cwd())
    print("\nLook at it:")
    print(f"  {program} show {SESSION} --local {path}")
    print(f"  {program} stats --local {path}")


def in_words(block: dict[str, Any]) -> str:
    """Return a part of a message as a line of text."""
    if "toolUse" in block:
        return f"calls {block['toolUse']['name']}({json.dumps(block['toolUse']['input'])})"
    if "toolResult" in block:
        return f"got: {block['toolResult']['content'][0]['text']}"
    return str(block.get("text", "(…)"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        talk(sys.argv[1], sys.argv[2:])
    else:
        for name in ("demo.db", "demo.db-wal", "demo.db-shm"):
            Path(name).unlink(missing_ok=True)
        main("demo.db")
        suggest("demo.db")
