"""Going back: to a message or by turns in memory, to a checkpoint in the database."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.errors import ConflictError, NotFoundError
from strands_persql.gateway.batch import Answer, Batch, Handle, Row
from strands_persql.persistence.cached import CachedAgent, StoredMessage, StoredMessages
from strands_persql.persistence.changes import MergeBase
from strands_persql.persistence.checkpoints import no_checkpoint
from strands_persql.persistence.compare_and_swap import refuse_to_guess
from strands_persql.persistence.merge import merge_content, settled_interrupts
from strands_persql.persistence.opening import MESSAGES_PER_REQUEST
from strands_persql.persistence.store import SessionStore
from strands_persql.persistence.view import View, build_view, items_of
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.history import Entry, HistoryEntry, ViewEntry
from strands_persql.sessions.tool_calls import answered_ids
from strands_persql.sessions.upstream import tracking_id
from strands_persql.sessions.weaving import in_order, weave
from strands_persql.tables import checkpointing, preconditions, retention
from strands_persql.tables.cells import text_in
from strands_persql.tables.tables import RowData

# -- in memory -------------------------------------------------------------------------------------


def count_kept(
    to: Message | SessionMessage | int, messages: Sequence[Message], entries: Sequence[Entry]
) -> int:
    """Return how many messages an agent keeps that goes back.

    Args:
        to: The last message to keep, or how many turns to drop.
        messages: The agent's messages.
        entries: What they are.

    Raises:
        ValueError: If there is no such message, or there aren't as many turns.
    """
    if isinstance(to, int):
        return _without_last_turns(to, entries)
    if isinstance(to, SessionMessage):
        ids = [getattr(entry, "message_id", None) for entry in entries]
        if to.message_id in ids:
            return ids.index(to.message_id) + 1
    else:
        mark = tracking_id(to)
        tests = (
            lambda one: one is to,
            lambda one: mark is not None and tracking_id(one) == mark,
            lambda one: one == to,
        )
        for test in tests:
            for index in range(len(messages) - 1, -1, -1):
                if test(messages[index]):
                    return index + 1
    raise ValueError(
        "to | must be a message that the agent works with; what its conversation manager has"
        " removed is found by a checkpoint alone"
    )


def _without_last_turns(turns: int, entries: Sequence[Entry]) -> int:
    starts = [index for index, entry in enumerate(entries) if _begins_turn(entries, index, entry)]
    if isinstance(turns, bool) or not 1 <= turns <= len(starts):
        raise ValueError(
            f"to={turns!r} | must be a number of turns from 1 to {len(starts)}, which is how many"
            " the agent works with"
        )
    return starts[-turns]


def _begins_turn(entries: Sequence[Entry], index: int, entry: Entry) -> bool:
    if not isinstance(entry, HistoryEntry):
        return False  # nobody has said it
    if not entry.turn:  # stored on its own, or by version 0.1
        message = entry.message
        return message is not None and message["role"] == "user" and not answered_ids(message)
    said = (one for one in reversed(entries[:index]) if isinstance(one, HistoryEntry))
    before = next(said, None)
    return before is None or before.turn != entry.turn


# -- in the database -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What a writer knows of an agent that it has go back.

    Attributes:
        base: The agent's row.
        entries: What the row's view has.
        writes: The keys of all messages that it knows.
        complete_to: Up to which id it knows all messages that the agent works with.
        newest: The newest message that it knows.
        turn: The turn whose messages it knows beyond ``complete_to``, or nothing.
    """

    base: MergeBase
    entries: Sequence[Entry]
    writes: frozenset[str]
    complete_to: int
    newest: int
    turn: str


@dataclass(frozen=True)
class _Attempt:
    """What is sent: a checkpoint's row as it is, or merged with what others did.

    Attributes:
        version: The version to replace.
        complete_to: No message of others may be beyond it.
        turn: Whose messages may.
        start: From which id on the agent works with all messages.
        rewound_to: Up to which id it has gone back.
        row: The row in place of the checkpoint's, or None.
        view: The view in place of the checkpoint's, or None.
    """

    version: int
    complete_to: int
    turn: str
    start: int
    rewound_to: int
    row: RowData | None = None
    view: View | None = None


@dataclass(frozen=True)
class _Found:
    """How things are after an attempt.

    Attributes:
        agent: The agent.
        writes: The change sets that its row remembers.
        checkpoint: The checkpoint's content and view, or None where it isn't there or was taken.
        is_whole: Whether all that the agent works with was read.
    """

    agent: CachedAgent
    writes: str
    checkpoint: Row | None
    is_whole: bool


