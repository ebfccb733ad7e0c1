"""Strands' events of agents, graphs and swarms, handed over as coroutines."""

from collections.abc import Callable
from typing import Any

from strands.hooks.events import (
    AfterInvocationEvent,
    AfterMultiAgentInvocationEvent,
    AfterNodeCallEvent,
    AgentInitializedEvent,
    BeforeInvocationEvent,
    BeforeMultiAgentInvocationEvent,
    MessageAddedEvent,
    MultiAgentInitializedEvent,
)
from strands.hooks.registry import HookRegistry

from strands_persql.runtime.threads import Queue
from strands_persql.sessions import upstream
from strands_persql.sessions.events import AgentEvents
from strands_persql.sessions.multi_agents import MultiAgentStates


class SessionHooks:
    """Hands over what happens to the agents, graphs and swarms of one session.

    Args:
        events_of: Returns what takes an agent's events.
        multi_agents: What stores graphs and swarms.
    """

    def __init__(
        self, events_of: Callable[[Any], AgentEvents], multi_agents: MultiAgentStates
    ) -> None:
        """Initialize."""
        self._events_of = events_of
        self._multi_agents = multi_agents
        self._multi_agent_queue = Queue()

    def register(self, registry: HookRegistry) -> None:
        """Register for all events but the initialization of agents, graphs and swarms."""
        registry.add_callback(BeforeInvocationEvent, self._on_invocation)
        registry.add_callback(MessageAddedEvent, self._on_message)
        upstream.call_last_at_end(registry, self._on_hooks_end)
        upstream.call_first_at_end(registry, self._on_invocation_end)
        if upstream.MESSAGE_UPDATED is not None:
            registry.add_callback(upstream.MESSAGE_UPDATED, self._on_update)
        for event_type in upstream.bidi_events():
            registry.add_callback(event_type, self._on_update)
        registry.add_callback(BeforeMultiAgentInvocationEvent, self._on_multi_agent_invocation)
        registry.add_callback(AfterNodeCallEvent, self._on_multi_agent)
        registry.add_callback(AfterMultiAgentInvocationEvent, self._on_multi_agent)

    async def _on_invocation(self, event: BeforeInvocationEvent) -> None:
        upstream.keep_first_at_end(event.agent.hooks, self._on_invocation_end)
        # Without a message the agent continues where it stopped.
        await self._events_of(event.agent).invocation_began(continues=event.messages == [])

    async def _on_message(self, event: MessageAddedEvent) -> None:
        await self._events_of(event.agent).message_added(event.message)

    async def _on_update(self, event: Any) -> None:
        await self._events_of(event.agent).message_updated()

    async def _on_invocation_end(self, event: AfterInvocationEvent) -> None:
        await self._events_of(event.agent).invocation_ended(getattr(event, "result", None))

    async def _on_hooks_end(self, event: AfterInvocationEvent) -> None:
        await self._events_of(event.agent).hooks_ended()

    async def _on_multi_agent_invocation(self, event: BeforeMultiAgentInvocationEvent) -> None:
        if upstream.is_interrupted(event.source):
            await self._multi_agent_queue.run(lambda: self._multi_agents.claim(event.source))

    async def _on_multi_agent(
        self, event: AfterNodeCallEvent | AfterMultiAgentInvocationEvent
    ) -> None:
        await self.store_multi_agent(event.source)

    async def store_multi_agent(self, source: Any) -> None:
        """Store the state of a graph or swarm, behind what was asked for before."""
        text = self._multi_agents.encode(source)  # here, for nodes change it on this loop
        await self._multi_agent_queue.run(lambda: self._multi_agents.store(source.id, text))


class OtherEvents:
    """A registry for the parent class: passes on what it registers for events that aren't ours.

    Args:
        registry: The agent's registry.
    """

    _OURS = (
        AgentInitializedEvent,
        MessageAddedEvent,
        AfterInvocationEvent,
        MultiAgentInitializedEvent,
        AfterNodeCallEvent,
        AfterMultiAgentInvocationEvent,
    )

    def __init__(self, registry: HookRegistry) -> None:
        """Initialize."""
        self._registry = registry

    def add_callback(self, event_type: Any, callback: Any, **kwargs: Any) -> None:
        """Pass a callback on, unless it is for an event that is handled here."""
        if event_type not in self._OURS:
            self._registry.add_callback(event_type, callback, **kwargs)
