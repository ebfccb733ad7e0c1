"""What the inside costs in CPU time, beside Strands' own managers; run by `make bench`."""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from strands import Agent
from strands.agent.conversation_manager import NullConversationManager
from strands.session.file_session_manager import FileSessionManager
from strands.session.session_manager import SessionManager

from strands_persql import LocalDatabase, PerSQLSessionManager
from tests.benchmarks.conftest import Report
from tests.benchmarks.test_benchmarks import Ticker, conversation
from tests.benchmarks.workload import AGENT_ID, new_agent, take_turn

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

WINDOW = 10
TURNS, ROUNDS = 30, 8
Maker = Callable[[str], SessionManager | None]


def cpu_of_a_tool_turn(make: Maker, session_id: str) -> float:
    """Return the CPU seconds of a tool turn whose window trims: the mean of the better half."""
    agent = new_agent(make(session_id), window=WINDOW)
    for _ in range(WINDOW):
        take_turn(agent, tools=1)
    taken = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(TURNS):
            began = time.process_time()
            take_turn(agent, tools=1)
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return statistics.mean(sorted(taken)[: TURNS // 2])


@pytest.mark.parametrize(("commit", "limit"), [("message", 0.8), ("turn", 0.4)])
def test_a_tool_turn_adds_less_cpu_than_files(
    commit: Literal["message", "turn"], limit: float, tmp_path: Path, report: Report
) -> None:
    """What a trimming tool turn adds in CPU time is 0.8 of FileSessionManager's, or 0.4."""
    with LocalDatabase() as database:
        makers: dict[str, Maker] = {
            "nobody": lambda _: None,
            "files": lambda name: FileSessionManager(name, storage_dir=str(tmp_path)),
            "ours": lambda name: PerSQLSessionManager(name, database, commit=commit),
        }
        best = dict.fromkeys(makers, float("inf"))
        for number in range(ROUNDS):
            for name, make in makers.items():
                best[name] = min(best[name], cpu_of_a_tool_turn(make, f"cpu-{number}"))
    ratio = (best["ours"] - best["nobody"]) / (best["files"] - best["nobody"])
    report(f'CPU that a tool turn adds, "{commit}" / FileSessionManager', ratio, at_most=limit)


def test_a_restore_takes_about_as_long_as_from_a_snapshot(tmp_path: Path, report: Report) -> None:
    """3,000 messages are restored in 1.6 of the time of Strands' snapshots in the same file."""
    snapshots = pytest.importorskip("strands.session.snapshot_session_manager")
    from strands_persql import PerSQLStorage  # noqa: PLC0415 - where Strands has storages

    def snapshot_manager(database: LocalDatabase) -> SessionManager:
        manager: SessionManager = snapshots.SnapshotSessionManager(
            "snapshot", storage=PerSQLStorage(database)
        )
        return manager

    def log_manager(database: LocalDatabase) -> SessionManager:
        return PerSQLSessionManager("log", database)

    path = tmp_path / "agents.db"
    with LocalDatabase(path) as database:
        for make in (snapshot_manager, log_manager):
            agent = Agent(
                agent_id=AGENT_ID,
                messages=conversation(2_998),
                model=new_agent(None).model,
                session_manager=make(database),
                conversation_manager=NullConversationManager(),
                callback_handler=None,
            )
            take_turn(agent)

    def restore(make: Callable[[LocalDatabase], SessionManager]) -> float:
        began = time.process_time()
        with LocalDatabase(path) as database:
            agent = new_agent(make(database))
        taken = time.process_time() - began
        assert len(agent.messages) == 3_000
        return taken

    times = [(restore(snapshot_manager), restore(log_manager)) for _ in range(15)]
    theirs, ours = (min(each) for each in zip(*times, strict=True))
    report("restore of 3,000 messages / SnapshotSessionManager, CPU", ours / theirs, at_most=1.6)


def test_eight_agents_leave_their_loop_free(tmp_path: Path, report: Report) -> None:
    """While eight agents have plain turns in one loop, on a file, it stalls for 5 ms at most."""

    async def live() -> float:
        with LocalDatabase(tmp_path / "agents.db") as database:
            agents = [
                await asyncio.to_thread(new_agent, PerSQLSessionManager(f"loop-{one}", database))
                for one in range(8)
            ]
            for turn in range(2):
                ticker = Ticker()
                async with ticker:
                    for _ in range(1 if turn == 0 else 5):
                        await asyncio.gather(*(agent.invoke_async("Hello.") for agent in agents))
            return ticker.worst

    stalls = [asyncio.run(live()) for _ in range(5)]
    name = "worst stall of a loop with eight agents' plain turns, in ms"
    report(name, statistics.median(stalls) * 1e3, at_most=5)
