"""A fuzzer over answers: whatever a service says, a result comes of it or an error of ours.

Run it at any size with `python -m tests.fuzz.answers --runs 100000 --seed 1`. A failing answer is
printed with its number; `--seed` and `--only NUMBER` make it again.
"""

import copy
import io
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import urllib3

from strands_persql import RestClient, RestDatabase, RestError
from strands_persql.databases.failures import Cause, classify
from strands_persql.databases.results import results_of, rows_of, usage_of
from strands_persql.errors import BadAnswerError
from tests.fuzz import program

TOKEN = "psql_live_s0_n0t/a+real.one="  # noqa: S105 - nobody's
RESULT = {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]], "rowsRead": 2, "rowsWritten": 0}
DICTS = {"data": [{"a": 1, "b": "x"}, {"a": 2, "b": None}], "rows_read": 2, "rows_written": 0}
META = {"rowsRead": 2, "rowsWritten": 0, "durationMs": 1.5, "statementCount": 2, "costUsd": 1e-6}
BODIES: tuple[Any, ...] = (
    {"success": True, "data": RESULT, "meta": META},
    {"success": True, "data": {**RESULT, "meta": META}},
    {"success": True, "data": [RESULT, DICTS], "meta": META},
    {"success": True, "data": {"results": [RESULT, RESULT], "meta": META}},
    {"success": True, "results": [DICTS, {**DICTS, "meta": META}]},
    {
        "success": False,
        "error": f"UNIQUE constraint failed: t.a ({TOKEN})",
        "errorDetail": {"kind": "unique_violation", "message": TOKEN, "table": "t", "columns": []},
    },
    {"success": False, "error": "Approval required", "approvalUrl": "https://x/y", "hits": [{}]},
)
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**53 + 1,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "3",
    "\x00\u202e\r\nERROR",
    "\ud800",
    TOKEN,
    "y" * 5000,
    [],
    [[]],
    [None],
    [1, 2],
    {},
    {"data": None},
    {"rows": {}},
    {"a": {"b": []}},
)
STATUSES = (
    200,
    200,
    200,
    200,
    201,
    204,
    301,
    400,
    401,
    403,
    404,
    408,
    409,
    429,
    500,
    503,
    599,
    999,
)
WAITS = (None, "", "2", "-1", "nan", "1e999", "soon", "Fri, 31 Dec 99999 23:59:59 GMT", "9" * 400)


class Fuzz:
    """One answer after the other, each drawn by its number.

    Attributes:
        ends: How often which end came of an answer.
    """

    def __init__(self, seed: int) -> None:
        """Begin."""
        self.ends: Counter[str] = Counter()
        self._seed = seed
        self._pools = _Pools()
        self._client = RestClient(TOKEN, http=self._pools)
        self._database = self._client.database("acme/db")

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def run(self, number: int) -> None:
        """Draw an answer, and see that what comes of it is sound.

        Raises:
            AssertionError: If it isn't.
        """
        draw = Random(f"{self._seed}.{number}")  # noqa: S311 - answers, not secrets
        body = mutated(draw.choice(BODIES), draw)
        self._over_http(body, draw)
        self._from_a_handle(body, draw)

    def _over_http(self, body: Any, draw: Random) -> None:
        self._pools.answer = encoded(body, draw)
        self._pools.status = draw.choice(STATUSES)
        self._pools.wait = draw.choice(WAITS)
        ask = draw.choice((_query, _batch))
        try:
            results = ask(self._database)
        except RestError as error:
            self.ends[f"{error.kind} {classify(error).cause.value}"] += 1
            _check_error(error)
        else:
            self.ends["results"] += 1
            _check_results(results, 1 if ask is _query else 2)

    def _from_a_handle(self, body: Any, draw: Random) -> None:
        answer = draw.choice((body, body.get("data") if isinstance(body, dict) else body))
        answer = draw.choice(SHAPES)(answer)
        try:
            results = results_of(answer)
            usage = usage_of(results)
            rows = [rows_of(result) for result in results]
        except BadAnswerError as error:
            self.ends["BadAnswerError"] += 1
            failure = classify(error)
            assert (failure.cause, failure.may_have_applied) == (Cause.STATEMENT, True)
        else:
            self.ends["rows"] += 1
            assert all(hasattr(row, "keys") for each in rows for row in each)
            assert all(0 <= value < float("inf") for value in usage.values())


