"""Conditions under which the statements of a change set apply."""

from dataclasses import dataclass, field

from strands_persql.databases.protocol import Value
from strands_persql.tables.expressions import OF_AGENT


@dataclass(frozen=True)
class Precondition:
    """The condition under which the statements of a change set apply.

    Attributes:
        sql: The condition.
        values: Its named values.
    """

    sql: str
    values: dict[str, Value] = field(default_factory=dict)

    def __and__(self, other: "Precondition") -> "Precondition":
        """Return the condition that both hold."""
        return Precondition(f"{self.sql} AND {other.sql}", {**self.values, **other.values})


def agent_is(
    origin: str, version: int | None = None, plain_from: int | None = None
) -> Precondition:
    """Return the precondition that the agent is there, created by a write.

    Args:
        origin: The write that created the agent's row.
        version: The version that the row must have, or None for any.
        plain_from: Any version will do as well where the view is plain and begins at this id or
            before, so that messages from there on may move.
    """
    where = f"{OF_AGENT} AND write_id = :origin"
    values: dict[str, Value] = {"origin": origin}
    if version is not None:
        is_version = "version = :expected"
        values["expected"] = version
        if plain_from is not None:
            is_version = (
                f"({is_version} OR coalesce(view, '[]') = '[]' AND window_start <= :plain_from)"
            )
            values["plain_from"] = plain_from
        where += f" AND {is_version}"
    return Precondition(f"EXISTS (SELECT 1 FROM {{agents}} WHERE {where})", values)  # noqa: S608


def nothing_after(message_id: int, turn: str) -> Precondition:
    """Return the precondition that no message is beyond an id, but for those of a turn."""
    of_others = " AND turn <> :turn_alone" if turn else ""
    return Precondition(
        f"""NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id > :alone_after{of_others}
        )""",  # noqa: S608
        {"alone_after": message_id, "turn_alone": turn},
    )


def claimed(message_id: int, message_write: str, write_id: str) -> Precondition:
    """Return the precondition that a write holds the claim on a message, at an id or beyond."""
    return Precondition(
        f"""EXISTS (
            SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id >= :claimed_from
                AND write_id = :claimed_message AND claim = :claimed_by
        )""",  # noqa: S608
        {
            "claimed_from": message_id,
            "claimed_message": message_write,
            "claimed_by": write_id,
        },
    )


def is_last(message_id: int, message_write: str, turn: str) -> Precondition:
    """Return the precondition that a message, at an id or beyond, is its turn's last one.

    A late copy of a claim finds messages behind it.
    """
    return Precondition(
        f"""NOT EXISTS (
            SELECT 1 FROM {{messages}} AS behind
            WHERE behind.session_id = :session_id AND behind.agent_id = :agent_id
                AND behind.turn = :last_of AND behind.message_id > (
                    SELECT message_id FROM {{messages}} WHERE {OF_AGENT}
                        AND message_id >= :last_from AND write_id = :last_write_of LIMIT 1
                )
        )""",  # noqa: S608
        {"last_of": turn, "last_from": message_id, "last_write_of": message_write},
    )
