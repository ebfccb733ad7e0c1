"""Sessions, agents and transcripts as a terminal shows them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from strands_persql.admin import AgentSummary, MultiAgentSummary
from strands_persql.admin.catalogue import describe_view
from strands_persql.admin.transcript import token_usage
from strands_persql.cli.markdown import Indented, markdown
from strands_persql.cli.parts import Part, Said, blocks_of, media_of, role_of
from strands_persql.cli.wording import (
    as_json,
    counted,
    elapsed,
    moment,
    one_line,
    printable,
)

_LONGEST_RESULT = 12  # lines
_ROLES = {"user": "bold cyan", "assistant": "bold green"}
_DIM = "dim"


def plain_table(*columns: str, right: Sequence[str] = (), long: str | None = None) -> Table:
    """Return a table without lines, to be filled.

    Args:
        *columns: The names of the columns.
        right: Those whose cells are aligned to the right.
        long: The one that takes several lines where the terminal is narrow, or None for the first.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        is_long = name == (long or columns[0])
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold" if is_long else "ellipsis",
            no_wrap=not is_long,
        )
    return table


def agent_heading(session_id: str, agent: AgentSummary) -> RenderableType:
    """Return what comes before an agent's transcript."""
    title = Text.assemble(
        (one_line(session_id), "bold"), " / ", (one_line(agent.agent_id), "bold magenta")
    )
    lines = [title, Text(_times(agent), style=_DIM), Text(_works_with(agent), style=_DIM)]
    if agent.waits:
        lines.append(Text("waits for the answer to an interrupt", style="yellow"))
    extras = [one for one in describe_view(agent.view) if isinstance(one, dict)]
    parts: list[RenderableType] = [*lines]
    for message in extras:
        parts.append(Text("it works with a message that no one said:", style=_DIM))
        parts += [Indented(_block(block), 4) for block in blocks_of(message)]
    return Group(*parts)


def _times(agent: AgentSummary) -> str:
    return f"created {moment(agent.created_at)}, last active {moment(agent.active_at)} UTC"


def _works_with(agent: AgentSummary) -> str:
    if agent.newest_id is None:
        return "nothing was said"
    view = agent.view
    if not view.is_explicit and not view.start:
        return "works with what its conversation manager has left it"
    ranges = [f"{one[0]} to {one[1]}" for one in view.head if not isinstance(one, str)]
    if view.start <= agent.newest_id:
        ranges.append(f"{view.start} on")
    if ranges == ["0 on"]:
        return "works with all messages"
    return f"works with the messages {', '.join(ranges)}" if ranges else "works with no message"


def transcript(said: Iterable[Said]) -> Iterator[RenderableType]:
    """Yield messages one by one, with a line where a turn begins or the view changes."""
    in_view: bool | None = None
    for one in said:
        if one.begins_turn:
            yield Text()
            yield Rule(Text(_turn(one), style=_DIM), style=_DIM, align="left")
        if (in_view is not None and one.in_view is not in_view) or (
            in_view is None and not one.in_view
        ):
            yield Text(_VIEW[one.in_view], style="yellow")
        in_view = one.in_view
        yield message(one)


_VIEW = {
    True: "the agent works with what follows",
    False: "what follows lies behind: the agent no longer works with it",
}


def _turn(one: Said) -> str:
    when = moment(one.entry.created_at, seconds=True)
    return f"{when} · turn {one_line(one.entry.turn)}" if one.entry.turn else when


def message(one: Said) -> RenderableType:
    """Return a message with its role, its content and its results."""
    entry = one.entry
    role = role_of(entry)
    ids = (
        str(entry.message_id)
        if one.last_id == entry.message_id
        else f"{entry.message_id}-{one.last_id}"
    )
    head = Text.assemble((f"{ids:>5}  ", _DIM), (one_line(role), _ROLES.get(role, "bold red")))
    for note in _notes(one):
        head.append(f"  {note}", style=_DIM)
    body = [_block_of(part) for part in one.parts]
    if entry.problem is not None:
        body.append(Text(printable(entry.problem), style="red"))
    return Group(head, *(Indented(each, 7) for each in body))


