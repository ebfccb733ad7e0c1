"""``checkpoints``, ``rewind``, ``fork`` and ``truncate``: going back, and trying another way."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, TypeAlias

import typer
from rich.text import Text
from strands.types.session import SessionMessage

from strands_persql.admin import AgentSummary
from strands_persql.cli.commands import command
from strands_persql.cli.connection import Place, WrongUsageError
from strands_persql.cli.output import Output
from strands_persql.cli.terminal import plain_table
from strands_persql.cli.wording import counted, moment, one_line
from strands_persql.errors import NotFoundError
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.sessions.repository import PerSQLSessionRepository

_Point: TypeAlias = Checkpoint | SessionMessage | int

_LEAST_OF_AN_ID = 4  # characters by which a checkpoint may be named

_Session = Annotated[str, typer.Argument(help="The session.", show_default=False)]
_Agent = Annotated[
    str | None,
    typer.Option("--agent", "-a", help="The agent, where the session has several."),
]
_Message = Annotated[
    int | None,
    typer.Option("--message", "-m", min=0, help="To a message, by its number: it is the last one."),
]
_Turns = Annotated[
    int | None, typer.Option("--turns", "-t", min=1, help="Without so many of the latest turns.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "checkpoints")(checkpoints)
    command(app, "rewind", asks=True)(rewind)
    command(app, "fork")(fork)
    command(app, "truncate", asks=True)(truncate)


def checkpoints(
    where: Place,
    output: Output,
    session: _Session,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="One agent, instead of all.")
    ] = None,
) -> None:
    """List the checkpoints of a session, the oldest first.

    Applications keep them with manager.checkpoint(agent, label).

    Examples:
    [bold]strands-persql checkpoints user-42 --local agents.db[/bold]
    """
    with where.open_to_write() as (admin, repository):
        agents = admin.list_agents(session)
        if agent is not None:
            _chosen(agents, session, agent)
        found = repository.as_read_only().list_checkpoints(session, agent)
    if output.json:
        output.document({"session_id": session, "checkpoints": [asdict(one) for one in found]})
        return
    if not found:
        output.note("There are no checkpoints.")
        return
    with output.pages() as console:
        names = ("checkpoint", "agent", "label", "made", "messages")
        table = plain_table(*names, right=("messages",), long="label")
        for one in found:
            made = moment(one.created_at)
            cells = (one.checkpoint_id, one.agent_id, one.label, made, one.messages)
            table.add_row(*(Text(one_line(cell)) for cell in cells))
        console.print(table)


def rewind(
    where: Place,
    output: Output,
    session: _Session,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="CHECKPOINT", help="To a checkpoint, by its id or label."),
    ] = None,
    message: _Message = None,
    turns: _Turns = None,
    agent: _Agent = None,
) -> None:
    """Have an agent go back to a checkpoint, to a message, or by turns.

    A checkpoint brings back its state and what its conversation manager had removed; the others
    leave the state as it is. What was said since is kept in the history, until it is truncated.

    Examples:
    [bold]strands-persql rewind user-42 --turns 1 --local agents.db[/bold]

    [bold]strands-persql rewind user-42 --to "before the trip" --yes -d acme/state[/bold]
    """
    with where.open_to_write() as (admin, repository):
        chosen = _chosen(admin.list_agents(session), session, agent)
        point = _point(repository, chosen, session, to, message, turns)
        if point is None:
            raise WrongUsageError(
                "say where to: --to CHECKPOINT, --message NUMBER or --turns COUNT"
            )
        name = f"{one_line(chosen.agent_id)} of {one_line(session)}"
        output.confirm(f"Have {name} in {where} go back {_words(point)}?")
        with _wrong_points():
            left = repository.rewind_session(session, chosen.agent_id, point)
    if output.json:
        output.document({"session_id": session, "agent_id": chosen.agent_id, "messages": left})
    else:
        output.say(
            f"{name} has gone back {_words(point)}, and works with {counted(left, 'message')}. What"
            " was said since is kept in the history; truncate removes it."
        )


def fork(
    where: Place,
    output: Output,
    session: _Session,
    new: Annotated[str, typer.Argument(help="The copy's id.", show_default=False)],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="CHECKPOINT", help="As at a checkpoint, by its id or label."),
    ] = None,
    message: _Message = None,
    turns: _Turns = None,
    agent: _Agent = None,
) -> None:
    """Copy a session within its database, as it is or as it was.

    The original stays as it is. With --at, --message or --turns one agent is as it was then;
    other agents are copied as they are.

    Examples:
    [bold]strands-persql fork user-42 user-42-again --local agents.db[/bold]

    [bold]strands-persql fork user-42 user-42-again --turns 2 --local agents.db[/bold]
    """
    with where.open_to_write() as (admin, repository):
        agents = admin.list_agents(session)
        point, chosen = None, None
        if (at, message, turns, agent) != (None, None, None, None):
            chosen = _chosen(agents, session, agent)
            point = _point(repository, chosen, session, at, message, turns)
        if point is None and chosen is not None:
            raise WrongUsageError("--agent goes with --at, --message or --turns")
        agent_id = None if chosen is None else chosen.agent_id
        with _wrong_points():
            repository.fork_session(session, new, at=point, agent_id=agent_id)
    if output.json:
        output.document({"session_id": new, "copy_of": session, "agent_id": agent_id})
    else:
        then = (
            f", in which {one_line(agent_id)} has gone back {_words(point)}"
            if point is not None
            else ""
        )
        output.say(f"{one_line(new)} is a copy of {one_line(session)}{then}.")


def truncate(where: Place, output: Output, session: _Session, agent: _Agent = None) -> None:
    """Delete for good what an agent has gone back behind, with the checkpoints of it.

    An agent that is open must be opened again: its next write fails.

    Examples:
    [bold]strands-persql truncate user-42 --local agents.db[/bold]
    """
    with where.open_to_write() as (admin, repository):
        chosen = _chosen(admin.list_agents(session), session, agent)
        name = f"{one_line(chosen.agent_id)} of {one_line(session)}"
        output.confirm(f"Delete what {name} in {where} has gone back behind, for good?")
        deleted = repository.truncate_session(session, chosen.agent_id)
    if output.json:
        output.document({"session_id": session, "agent_id": chosen.agent_id, "messages": deleted})
    elif deleted:
        output.say(
            f"{counted(deleted, 'message')} of {name} {'is' if deleted == 1 else 'are'} gone."
        )
    else:
        output.say(f"{name} has not gone back behind anything: nothing was changed.")


# -- what was meant --------------------------------------------------------------------------------


def _chosen(agents: Sequence[AgentSummary], session: str, agent: str | None) -> AgentSummary:
    """Return the agent that is meant: the only one, where none was named."""
    names = ", ".join(one_line(one.agent_id) for one in agents)
    if agent is None:
        if len(agents) != 1:
            raise WrongUsageError(f"choose an agent with --agent: {names or 'there is none'}")
        return agents[0]
    found = [one for one in agents if one.agent_id == agent]
    if not found:
        raise NotFoundError(
            f"agent {agent!r} does not exist in session {session!r}; there are {names or 'none'}",
            session_id=session,
            agent_id=agent,
        )
    return found[0]


def _point(
    repository: PerSQLSessionRepository,
    agent: AgentSummary,
    session: str,
    checkpoint: str | None,
    message: int | None,
    turns: int | None,
) -> _Point | None:
    """Return where to, of what was given, or None where nothing was."""
    if sum(one is not None for one in (checkpoint, message, turns)) > 1:
        raise WrongUsageError("give one of them: a checkpoint, --message or --turns")
    if checkpoint is not None:
        return _checkpoint(repository.list_checkpoints(session, agent.agent_id), checkpoint)
    if message is None:
        return turns
    if agent.newest_id is None or message > agent.newest_id or message not in agent.view:
        raise WrongUsageError(
            f"agent {agent.agent_id!r} doesn't work with message {message}; 'show' says with which"
            " it does, and a checkpoint leads further back"
        )
    found = repository.read_message(session, agent.agent_id, message)
    if found is None:
        raise NotFoundError(f"message {message} does not exist", session_id=session)
    return found


def _checkpoint(found: Sequence[Checkpoint], wanted: str) -> Checkpoint:
    """Return the checkpoint that an id, its beginning or a label names."""
    named = [one for one in found if wanted in (one.checkpoint_id, one.label)]
    if not named and len(wanted) >= _LEAST_OF_AN_ID:
        named = [one for one in found if one.checkpoint_id.startswith(wanted)]
    if len(named) > 1:
        names = ", ".join(one.checkpoint_id for one in named)
        raise WrongUsageError(f"{wanted!r} names several checkpoints; give the id of one: {names}")
    if not named:
        raise NotFoundError(f"there is no checkpoint {wanted!r}; 'checkpoints' lists them")
    return named[0]


def _words(point: _Point) -> str:
    if isinstance(point, int):
        return f"by {counted(point, 'turn')}"
    if isinstance(point, SessionMessage):
        return f"to message {point.message_id}"
    return f"to the checkpoint {one_line(point.label or point.checkpoint_id, 40)!r}"


@contextlib.contextmanager
def _wrong_points() -> Iterator[None]:
    """Say of a point that can't be gone back to that it was given wrongly."""
    try:
        yield
    except ValueError as error:
        raise WrongUsageError(str(error).partition(" | ")[2] or str(error)) from error
