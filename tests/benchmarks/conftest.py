"""A table of what was measured, printed when the benchmarks have ended."""

from collections.abc import Callable

import pytest

Report = Callable[..., None]

_rows: list[str] = []


@pytest.fixture
def report() -> Report:
    """Takes a measured value and its limit for the table, and fails where the limit is missed."""

    def report(
        name: str, value: float, *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        sign, limit = ("<=", at_most) if at_least is None else (">=", at_least)
        assert limit is not None
        kept = value <= limit if at_least is None else value >= limit
        _rows.append(f"{name:<68} {value:9.3f}  {sign} {limit:<8g} {'' if kept else 'MISSED'}")
        assert kept, f"{name}: {value:.3f}, and {sign} {limit:g} was wanted"

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if _rows:
        terminalreporter.section("measured")
        for row in _rows:
            terminalreporter.line(row)
