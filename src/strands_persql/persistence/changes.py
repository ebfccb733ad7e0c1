"""What a unit of work hands over to be stored, and what it is told about it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.view import View
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.tables import NO_WRITE, RowData

logger = logging.getLogger("strands_persql")

OnConflict: TypeAlias = Literal["merge", "raise"]

UNREAD = -1
"""A history version that no row has: the next answer brings all that the agent works with."""

MAX_MESSAGES = 80
"""The most messages of one change set, within the 100 statements of a batch."""

MAX_STATEMENTS = 90
"""Statements of one change set for messages (one each) and their updates (two each)."""

MAX_BYTES = 4_000_000
"""Bytes of messages in one change set, if it has more than one."""


@dataclass(frozen=True)
class MergeBase:
    """An agent's row as its writer last read or wrote it: what a merge compares with.

    Attributes:
        version: The row's version.
        origin: The write that created the row: another one means another agent of that name.
        history_version: The version of its history.
        view: What the agent works with.
        is_counted: Whether the row doesn't say where the view begins: it is from 0.1.
        created_at: When the agent was created.
        content: The row's content.
        own: The content that the writer itself has: where a merge kept what another writer made
            of the conversation manager, say, this stays the writer's own.
        expires: Whether its session expires.
        last_change: The writer's latest change set that the row remembers.
    """

    version: int
    origin: str
    history_version: int
    view: View
    is_counted: bool
    created_at: str
    content: dict[str, Any]
    own: dict[str, Any]
    expires: bool = False
    last_change: str = NO_WRITE

    def found(self, row: "FoundAgent") -> "MergeBase":
        """Return the base after another writer's row was read; what is the writer's own stays."""
        return replace(
            self,
            version=row.version,
            history_version=row.history_version,
            view=row.view,
            is_counted=False,
            expires=row.expires,
            content=self.content if row.content is None else row.content,
        )


@dataclass(frozen=True)
class FoundAgent:
    """An agent's row as a change set found or left it.

    Attributes:
        version: Its version.
        history_version: The version of its history.
        view: What the agent works with.
        writes: The change sets that it remembers.
        content: Its content, or None where it is as the writer knows it.
        expires: Whether its session expires.
    """

    version: int
    history_version: int
    view: View
    writes: str
    content: dict[str, Any] | None
    expires: bool


@dataclass(frozen=True)
class PendingMessage:
    """A message to be appended: its row, and the write that stores it."""

    write_id: str
    row: RowData
    message_id: int | None = None


@dataclass(frozen=True)
class MessageUpdate:
    """New content for a message stored before.

    Attributes:
        first: An id that the message isn't before.
        last: An id that it isn't beyond.
        message_write: The write that stored the message.
        version: The version that an edit was made on, or None for a redaction, which always wins.
        write_id: The write that replaces it.
        row: The new content.
    """

    first: int
    last: int
    message_write: str
    version: int | None
    write_id: str
    row: RowData

    @property
    def is_redaction(self) -> bool:
        """Whether it applies to any version of the message."""
        return self.version is None


@dataclass(frozen=True)
class Claim:
    """The right to go on with a turn that has stopped: only one can have it.

    Attributes:
        message_id: The id of the turn's last message, or one before it.
        message_write: The write that stored that message.
        known: The claim that is known to be on it.
    """

    message_id: int
    message_write: str
    known: str


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint to keep of an agent as a change set leaves it.

    Attributes:
        checkpoint_id: Its id, made once.
        label: What it is called.
        turn: The turn whose messages the writer knows beyond ``complete_to``, or nothing.
    """

    checkpoint_id: str
    label: str
    turn: str


@dataclass(frozen=True)
class ChangeSet:
    """What one commit stores in one transaction.

    Attributes:
        id: Made once: by it a retry recognizes what was stored, also after another writer came.
        key: The agent.
        content: The agent's content to store, or None where only messages are.
        view: What the agent works with from now on, or None for as it is.
        moved_by: How many messages more were removed, for writers who know no view.
        is_forced: Whether to write the content even if nothing of it has changed.
        messages: Messages to append, in order, at most `MAX_MESSAGES`.
        updates: Updates of messages.
        claim: The claim to go on with the turn.
        turn: The turn that the messages belong to.
        first: An id that none of the turn's stored messages is before, or None if it has none.
        complete_to: Up to which id the writer knows all messages that the agent works with.
        needs_exact_ids: Whether it applies only if nobody else has stored a message beyond
            ``complete_to``: its view names the ids that its own messages are to have.
        asks_foreign: Whether to read other turns' messages too.
        checkpoint: The checkpoint to keep, or None.
        rewound: Between which ids the agent has gone back.
    """

    id: str
    key: AgentKey
    content: dict[str, Any] | None = None
    view: View | None = None
    moved_by: int = 0
    is_forced: bool = False
    messages: Sequence[PendingMessage] = ()
    updates: Sequence[MessageUpdate] = ()
    claim: Claim | None = None
    turn: str = ""
    first: int | None = None
    complete_to: int = -1
    needs_exact_ids: bool = False
    asks_foreign: bool = False
    checkpoint: NewCheckpoint | None = None
    rewound: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class CommitResult:
    """How things are after a change set was stored, or refused.

    Attributes:
        is_applied: Whether it was stored.
        base: The next merge base.
        ids: The ids of the turn's messages beyond ``complete_to``, by their writes.
        foreign: Other turns' messages, where they were asked for: those that are new to the writer,
            or all that the agent works with where it has another history.
        is_claimed_by_other: Whether another writer has continued the claimed turn, which no merge
            can settle.
        has_other_history: Whether history or view are not as the writer knew them: messages were
            moved, maybe by the change set itself, or edited.
        row: The agent's row as it was written, or None where it wasn't.
        lost: Messages whose updates were refused, as they are.
        has_foreign_state: Whether another writer's state was merged into the writer's.
        checkpoint: What is told of the checkpoint that was kept, or None.
    """

    is_applied: bool
    base: MergeBase
    ids: dict[str, int] = field(default_factory=dict)
    foreign: Sequence[StoredMessage] = ()
    is_claimed_by_other: bool = False
    has_other_history: bool = False
    row: RowData | None = None
    lost: Sequence[StoredMessage] = ()
    has_foreign_state: bool = False
    checkpoint: Mapping[str, Any] | None = None

    def has_changes_of_others(
        self, change: ChangeSet, before: MergeBase, *, has_moved: bool
    ) -> bool:
        """Whether others have changed the history or the view, not the change set alone.

        Args:
            change: The change set.
            before: The merge base that it was made on.
            has_moved: Whether messages of its turn have moved.
        """
        if not self.has_other_history:
            return False
        own_changes = (1 if change.updates else 0) + (1 if has_moved else 0)
        is_own = self.base.history_version == before.history_version + own_changes
        return not is_own or self.base.view != (change.view or before.view)
