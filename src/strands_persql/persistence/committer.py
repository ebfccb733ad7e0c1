"""A moment of an agent's life, stored in one transaction and one round trip.

A moment is everything that changed at once: new messages, redactions of older ones, the agent's
state. It goes out as one batch that moves the agent's turn behind other writers' messages if any
came in between, appends, updates the agent's row if its version is the expected one, and reads
back how things stand. Each message and each update carries a write id that is made once, so that
a batch sent twice, or late, changes nothing the second time.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

from strands_persql.databases.protocol import Statement, Value
from strands_persql.errors import ConflictError, NotFoundError, OutcomeUnknownError
from strands_persql.gateway.retry import LostRaceError, RetryPolicy
from strands_persql.gateway.transport import Transport, new_write_id
from strands_persql.persistence.cached import MessageRow
from strands_persql.persistence.merge import merge, same
from strands_persql.tables.codec import RowCodec, removed_messages
from strands_persql.tables.schema import WRITE_ID_LENGTH, WRITES_KEPT, Row, Schema, Window

logger = logging.getLogger(__name__)

OnConflict: TypeAlias = Literal["merge", "raise"]

MAX_MESSAGES = 80
"""Messages in one moment at the most, within the 100 statements of a batch."""

MAX_REWRITES = 6
"""Rewrites in one moment at the most, likewise."""

MAX_BYTES = 4_000_000
"""Bytes of messages in one moment, if it has more than one."""


@dataclass(frozen=True)
class Found:
    """An agent's row as it was found: its version, its content, and the writes it remembers."""

    version: int
    content: dict[str, Any]
    writes: str = ""


@dataclass
class Base:
    """What the holder of an agent has last seen of its row: what a merge compares with.

    It belongs to who loaded the agent and is changed by that holder's own writes alone.

    Attributes:
        version: The version of the row that ``stored`` is.
        write_id: The write that created the row: another one means another agent of that name.
        epoch: The row's epoch.
        window_start: Where the agent's window begins.
        created_at: When the agent was created.
        stored: The row's content at that version.
        known: The content that the holder itself has: where a merge brought in what the holder
            doesn't take over (another writer's window), this stays the holder's own.
        last_write: The holder's latest write of the row.
        size: About what it takes in memory, in bytes.
        unsettled: Writes of the holder whose answers were lost, newest last, with the content
            that the holder wanted.
    """

    version: int
    write_id: str
    epoch: int
    window_start: int
    created_at: str
    stored: dict[str, Any]
    known: dict[str, Any]
    last_write: str = "-"
    size: int = 1
    unsettled: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def is_own(self, found: Found) -> bool:
        """Tell whether a row is what the holder's own write has left, whose answer was lost."""
        applied = any(write_id in found.writes for write_id, _ in self.unsettled)
        return applied and found.version == self.version + 1

    def adopt(self, found: Found) -> None:
        """Take over a row that another writer has left; what the holder knows stays."""
        for write_id, wanted in reversed(self.unsettled):
            if write_id in found.writes:  # ours was applied after all, before the other's
                self.known = wanted
                self.unsettled = []
                break
        self.version, self.stored = found.version, found.content


@dataclass
class NewMessage:
    """A message to be appended: its row's content and the write that stores it."""

    write_id: str
    row: Row


@dataclass
class Rewrite:
    """New content for a message stored before.

    Attributes:
        first: An id that the message doesn't lie before.
        last: An id that it doesn't lie behind.
        message_write_id: The write that stored the message.
        write_id: The write that replaces it.
        row: The new content.
    """

    first: int
    last: int
    message_write_id: str
    write_id: str
    row: Row


