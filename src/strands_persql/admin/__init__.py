"""Looking after sessions: a catalogue, transcripts, archives, checks and erasure."""

from strands_persql.admin.admin import SessionAdmin
from strands_persql.admin.catalogue import (
    AgentSummary,
    Contents,
    MultiAgentSummary,
    Page,
    SessionSummary,
    Tokens,
)
from strands_persql.admin.checks import CheckProgress
from strands_persql.admin.erasure import Erasure
from strands_persql.admin.findings import Finding
from strands_persql.admin.lines import Progress, TransferReport
from strands_persql.admin.sweeping import Sweep
from strands_persql.admin.totals import Totals
from strands_persql.admin.transcript import TranscriptEntry

__all__ = [
    "AgentSummary",
    "CheckProgress",
    "Contents",
    "Erasure",
    "Finding",
    "MultiAgentSummary",
    "Page",
    "Progress",
    "SessionAdmin",
    "SessionSummary",
    "Sweep",
    "Tokens",
    "Totals",
    "TranscriptEntry",
    "TransferReport",
]
