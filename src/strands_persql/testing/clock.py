"""A clock that a test sets."""

import threading


class ManualClock:
    """A clock that moves only when it is advanced.

    It takes the place of ``time.monotonic`` where a repository measures staleness, and `advance`
    that of ``time.sleep`` where retries wait::

        clock = ManualClock()
        retry = RetryPolicy(sleep=clock.advance)
        repository = PerSQLSessionRepository(database, max_staleness=5, clock=clock, retry=retry)
        clock.advance(6)  # what the repository has in memory is too old now

    Args:
        start: What it shows at first, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the seconds that it shows."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Go on.

        Args:
            seconds: How far.

        Raises:
            ValueError: If that is back.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds} | a monotonic clock doesn't go back")
        with self._lock:
            self._now += seconds

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"
