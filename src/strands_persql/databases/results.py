"""The results of statements, whichever handle brings them: rows by column name, and their cost.

The shape of the SDK's results isn't documented for Python, and a server may answer anything. So
each plausible shape is read, and everything else is a `BadAnswerError` that says what was wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from strands_persql.errors import BadAnswerError

_USAGE = (("rows_read", "rowsRead"), ("rows_written", "rowsWritten"), ("cost_usd", "costUsd"))
_MOST = 2**63


def results_of(answer: Any) -> Sequence[Any]:
    """Return the results that a handle's `batch` answered, one a statement.

    Args:
        answer: A list of results, or an object around one in `data` or `results`.

    Raises:
        BadAnswerError: If there is no list of results in it.
    """
    if isinstance(answer, Mapping):
        answer = _first_list(answer, "data", "results")
    return _listed(answer, "a batch's answer has no list of results in it")


def rows_of(result: Any) -> list[Mapping[str, Any]]:
    """Return the rows of one statement's result, each a mapping by column name.

    Args:
        result: A mapping or an object with `data`, a list of rows; or with `rows` and `columns`,
            as over the wire; or just the list of rows. A result without any is of a statement
            that returned none.

    Raises:
        BadAnswerError: If the rows aren't rows, or don't fit their columns.
    """
    if isinstance(result, dict):
        data = result.get("data")
        if isinstance(data, list) and all(row.__class__ is dict for row in data):
            return data  # nearly every result there is
    columns, rows = _columns_and_rows(result)
    return [] if rows is None else named_rows(columns, rows)


def named_rows(columns: Any, rows: Any) -> list[Mapping[str, Any]]:
    """Return rows as mappings by column name.

    Args:
        columns: The names of the columns; not looked at where the rows are mappings already.
        rows: The rows, all mappings or all lists of values.

    Raises:
        BadAnswerError: If they aren't, or don't fit the columns.
    """
    rows = _listed(rows, "a result has rows that aren't a list")
    if all(isinstance(row, Mapping) for row in rows):
        return rows  # type: ignore[no-any-return]
    if not are_names(columns):
        raise BadAnswerError("a result has rows without the names of their columns")
    width = len(columns)
    if not all(isinstance(row, (list, tuple)) and len(row) == width for row in rows):
        raise BadAnswerError(f"a result has rows that don't fit their {width} columns")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def usage_of(results: Sequence[Any]) -> dict[str, float]:
    """Add up what results say they cost; a batch's `meta` may be next to its first one.

    What isn't a number says nothing. A cost that can't be read is never an error: the statements
    have been applied.
    """
    usage: dict[str, float] = {name: 0 for name, _ in _USAGE}
    for result in results:
        if isinstance(result, (dict, Mapping)):  # the first spares the slow look at the second
            meta = result.get("meta")
            for name, spelling in _USAGE:
                usage[name] += count_in(result, meta, name, spelling) or 0
    return usage


def count_in(result: Any, meta: Any, *names: str) -> float | None:
    """Return a count under any of its names, from a result or else from its meta, or None."""
    for place in (result, meta):
        if isinstance(place, (dict, Mapping)):
            for name in names:
                value = place.get(name)
                if _is_count(value):
                    return value
    return None


def _is_count(value: Any) -> bool:
    # NaN compares with nothing, so this leaves it out too.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST


def are_names(columns: Any) -> bool:
    """Whether these are the names of columns."""
    return isinstance(columns, (list, tuple)) and all(isinstance(each, str) for each in columns)


def _first_list(answer: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        value = answer.get(name)
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return value
    return None


def _listed(value: Any, wrong: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        raise BadAnswerError(wrong)
    try:
        return list(value)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadAnswerError(f"{wrong} ({type(error).__name__})") from None


def _columns_and_rows(result: Any) -> tuple[Any, Any]:
    """Return where a result's columns and rows are, on its first or second level."""
    if not isinstance(result, Mapping):
        if not hasattr(result, "data"):
            return None, result
        result = {name: getattr(result, name, None) for name in ("data", "columns", "rows")}
    data = result.get("data")
    if isinstance(data, Mapping):  # the wire's own shape, one level down
        return data.get("columns"), data.get("rows")
    return result.get("columns"), result.get("rows") if data is None else data
