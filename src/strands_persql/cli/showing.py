"""``show``: a transcript that people like to read, in the terminal or as a page."""

import itertools
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from strands.types.session import encode_bytes_values

from strands_persql.admin import AgentSummary, SessionAdmin, TranscriptEntry
from strands_persql.cli import html, terminal
from strands_persql.cli.commands import command
from strands_persql.cli.connection import Place, WrongUsageError
from strands_persql.cli.looking import agent_document
from strands_persql.cli.output import Output
from strands_persql.cli.parts import tell
from strands_persql.cli.wording import as_json, one_line
from strands_persql.errors import NotFoundError

_PAGE = 200
_REMEMBERED = 500  # messages whose changes are noticed while a session is followed


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "show")(show)


def show(
    where: Place,
    output: Output,
    session: Annotated[str, typer.Argument(help="The session.", show_default=False)],
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="One agent, instead of all.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=1, help="Only so many messages, the newest.")
    ] = None,
    after: Annotated[
        int | None, typer.Option("--after", help="Only messages behind this one, by its number.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the session does, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="Seconds between looks, with --follow.")
    ] = 1.0,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page instead.")
    ] = None,
) -> None:
    """Show what was said in a session, and what its agents work with.

    Examples:
    [bold]strands-persql show user-42 --local agents.db[/bold]

    [bold]strands-persql show user-42 -a support --last 20 --follow -d acme/state[/bold]

    [bold]strands-persql show user-42 --local agents.db --html user-42.html[/bold]
    """
    with where.open() as admin:
        agents = _chosen(admin.list_agents(session), session, agent)
        shown = _Shown(admin, session, agents, last, after)
        if page is not None:
            _write_page(shown, page, is_whole=agent is None)
            output.note(f"{page} is written.")
        elif follow:
            _follow(shown, output, interval)
        elif output.json:
            _print_json(shown)
        else:
            with output.pages() as console:
                _print(shown, console, is_whole=agent is None)


def _chosen(agents: list[AgentSummary], session: str, agent: str | None) -> list[AgentSummary]:
    found = [one for one in agents if agent in (None, one.agent_id)]
    if agent is not None and not found:
        names = ", ".join(repr(one.agent_id) for one in agents)
        raise NotFoundError(
            f"agent {agent!r} does not exist in session {session!r}; there are {names or 'none'}",
            session_id=session,
            agent_id=agent,
        )
    return found


class _Shown:
    """What is to be shown of a session."""

    def __init__(
        self,
        admin: SessionAdmin,
        session_id: str,
        agents: list[AgentSummary],
        last: int | None,
        after: int | None,
    ) -> None:
        self.admin, self.session_id, self.agents = admin, session_id, agents
        self._last, self._after = last, after

    def entries(self, agent_id: str) -> Iterator[TranscriptEntry]:
        """Read an agent's messages, page by page, as they are needed."""
        if self._last is not None:
            newest = itertools.islice(self._pages(agent_id, None, newest_first=True), self._last)
            found = [one for one in newest if self._after is None or one.message_id > self._after]
            yield from reversed(found)
        else:
            yield from self._pages(agent_id, self._after)

    def _pages(
        self, agent_id: str, after: int | str | None, *, newest_first: bool = False
    ) -> Iterator[TranscriptEntry]:
        size = _PAGE if self._last is None else min(_PAGE, self._last)
        while True:
            page = self.admin.transcript(
                self.session_id, agent_id, limit=size, after=after, newest_first=newest_first
            )
            yield from page.items
            if page.next is None:
                return
            after = page.next


def _print(shown: _Shown, console: Console, *, is_whole: bool) -> None:
    for number, agent in enumerate(shown.agents):
        if number:
            console.print()
        console.print(terminal.agent_heading(shown.session_id, agent))
        said = tell(shown.entries(agent.agent_id), agent.view)
        terminal.print_all(console, terminal.transcript(said))
        terminal.print_all(console, terminal.agent_state(agent))
    if not shown.agents:
        console.print(Text(f"Session {one_line(shown.session_id)} has no agent.", style="dim"))
    if is_whole:
        for one in shown.admin.list_multi_agents(shown.session_id):
            console.print(terminal.multi_agent(one))