@dataclass
class Moment:
    """What is to be stored at once.

    Attributes:
        session_id: The session.
        agent_id: The agent.
        base: What the holder knows of the agent's row; brought up to date by `store`.
        content: The agent's content to store, or None where only messages are.
        window_start: The id of the first message that the agent has in memory, where the holder
            knows it.
        forced: Whether to write the content even if nothing of it has changed.
        messages: Messages to append, in order, `MAX_MESSAGES` at the most.
        rewrites: Redactions.
        turn: The turn that the messages belong to.
        first: An id that none of the turn's stored messages lies before, or None where it has
            none yet.
        after: The highest message id that the holder knows of.
        others: A message id: where given, messages of other turns beyond it are read too.
        previous_turn: A turn whose messages aren't other writers', besides ``turn``.
    """

    session_id: str
    agent_id: str
    base: Base
    content: dict[str, Any] | None = None
    window_start: int | None = None
    forced: bool = False
    messages: list[NewMessage] = field(default_factory=list)
    rewrites: list[Rewrite] = field(default_factory=list)
    turn: str = ""
    first: int | None = None
    after: int = -1
    others: int | None = None
    previous_turn: str = ""


@dataclass
class Outcome:
    """How things stand after a moment was stored.

    Attributes:
        ids: Where the turn's messages beyond the moment's ``after`` stand, by their write ids.
        others: Other writers' messages, where they were asked for.
        written: The agent's row as it was written, or None where it wasn't.
        epoch: The agent's epoch now.
        window_start: Where the agent's window begins now.
        version: The version of the agent's row.
        brought_in: Whether another writer's state was merged into the holder's.
    """

    ids: dict[str, int]
    others: list[MessageRow]
    written: Row | None
    epoch: int
    window_start: int
    version: int
    brought_in: bool = False