def _notes(one: Said) -> Iterator[str]:
    entry = one.entry
    since = elapsed(one.turn_began_at, entry.created_at)
    if since:
        yield f"after {since}"
    if entry.version > 1:
        later = elapsed(entry.created_at, entry.updated_at)
        yield ("redacted" if entry.is_redacted else "changed") + (
            f" {later} later" if later else ""
        )
    usage = token_usage(entry.message)
    total = usage.get("totalTokens")
    if isinstance(total, int) and total > 0:
        yield counted(total, "token")


def _block(block: Any) -> RenderableType:
    if "text" in block:
        return markdown(str(block["text"]))
    return _block_of(media_of(block))


def _block_of(part: Part) -> RenderableType:
    if part.kind == "text":
        return markdown(part.text)
    if part.kind == "call":
        return _call(part)
    if part.kind == "reasoning":
        return Text(f"thinks: {printable(part.text)}", style="dim italic")
    if part.kind == "media":
        return Text(f"[{printable(part.text)}]", style="blue")
    return Text(one_line(as_json(part.value), 400), style=_DIM)


def _call(part: Part) -> RenderableType:
    head = Text.assemble(("calls ", _DIM), (one_line(part.name), "bold yellow"))
    arguments = _arguments(part.value)
    if arguments:
        head.append(f"({arguments})")
    if not part.is_answered:
        return Group(head, Text("  has no result", style="yellow"))
    style = "red" if part.is_error else ""
    arrow = "  ✗ " if part.is_error else "  → "
    results = [Text(f"{arrow}{_cut(_result(one))}", style=style) for one in part.results]
    return Group(head, *(results or [Text(f"{arrow}nothing", style=_DIM)]))


def _arguments(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{one_line(key)}={one_line(as_json(one), 200)}" for key, one in value.items()
        )
    return "" if value is None else one_line(as_json(value), 200)


def _result(part: Part) -> str:
    if part.kind == "text":
        return printable(part.text)
    return f"[{printable(part.text)}]" if part.kind == "media" else printable(as_json(part.value))


def _cut(text: str) -> str:
    """Return a text's first lines, and how many more there are."""
    lines = text.split("\n")
    shown = lines[:_LONGEST_RESULT]
    if len(lines) > len(shown):
        shown.append(f"… {counted(len(lines) - len(shown), 'more line')}")
    return "\n    ".join(shown)


def agent_state(agent: AgentSummary) -> Iterator[RenderableType]:
    """Yield what comes after an agent's transcript: its states."""
    for title, value in (
        ("state", agent.state),
        ("conversation manager", agent.conversation_manager),
    ):
        if value is None:
            yield Text(f"{title}: its row can't be read", style="red")
        elif value:
            yield Text()
            yield Rule(Text(title, style=_DIM), style=_DIM, align="left")
            yield Text(printable(as_json(value, indent=2)))


def multi_agent(one: MultiAgentSummary) -> RenderableType:
    """Return a graph or swarm with its state."""
    title = Text.assemble("graph or swarm ", (one_line(one.multi_agent_id), "bold magenta"))
    times = Text(
        f"created {moment(one.created_at)}, stored {counted(one.version, 'time')}", style=_DIM
    )
    state = "its row can't be read" if one.state is None else as_json(one.state, indent=2)
    return Group(Text(), title, times, Text(printable(state)))


def bars(rows: Sequence[tuple[str, int, str]], width: int) -> Iterator[Text]:
    """Yield a line with a bar for each row: its label, its amount, and words on it."""
    most = max((amount for _, amount, _ in rows), default=0)
    label = max((len(one) for one, _, _ in rows), default=0)
    words = max((len(one) for _, _, one in rows), default=0)
    room = max(width - label - words - 4, 4)
    for name, amount, said in rows:
        length = 0 if not amount else max(1, round(amount / most * room))
        yield Text.assemble(
            f"{name:<{label}}  ",
            ("█" * length, "green"),
            " " * (room - length),
            f"  {said:>{words}}",
        )


def print_all(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print parts as they come."""
    for part in parts:
        console.print(part)
