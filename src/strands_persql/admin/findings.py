"""What a check finds, and how it is repaired."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from strands_persql.admin.access import Access
from strands_persql.admin.storing import drop_staged
from strands_persql.databases.protocol import Statement
from strands_persql.gateway.batch import Batch

FindingKind: TypeAlias = Literal[
    "checkpoint",
    "counter",
    "doubled",
    "hole",
    "interleaved_turn",
    "misnumbered",
    "orphan",
    "unfinished_import",
    "unreadable",
    "view",
]


@dataclass(frozen=True)
class Finding:
    """Something that isn't as it should be.

    Attributes:
        kind: What sort of thing.
        session_id: The session.
        agent_id: The agent, or None where it isn't about one.
        message_id: The message that it begins with, or None where it isn't about one.
        what: What was found.
        repair: What `repair` does about it, or None where nothing can be done.
        statements: How it is done.
    """

    kind: FindingKind
    session_id: str
    agent_id: str | None
    message_id: int | None
    what: str
    repair: str | None = None
    statements: Sequence[Statement] = field(default=(), repr=False, compare=False)


def repair(access: Access, findings: Iterable[Finding]) -> int:
    """Repair what was found, each thing by itself.

    What has changed since it was found is left as it is. Managers and caches notice the others.

    Returns:
        How many were repaired, as far as they had not changed: check again to be sure.
    """
    count = 0
    for finding in findings:
        if finding.repair is None:
            continue
        if finding.kind == "unfinished_import":
            drop_staged(access, finding.session_id)
        else:
            access.run(
                Batch(*finding.statements),
                writes=True,
                session_id=finding.session_id,
                agent_id=finding.agent_id,
            )
        count += 1
    return count