class Committer:
    """Stores moments, and merges with what other writers have stored."""

    def __init__(
        self,
        transport: Transport,
        schema: Schema,
        codec: RowCodec,
        on_conflict: OnConflict,
        retry: RetryPolicy,
    ) -> None:
        """Initialize.

        Args:
            transport: What sends the batches.
            schema: What makes the statements.
            codec: What makes the rows.
            on_conflict: Whether a lost race is merged or raised.
            retry: How long and how often a lost race is run again.
        """
        self._transport = transport
        self._schema = schema
        self._codec = codec
        self._on_conflict = on_conflict
        self._retry = retry

    def store(self, moment: Moment) -> Outcome:
        """Store a moment, merging as often as other writers come first.

        Args:
            moment: What to store. Its ``base`` is brought up to date, also where this raises.

        Returns:
            How things stand now.

        Raises:
            ConflictError: If another writer came first and may not be merged with, or came first
                in every attempt.
            NotFoundError: If the agent isn't there any more.
            OutcomeUnknownError: If an answer was lost; storing the same moment again is safe.
        """

        def attempt() -> Outcome:
            merged = self._merged(moment)
            unchanged = same(merged, moment.base.stored) and not moment.forced
            content = None if unchanged else merged
            attempted = self._attempt(moment, content)
            if attempted.applied:
                return self._settle(moment, attempted, content, merged)
            conflict = self._conflict(moment, content, attempted)
            if attempted.found is not None and moment.base.is_own(attempted.found):
                moment.forced = False  # what was to be written is written
            else:
                self._transport.count(conflicts=1)
                if attempted.found is None or self._on_conflict == "raise":
                    raise conflict
            logger.debug("expected=<%s> | lost a race, merging: %s", moment.base.version, conflict)
            moment.base.adopt(attempted.found)
            raise LostRaceError(conflict)

        try:
            return self._retry.race(attempt)
        except LostRaceError as lost:
            raise lost.conflict from None

    def _merged(self, moment: Moment) -> dict[str, Any]:
        """Apply the holder's change to what is stored."""
        base = moment.base
        if moment.content is None:
            return base.stored
        merged, contested = merge_content(base.known, base.stored, moment.content)
        if contested:
            logger.warning(
                "session_id=<%s>, agent_id=<%s>, keys=<%s> | two writers changed the same state;"
                " the later one's stands",
                moment.session_id,
                moment.agent_id,
                ", ".join(contested),
            )
        return merged

    def _settle(
        self,
        moment: Moment,
        attempted: "_Attempted",
        content: dict[str, Any] | None,
        merged: dict[str, Any],
    ) -> Outcome:
        """Bring the base up to date: the holder takes over merged state, not the rest."""
        base, outcome = moment.base, attempted.outcome
        before = own = base.known if moment.content is None else moment.content
        if moment.content is not None and "state" in merged:
            own = {**own, "state": merged["state"]}
        if content is not None:
            base.adopt(Found(attempted.version, content))
            base.last_write, base.unsettled, base.known = attempted.write_id, [], own
        if attempted.found is not None:
            base.adopt(attempted.found)
            if moment.content is None:
                own = base.known
            state, _ = merge_content(base.known, base.stored, own)
            own = {**own, "state": state["state"]} if "state" in state else own
        base.known = own
        base.epoch, base.window_start = outcome.epoch, outcome.window_start
        outcome.brought_in = not same(own.get("state"), before.get("state"))
        return outcome

    def _attempt(self, moment: Moment, content: dict[str, Any] | None) -> "_Attempted":
        write_id = new_write_id()
        row = None
        if content is not None:
            times = (moment.base.created_at, now())
            row = self._codec.agent_content(moment.session_id, moment.agent_id, content, times)
        statements = self._statements(moment, row, content, write_id)
        context = {"session_id": moment.session_id, "agent_id": moment.agent_id}
        try:
            answer = self._transport.run(statements, writes=True, **context)
        except OutcomeUnknownError:
            if content is not None and moment.content is not None:
                moment.base.unsettled = [*moment.base.unsettled, (write_id, moment.content)][-8:]
            raise
        others = answer.rows.pop() if moment.others is not None else []
        turn = answer.rows.pop() if moment.messages else []
        agent = answer.rows.pop()
        if not agent or agent[0]["write_id"] != moment.base.write_id:
            raise NotFoundError(
                f"agent {moment.agent_id!r} of session {moment.session_id!r} does not exist (any"
                " more); nothing was written. Open the session again to start it anew",
                **context,
            )
        found = agent[0]
        ids = {one["write_id"]: int(one["message_id"]) for one in turn}
        version, writes = int(found["version"]), found["writes"]
        stored = all(message.write_id in ids for message in moment.messages)
        written = content is None or write_id in writes
        if not written and (answer.ambiguous or moment.base.unsettled):
            self._refuse_to_guess(moment, version, writes)
        outcome = Outcome(
            ids,
            [MessageRow.of(one) for one in others],
            row if written else None,
            int(found["epoch"]),
            moment.base.window_start
            if found["window_start"] is None
            else int(found["window_start"]),
            version,
        )
        theirs = None
        if found["data"] is not None:
            content_found = self._codec.read_agent_content(
                moment.session_id, moment.agent_id, found["data"]
            )
            theirs = Found(version, content_found, writes)
        return _Attempted(
            applied=stored and written,
            outcome=outcome,
            write_id=write_id,
            version=moment.base.version + 1 if content is not None else version,
            found=theirs,
        )

    def _statements(
        self, moment: Moment, row: Row | None, content: dict[str, Any] | None, write_id: str
    ) -> list[Statement]:
        schema, base = self._schema, moment.base
        key = (moment.session_id, moment.agent_id)
        refuses = self._on_conflict == "raise"
        guard = schema.guard(
            *key,
            base.write_id,
            base.version if refuses or content is not None else None,
            (moment.after, moment.turn) if refuses and moment.messages else None,
        )
        statements: list[Statement] = []
        if moment.messages and moment.first is not None and not refuses:
            last = moment.messages[-1].write_id
            statements += schema.move_turn(
                *key, moment.turn, moment.first, (moment.after, last), guard
            )
        for message in moment.messages:
            statements.append(
                schema.append_message(
                    *key, moment.turn, message.row, message.write_id, moment.after, guard
                )
            )
        for rewrite in moment.rewrites:
            statements += schema.rewrite_message(
                *key,
                (rewrite.first, rewrite.last),
                rewrite.row,
                rewrite.message_write_id,
                rewrite.write_id,
                schema.guard(*key, base.write_id, None, None),  # a redaction always wins
            )
        if row is not None and content is not None:
            moved_by = removed_messages(content) - removed_messages(base.stored)
            is_ours = removed_messages(content) == removed_messages(moment.content or {})
            statements.append(
                schema.update_agent(
                    *key,
                    row,
                    write_id,
                    base.last_write,
                    Window(moved_by, moment.window_start if is_ours else None),
                    guard if refuses else _of_row(base),
                )
            )
        statements.append(schema.read_outcome(*key, base.version, write_id))
        if moment.messages:
            statements.append(schema.read_turn(*key, moment.turn, moment.after))
        if moment.others is not None:
            statements.append(
                schema.read_others(
                    *key,
                    (moment.turn, moment.previous_turn),
                    moment.others,
                    base.epoch,
                    base.window_start,
                )
            )
        return statements

    def _refuse_to_guess(self, moment: Moment, version: int, writes: str) -> None:
        # The row forgets a write only once it remembers as many others after it.
        remembered = len(writes) // (WRITE_ID_LENGTH + 1)
        if remembered < WRITES_KEPT or version - moment.base.version <= WRITES_KEPT:
            return
        raise OutcomeUnknownError(
            f"the answer to a write for agent {moment.agent_id!r} of session"
            f" {moment.session_id!r} was lost, and {version - moment.base.version} other writes"
            " have come since: whether it was applied can't be told. Open the session again",
            session_id=moment.session_id,
            agent_id=moment.agent_id,
        )

    def _conflict(
        self, moment: Moment, content: dict[str, Any] | None, attempted: "_Attempted"
    ) -> ConflictError:
        key = (moment.session_id, moment.agent_id)
        context: dict[str, Any] = {"session_id": key[0], "agent_id": key[1]}
        who = f"another writer changed agent {moment.agent_id!r} of session {moment.session_id!r}"
        advice = "Nothing of this write is stored; open the session again and repeat it"
        if attempted.found is None:
            ours = [
                MessageRow(moment.after + 1, 1, one.write_id, moment.turn, one.row.data)
                for one in moment.messages
            ]
            return ConflictError(
                f"{who}: its messages came before ours. {advice}",
                ours=[self._codec.read_message(*key, row) for row in ours],
                found=[self._codec.read_message(*key, row) for row in attempted.outcome.others],
                **context,
            )
        expected, found = moment.base.version, attempted.found
        return ConflictError(
            f"{who}: version {expected} was expected and {found.version} found. {advice}",
            expected_version=expected,
            found_version=found.version,
            ours=moment.content if content is None else content,
            found=found.content,
            **context,
        )


@dataclass
class _Attempted:
    applied: bool
    outcome: Outcome
    write_id: str
    version: int
    found: Found | None


def _of_row(base: Base) -> tuple[str, list[Value]]:
    """Give a guard's condition as one on the very row that is updated, which spares a look."""
    return "version = ? AND write_id = ?", [base.version, base.write_id]


def merge_content(
    base: dict[str, Any], found: dict[str, Any], ours: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Merge two writers' content: state key by key, all else whole, ours where both changed."""
    merged: dict[str, Any] = {}
    contested: list[str] = []
    for key, mine in {**found, **ours}.items():
        if key == "state":
            states = (side.get(key) or {} for side in (base, found, ours))
            merged[key], contested = merge(*states)
        elif key in found and (key not in ours or same(base.get(key), mine)):
            merged[key] = found[key]
        else:
            merged[key] = mine
    return merged, contested


def now() -> str:
    """Give the time as Strands writes it."""
    return datetime.now(timezone.utc).isoformat()
