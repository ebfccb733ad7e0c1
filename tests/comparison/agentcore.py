"""A stand-in for the service behind AgentCore's session manager: events in a list.

It keeps what the manager's client sends and gives it back as the service documents it: newest
first, in pages of 100, filtered by metadata. It has none of the service's limits.
"""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

PAGE = 100


class AgentCoreStandIn:
    """What boto3 would give: a session, and the clients that it makes.

    Args:
        asked: Called with what each request sends.
    """

    region_name = "eu-west-1"
    meta = SimpleNamespace(region_name=region_name)

    def __init__(self, asked: Callable[..., None]) -> None:
        self._asked = asked
        self._events: list[dict[str, Any]] = []
        self._ids = itertools.count()

    def client(self, name: str, **_: Any) -> "AgentCoreStandIn":
        """Make a client."""
        return self

    def create_event(self, **event: Any) -> dict[str, Any]:
        """Keep an event."""
        self._asked(event)
        event = {"metadata": {}, **event, "eventId": str(next(self._ids))}
        self._events.append(event)
        return {"event": event}

    def delete_event(self, eventId: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - the API's name
        """Drop an event."""
        self._asked(eventId)
        self._events = [event for event in self._events if event["eventId"] != eventId]
        return {"eventId": eventId}

    def list_events(self, **wanted: Any) -> dict[str, Any]:
        """Give a page of the events that are wanted."""
        self._asked(wanted)
        found = sorted(
            (event for event in self._events if _is_wanted(event, wanted)),
            key=lambda event: event["eventTimestamp"],
            reverse=True,
        )
        first = int(wanted.get("nextToken", 0))
        page = {"events": found[first : first + PAGE]}
        return page | ({"nextToken": str(first + PAGE)} if len(found) > first + PAGE else {})


def _is_wanted(event: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if any(event[key] != wanted[key] for key in ("memoryId", "actorId", "sessionId")):
        return False
    conditions = wanted.get("filter", {}).get("eventMetadata", ())
    return all(_meets(event["metadata"], condition) for condition in conditions)


def _meets(metadata: dict[str, Any], condition: dict[str, Any]) -> bool:
    """Whether metadata has the value that a condition asks for, the only kind that is asked."""
    found = metadata.get(condition["left"]["metadataKey"])
    return bool(found == condition["right"]["metadataValue"])