class Rewinder:
    """Gives an agent back what a checkpoint has, in one request where nobody else has written.

    Args:
        store: Where sessions are.
        key: The agent.
        checkpoint_id: The checkpoint.
        write_id: The id of this write, however often it is sent.
    """

    def __init__(
        self, store: SessionStore, key: AgentKey, checkpoint_id: str, write_id: str
    ) -> None:
        """Initialize."""
        self._store = store
        self._key = key
        self._checkpoint_id = checkpoint_id
        self._write_id = write_id

    def rewind(self, known: Known) -> CachedAgent:
        """Rewind the agent, merging as often as other writers come first.

        Of their messages those that the writer doesn't know stay.

        Returns:
            The agent as it is now.

        Raises:
            ConflictError: If another writer came first and may not be merged with.
            CorruptRowError: If the agent's row or the checkpoint can't be read.
            NotFoundError: If the agent or the checkpoint isn't there.
            InDoubtError: If an answer was lost.
        """
        attempt = _Attempt(
            known.base.version, known.complete_to, known.turn, known.newest + 1, known.newest
        )

        def run() -> CachedAgent:
            nonlocal attempt
            found = self._send(attempt, known.base)
            if self._write_id in found.writes:
                return found.agent
            if found.checkpoint is None:
                raise no_checkpoint(self._key.session_id, self._checkpoint_id)
            if found.checkpoint["problem"] is not None:
                raise self._store.codec.corrupt_checkpoint(
                    self._key, self._checkpoint_id, found.checkpoint["problem"]
                )
            lost = self._store.swaps.lose(self._conflict(attempt, found))
            attempt = self._merged(known, found, found.checkpoint)
            raise lost

        session_id = self._key.session_id
        with self._store.lock(self._key):
            try:
                agent = self._store.swaps.run(run)
            except BaseException:
                self._store.cache.forget(session_id)
                raise
            self._store.cache.written(
                session_id, lambda entry: entry.with_agent(self._key.agent_id, agent)
            )
        return agent

    # -- the request ---------------------------------------------------------------------------

    def _send(self, attempt: _Attempt, base: MergeBase) -> _Found:
        cached, known = self._cached(base)
        batch = Batch()
        self._add_writes(batch, attempt, base)
        tables, key = self._store.tables, self._key
        row = batch.ask(checkpointing.read_agent(tables, key))
        rows = batch.ask(
            checkpointing.read_unknown(
                tables,
                key,
                epoch=-1 if cached is None else cached.history_version,
                known=known,
                limit=MESSAGES_PER_REQUEST,
            )
        )
        checkpoint = batch.ask(
            checkpointing.read_refused(tables, key, self._checkpoint_id, self._write_id)
        )
        answer = self._store.swaps.send(batch, key, self._write_id)
        found = self._read(answer, row, rows, cached, base)
        found = replace(found, checkpoint=answer.first(checkpoint))
        if answer.is_ambiguous and self._write_id not in found.writes:
            refuse_to_guess(key, attempt.version, found.agent.version, found.writes)
        return found if found.is_whole else self._whole(found)

    def _cached(self, base: MergeBase) -> tuple[CachedAgent | None, str]:
        """Return the agent as it is remembered, and the ranges of ids of which all is."""
        entry = self._store.cache.get(self._key.session_id)
        agent = None if entry is None else entry.agents.get(self._key.agent_id)
        if agent is None or agent.origin != base.origin:
            return None, "[]"
        ranges = [one for one in agent.view.head if not isinstance(one, str)]
        view = View(0, (*ranges, (agent.view.start, agent.last_id)))
        return agent, view.json or "[]"

    def _add_writes(self, batch: Batch, attempt: _Attempt, base: MergeBase) -> None:
        tables, time = self._store.tables, now()
        row, view = attempt.row, attempt.view
        batch.bring(*(one.skeleton for one in (row, view) if one is not None and one.skeleton))
        if base.expires:
            batch.run(retention.refuse_expired(tables, self._key.session_id))
        batch.run(
            checkpointing.rewind_agent(
                tables,
                self._key,
                checkpoint_id=self._checkpoint_id,
                data=None if row is None else row.skeleton.text,
                view=None if view is None else view.stored,
                start=attempt.start,
                write_id=self._write_id,
                previous=base.last_change,
                time=time,
                version=attempt.version,
                origin=base.origin,
                precondition=preconditions.nothing_after(attempt.complete_to, attempt.turn),
            ),
            checkpointing.note_rewound(
                tables,
                self._key,
                checkpoint_id=self._checkpoint_id,
                to=attempt.rewound_to,
                write_id=self._write_id,
                time=time,
            ),
        )
        if base.expires:
            batch.run(retention.note_activity(tables, self._key, base.origin))

    def _read(
        self,
        answer: Answer,
        row_handle: Handle,
        messages: Handle,
        cached: CachedAgent | None,
        base: MergeBase,
    ) -> _Found:
        row = answer.first(row_handle)
        if row is None or row["write_id"] != base.origin:
            raise NotFoundError(
                f"agent {self._key.agent_id!r} of session {self._key.session_id!r} does not exist"
                " (any more); open the session again",
                **self._key.context,
            )
        agent = CachedAgent.of(row)
        if agent.problem:
            raise self._store.codec.corrupt_agent(self._key, agent.problem)
        read = [StoredMessage.of(one) for one in answer[messages]]
        is_same = cached is not None and cached.history_version == agent.history_version
        kept = cached.messages.within(agent.view) if cached is not None and is_same else ()
        whole = sorted({one.message_id: one for one in (*kept, *read)}.values())
        agent = replace(agent, messages=StoredMessages(whole))
        return _Found(agent, text_in(row["writes"]), None, len(read) < MESSAGES_PER_REQUEST)

    def _whole(self, found: _Found) -> _Found:
        """Return the agent with all of its messages, where one answer can't bring them."""
        self._store.cache.forget(self._key.session_id)
        agent = self._store.agent(self._key)
        return found if agent is None else replace(found, agent=agent, is_whole=True)

    # -- a lost race ---------------------------------------------------------------------------

    def _conflict(self, attempt: _Attempt, found: _Found) -> ConflictError:
        return ConflictError(
            f"another writer changed agent {self._key.agent_id!r} of session"
            f" {self._key.session_id!r} before it could go back to checkpoint"
            f" {self._checkpoint_id!r}. Nothing of this write is stored; open the session again"
            " and repeat it",
            expected_version=attempt.version,
            found_version=found.agent.version,
            **self._key.context,
        )

    def _merged(self, known: Known, found: _Found, checkpoint: Row) -> _Attempt:
        """Return an attempt with what either side said, and without what either side dropped."""
        agent, codec = found.agent, self._store.codec
        theirs = codec.read_content(self._key, agent.data)
        ours = codec.read_content(self._key, checkpoint["data"])
        content, _ = merge_content(known.base.own, theirs, ours)
        text = codec.content(self._key, settled_interrupts(content))
        row = codec.agent_row(self._key, text, (known.base.created_at, now()))
        then = View.of(checkpoint["view"], 0)
        items = merge_rewound_view(known, agent, then)
        taken = {agent.last_id, *(one for one in items if isinstance(one, int))}
        view = build_view(items, sorted(taken), [])
        unseen = [one.message_id for one in agent.messages if _key_of(one) not in known.writes]
        return _Attempt(
            version=agent.version,
            complete_to=agent.last_id,
            turn="",
            start=view.start,
            rewound_to=min([known.newest, *(one - 1 for one in unseen)]),
            row=row,
            view=view,
        )


