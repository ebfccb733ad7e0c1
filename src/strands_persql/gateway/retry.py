"""Which failures are tried again, how long and how often."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity

from strands_persql.databases.failures import Cause, classify

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a failed request, or a lost race, is tried again.

    The wait before the n-th new try is random between 0 and ``first_wait * 2**(n - 1)`` seconds,
    at most ``max_wait``, and never shorter than the service's ``Retry-After``.

    Attributes:
        budget: Seconds in all, from the first try on; a wait that would end later isn't begun.
            0 for never trying again.
        first_wait: Upper bound of the first wait, in seconds.
        max_wait: Upper bound of every wait, in seconds.
        conflict_attempts: How often a write that lost a race to another writer is merged and
            tried again before `ConflictError` is raised.
        sleep: What waits; replaced in tests.

    Raises:
        ValueError: If a value is out of its range.
    """

    budget: float = 30.0
    first_wait: float = 0.1
    max_wait: float = 5.0
    conflict_attempts: int = 1000
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("budget", "first_wait", "max_wait"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or not seconds >= 0:
                raise ValueError(f"{name} is seconds, 0 or more, not {seconds!r}")
        attempts: Any = self.conflict_attempts
        if not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"conflict_attempts is 1 or more, not {attempts!r}")

    @classmethod
    def never(cls) -> "RetryPolicy":
        """Never try a failed request again; lost races are still merged."""
        return cls(budget=0.0)

    def retry_failures(
        self, attempt: Callable[[], _T], before_retry: Callable[[BaseException, float], None]
    ) -> _T:
        """Call until it succeeds, fails for good, or the budget ends.

        Args:
            attempt: What to call.
            before_retry: Called before the wait for each further try, with what the last one
                raised and the seconds to wait.

        Returns:
            What ``attempt`` returned.

        Raises:
            Exception: What the last try raised.
        """
        began = time.monotonic()

        def wait(state: tenacity.RetryCallState) -> float:
            assert state.outcome is not None
            error = state.outcome.exception()
            assert error is not None
            backoff = tenacity.wait_random_exponential(self.first_wait, self.max_wait)
            return max(backoff(state), classify(error).retry_after or 0.0)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            error = state.outcome.exception()
            assert error is not None
            assert state.next_action is not None
            before_retry(error, state.next_action.sleep)

        def retrying() -> tenacity.Retrying:
            return tenacity.Retrying(
                sleep=self.sleep,
                stop=tenacity.stop_before_delay(self._left_since(began)),
                wait=wait,
                retry=tenacity.retry_if_exception(_is_transient),
                before_sleep=before_sleep,
                reraise=True,
            )

        return _after_first(attempt, _is_transient, retrying)

    def _left_since(self, began: float) -> float:
        return max(0.0, self.budget - (time.monotonic() - began))

    def retry_lost_races(self, attempt: Callable[[], _T]) -> _T:
        """Call again at once, then ever more patiently, while races are lost.

        Args:
            attempt: What to call; it raises `LostRaceError` to be called again.

        Returns:
            What ``attempt`` returned.

        Raises:
            LostRaceError: If every attempt was lost, or the budget ends.
        """
        took, began = 0.0, time.monotonic()

        def timed() -> _T:
            nonlocal took
            started = time.monotonic()
            try:
                return attempt()
            finally:
                took = time.monotonic() - started

        def wait(state: tenacity.RetryCallState) -> float:
            # Up to a few attempts' time apart, so that the losers don't meet again; over a
            # network the round trips' own spread does most of that.
            return random.uniform(0, min(2 * took * min(state.attempt_number, 8), _RACE_WAIT))  # noqa: S311

        def retrying() -> tenacity.Retrying:
            stop: tenacity.stop.stop_base = tenacity.stop_after_attempt(self.conflict_attempts)
            if self.budget:
                stop |= tenacity.stop_after_delay(self._left_since(began))
            return tenacity.Retrying(
                sleep=self.sleep,
                stop=stop,
                wait=wait,
                retry=tenacity.retry_if_exception(_is_lost_race),
                reraise=True,
            )

        return _after_first(timed, _is_lost_race, retrying)


def policy_of(retry: RetryPolicy | None) -> RetryPolicy:
    """Return a policy that was given, or the default one.

    Raises:
        TypeError: If it is neither a policy nor None.
    """
    if retry is None:
        return RetryPolicy()
    if not isinstance(retry, RetryPolicy):
        raise TypeError(
            f"retry={retry!r} | must be a RetryPolicy, such as RetryPolicy(budget=60), or None"
        )
    return retry


def _is_transient(error: BaseException) -> bool:
    return classify(error).cause is Cause.TRANSIENT


def _is_lost_race(error: BaseException) -> bool:
    return isinstance(error, LostRaceError)


def _after_first(
    attempt: Callable[[], _T],
    is_worth_it: Callable[[BaseException], bool],
    retrying: Callable[[], tenacity.Retrying],
) -> _T:
    """Leave it to tenacity once the first attempt has failed, which few do."""
    try:
        return attempt()
    except Exception as error:
        if not is_worth_it(error):
            raise
        first: Exception | None = error

    def again() -> _T:
        nonlocal first
        failed, first = first, None
        if failed is not None:
            raise failed
        return attempt()

    return retrying()(again)


_RACE_WAIT = 0.03  # the most seconds between two attempts


class LostRaceError(Exception):
    """Another writer came first; what it left has been adopted, and a new attempt may win.

    Attributes:
        conflict: What to raise if no attempt is left.
    """

    def __init__(self, conflict: Exception) -> None:
        """Initialize with the error of the last resort."""
        super().__init__(str(conflict))
        self.conflict = conflict