class _Pools(urllib3.PoolManager):
    """Pools that answer what they are told to."""

    answer = b""
    status = 200
    wait: str | None = None

    def urlopen(self, *_: Any, **__: Any) -> Any:
        return urllib3.HTTPResponse(
            io.BytesIO(self.answer),
            headers=None if self.wait is None else {"Retry-After": self.wait},
            status=self.status,
            preload_content=False,
        )


class _Object:
    """A result as an SDK might have it, with attributes."""

    def __init__(self, value: Any) -> None:
        self.data = value.get("data", value) if isinstance(value, dict) else value
        self.columns = value.get("columns") if isinstance(value, dict) else None


def _generated(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]


SHAPES: tuple[Callable[[Any], Any], ...] = (
    lambda value: value,
    lambda value: [value],
    lambda value: {"results": value},
    _generated,
    _Object,
    lambda value: [_Object(value)],
    lambda value: tuple(value) if isinstance(value, list) else value,
)


def _query(database: RestDatabase) -> list[dict[str, Any]]:
    return [database.query("SELECT a, b FROM t")]


def _batch(database: RestDatabase) -> list[dict[str, Any]]:
    return database.batch([{"sql": "SELECT a, b FROM t"}] * 2, transaction=True)


def _check_error(error: RestError) -> None:
    shown = str(error)
    assert shown.isprintable()
    assert len(shown) < 1_000
    assert TOKEN not in shown + repr(error.__dict__)
    assert error.kind is None or error.kind.isidentifier()
    assert error.retry_after is None or 0 <= error.retry_after <= 86_400
    assert isinstance(error.may_have_applied, bool)
    assert len(pickle.dumps(error)) < 50_000
    assert classify(error).may_have_applied == error.may_have_applied


def _check_results(results: Sequence[Any], count: int) -> None:
    assert len(results) == count
    for result in results:
        assert all(isinstance(row, dict) for row in result["data"])
        assert all(isinstance(name, str) for name in result["columns"])
        assert isinstance(result["meta"], dict)
        for name in ("rows_read", "rows_written"):
            assert result[name] is None or 0 <= result[name] < float("inf")


def mutated(body: Any, draw: Random) -> Any:
    """Return a copy of a body with up to four odd things done to it."""
    body = copy.deepcopy(body)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        places = list(_places(body))
        if not places:
            return draw.choice(ODD)
        holder, key = draw.choice(places)
        draw.choice((_replace, _replace, _remove, _nest, _repeat))(holder, key, draw)
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _replace(holder: Any, key: Any, draw: Random) -> None:
    holder[key] = copy.deepcopy(draw.choice(ODD))


def _remove(holder: Any, key: Any, _: Random) -> None:
    del holder[key]


def _nest(holder: Any, key: Any, draw: Random) -> None:
    value = holder[key]
    holder[key] = draw.choice(([value], {"data": value}, {"a": value}))


def _repeat(holder: Any, key: Any, draw: Random) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[str(draw.choice(("a", "data", "rows", "meta", "kind")))] = holder[key]


def encoded(body: Any, draw: Random) -> bytes:
    """Return a body as it might go over the wire, at times damaged."""
    raw = json.dumps(body).encode()
    if draw.random() < 0.8:
        return raw
    damaged = bytearray(raw)
    for _ in range(draw.choice((1, 3, 10))):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    deep = b'{"success":true,"data":' + b"[" * 100_000
    return draw.choice((bytes(damaged), raw[: draw.randrange(len(raw))], b"", deep))


if __name__ == "__main__":
    program.main(Fuzz, "answer", 10_000, __doc__)