def merge_rewound_view(known: Known, found: CachedAgent, then: View) -> list[int | str]:
    """Return what an agent works with that goes back while others have written.

    Args:
        known: What its writer knows.
        found: The agent as the others have left it.
        then: The checkpoint's view, with ids as they are now.
    """
    ids = {_key_of(one): one.message_id for one in found.messages}
    unseen = {one.turn for one in found.messages if _key_of(one) not in known.writes} - {""}
    began: list[int | str] = []
    for entry in known.entries:
        if isinstance(entry, ViewEntry):
            began.append(entry.json)
        elif entry.turn not in unseen:  # a turn that others go on with stays whole
            began.append(ids.get(entry.key, entry.message_id or 0))
    ours: list[int | str] = []
    for segment in then.head:
        ours += [segment] if isinstance(segment, str) else range(segment[0], segment[1] + 1)
    theirs = items_of(found.view, sorted(ids.values()))
    began, ours, theirs = (list(dict.fromkeys(items)) for items in (began, ours, theirs))
    return in_order(weave(began, ours, theirs), ours, theirs, place=_id_of)


def _id_of(item: int | str) -> int | None:
    return item if isinstance(item, int) else None


def _key_of(row: StoredMessage) -> str:
    return row.write_id or f"#{row.message_id}"
