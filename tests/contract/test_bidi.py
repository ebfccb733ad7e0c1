"""Bidirectional agents, where Strands has them."""

import asyncio
from typing import Any

import pytest

from strands_persql import LocalDatabase, PerSQLSessionManager

agents = pytest.importorskip("strands.bidi.agent.agent", reason="this Strands keeps them elsewhere")
models = pytest.importorskip("strands.bidi.models.model")


class Silent(models.BidiModel):  # type: ignore[misc, name-defined]
    """A model that nobody talks to."""

    def update_config(self, **config: Any) -> None:
        """Take nothing."""

    def get_config(self) -> dict[str, Any]:
        """Give a name."""
        return {"model_id": "silent"}

    async def start(self, *args: Any, **kwargs: Any) -> None:
        """Start nothing."""

    async def stop(self) -> None:
        """Stop nothing."""

    async def send(self, content: Any) -> None:
        """Send nothing."""

    async def receive(self) -> Any:
        """Receive nothing."""
        nothing: tuple[Any, ...] = ()
        for event in nothing:
            yield event


def test_a_bidirectional_agent_is_restored() -> None:
    """Its messages and its state come back with another manager."""
    database = LocalDatabase()

    def make_agent() -> Any:
        manager = PerSQLSessionManager("call", database)
        return agents.BidiAgent(model=Silent(), session_manager=manager, agent_id="voice")

    agent = make_agent()
    agent.state.set("caller", "Ada")
    said = [
        {"role": "user", "content": [{"text": "Hi, I'm Ada."}]},
        {"role": "assistant", "content": [{"text": "Hello, Ada."}]},
    ]
    asyncio.run(agent._append_messages(*said))
    with PerSQLSessionManager("call", database, read_only=True) as manager:
        trial = agents.BidiAgent(model=Silent(), session_manager=manager, agent_id="voice")
        asyncio.run(trial._append_messages({"role": "user", "content": [{"text": "A trial."}]}))
    again = make_agent()
    assert [one["content"] for one in again.messages] == [one["content"] for one in said]
    assert again.state.get() == {"caller": "Ada"}