def _print_json(shown: _Shown) -> None:
    """Print a document as its messages are read, however many there are."""
    # Piece by piece: the whole document may be larger than memory.
    write = sys.stdout.write
    write(f'{{"session_id": {as_json(shown.session_id)}, "agents": [')
    for number, agent in enumerate(shown.agents):
        head = as_json(agent_document(agent))
        write(f'{", " if number else ""}{head[:-1]}, "messages": [')
        for place, entry in enumerate(shown.entries(agent.agent_id)):
            write(f"{', ' if place else ''}{as_json(entry_document(entry))}")
        write("]}")
    write("]}\n")
    sys.stdout.flush()


def entry_document(entry: TranscriptEntry) -> dict[str, Any]:
    """Return a message as its JSON has it: bytes are encoded as Strands does."""
    document: dict[str, Any] = encode_bytes_values(dict(entry.__dict__))
    return document


def _write_page(shown: _Shown, path: Path, *, is_whole: bool) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(html.beginning(shown.session_id))
        for agent in shown.agents:
            said = tell(shown.entries(agent.agent_id), agent.view)
            file.writelines(html.agent(agent, said))
        if is_whole:
            file.writelines(map(html.multi_agent, shown.admin.list_multi_agents(shown.session_id)))
        file.write(html.end())


# -- following -------------------------------------------------------------------------------------


def _follow(shown: _Shown, output: Output, interval: float) -> None:
    if len(shown.agents) != 1:
        names = ", ".join(one_line(one.agent_id) for one in shown.agents)
        raise WrongUsageError(f"choose an agent to follow with --agent: {names or 'there is none'}")
    (agent,) = shown.agents
    if not output.json:
        output.console.print(terminal.agent_heading(shown.session_id, agent))
    entries = _Followed(shown, agent.agent_id, output, interval).entries()
    try:
        if output.json:
            for entry in entries:
                output.document(entry_document(entry))
        else:
            terminal.print_all(output.console, terminal.transcript(tell(entries, agent.view)))
    except KeyboardInterrupt:
        return


class _Followed:
    """An agent's messages as they come; what has changed of those shown is said."""

    def __init__(self, shown: _Shown, agent_id: str, output: Output, interval: float) -> None:
        self._shown, self._agent_id = shown, agent_id
        self._output, self._interval = output, interval
        self._known: OrderedDict[str, TranscriptEntry] = OrderedDict()
        self._newest = -1

    def entries(self) -> Iterator[TranscriptEntry]:
        """Read what is there, and then what comes."""
        yield from self._new(self._shown.entries(self._agent_id))
        while True:
            time.sleep(self._interval)
            self._tell_changes()
            page = self._shown.admin.transcript(
                self._shown.session_id, self._agent_id, limit=_PAGE, after=self._newest
            )
            yield from self._new(page.items)

    def _new(self, entries: Iterable[TranscriptEntry]) -> Iterator[TranscriptEntry]:
        for entry in entries:
            self._newest = max(self._newest, entry.message_id)
            known = self._known.pop(_key(entry), None)
            self._known[_key(entry)] = entry
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            if known is None:
                yield entry
            else:
                self._note(
                    f"message {known.message_id} is {entry.message_id} now: its turn continued"
                )

    def _tell_changes(self) -> None:
        """Look at the messages that were shown last, for they may have been redacted since."""
        page = self._shown.admin.transcript(
            self._shown.session_id, self._agent_id, limit=_PAGE, newest_first=True
        )
        for entry in reversed(page.items):
            known = self._known.get(_key(entry))
            if known is not None and known.version < entry.version:
                self._known[_key(entry)] = entry
                self._note(f"message {entry.message_id} was {_change(entry)}")

    def _note(self, text: str) -> None:
        if not self._output.json:
            self._output.console.print(Text(f"       {text}", style="yellow"))


def _key(entry: TranscriptEntry) -> str:
    return entry.write_id or f"#{entry.message_id}"


def _change(entry: TranscriptEntry) -> str:
    return "redacted" if entry.is_redacted else "changed"
