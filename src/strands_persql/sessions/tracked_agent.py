"""What a unit of work knows of its agent: one object for all rooms that work on it."""

from strands_persql.persistence.cached import CachedAgent
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.content import AgentContent
from strands_persql.sessions.known_history import KnownHistory
from strands_persql.sessions.message_codec import MessageCodec
from strands_persql.sessions.pending import PendingChanges
from strands_persql.sessions.turns import Turns
from strands_persql.sessions.working_view import WorkingView
from strands_persql.tables.codec import RowCodec


class TrackedAgent:
    """An agent as its unit of work knows it.

    Args:
        key: The agent.
        codec: What encodes and decodes rows.
        found: The agent's row and what it works with, as it was opened.

    Attributes:
        key: The agent.
        content: What encodes its content.
        messages: What encodes and decodes its messages.
        history: The rows that are known of its history.
        pending: What isn't stored yet.
        turns: Its own turns.
        view: What it works with, in memory and in its row.
    """

    def __init__(self, key: AgentKey, codec: RowCodec, found: CachedAgent) -> None:
        """Know what was found, of which all is stored."""
        self.key = key
        self.content = AgentContent(key, codec)
        self.messages = MessageCodec(key, codec)
        self.history = KnownHistory(key, codec, self.messages)
        self.history.load(found.view, found.messages, found.last_id)
        self.pending = PendingChanges(self.messages, self.history.last())
        self.turns = Turns(self.history, self.pending)
        self.view = WorkingView(key, found.view, self.history, self.pending, self.turns)
