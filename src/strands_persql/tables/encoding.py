"""JSON text of what Strands hands over, and back: whatever goes in comes out.

The JSON equals that of Strands' own ``to_dict``, and bytes travel as Strands encodes them. What
JSON can't express is put in an envelope of our own: numbers that aren't finite, and dicts that
look like an envelope themselves.
"""

import base64
import binascii
import dataclasses
import json
import math
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from strands_persql.errors import CorruptRowError, InvalidDataError
from strands_persql.runtime.threads import on_fresh_stack

MAX_DEPTH = 480
"""How deep values may be nested: beyond what Strands itself reads back, within what any
interpreter and SQLite take."""

TOO_DEEP = "it is nested too deep"

_BYTES = "__bytes_encoded__"  # Strands' mark of an envelope for bytes
_OURS = "__persql__"  # ours, for what else JSON can't express
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_BYTES_MARK, _OUR_MARK = f'"{_BYTES}"', f'"{_OURS}"'


_T = TypeVar("_T")


class _Encodings(threading.local):
    bytes_encoded = 0


_encodings = _Encodings()


def to_json(value: Any, what: str, **context: Any) -> str:
    """Encode a value as compact JSON text.

    Args:
        value: What to encode; bytes may be anywhere but in a key.
        what: Names the value in the error, such as ``"message"``.
        **context: ``session_id`` and ``agent_id`` for the error.

    Returns:
        The text.

    Raises:
        InvalidDataError: If JSON can't hold it, or it is nested too deep to be read back.
    """
    try:
        text = _with_room(lambda: _encode(value))
        check_depth(text)
    except (TypeError, ValueError, RecursionError) as error:
        reason = TOO_DEEP if isinstance(error, RecursionError) else error
        if place := _place_of_unfit(value):
            reason = f"{place} {reason}"
        raise InvalidDataError(
            f"the {what}{whose(context)} can't be stored as JSON: {reason}; nothing was written",
            **context,
        ) from error
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but JSON can escape it
        return json.dumps(json.loads(text), separators=(",", ":"))
    return text


def from_json(text: Any, table: str, key: tuple[Any, ...], **context: Any) -> dict[str, Any]:
    """Decode a row's JSON object.

    Returns:
        The object.

    Raises:
        CorruptRowError: If it is not a JSON object.
    """
    try:
        value = decoded_text(text)
    except MissingContentError as error:
        raise corrupt(table, key, str(error), context) from error
    except RecursionError as error:
        raise corrupt(table, key, TOO_DEEP, context) from error
    except ValueError as error:
        raise corrupt(table, key, f"it is not valid JSON ({error})", context) from error
    if not isinstance(value, dict):  # which an envelope may turn out not to be
        raise corrupt(table, key, "it is not a JSON object", context)
    return value


class MissingContentError(ValueError):
    """JSON that refers to content stored apart, which is missing or isn't what it was."""


def decoded(value: Any, text: str) -> Any:
    """Return a JSON value with its envelopes opened, given the text that it was read from.

    Raises:
        MissingContentError: If content stored apart wasn't put back in.
        RecursionError: If it is nested too deep for what is done with it.
    """
    check_depth(text)
    return _with_room(lambda: _opened(value)) if has_envelopes(text) else value


def has_envelopes(text: str) -> bool:
    """Whether JSON text may have envelopes."""
    return _BYTES_MARK in text or _OUR_MARK in text


def whose(context: Mapping[str, Any]) -> str:
    """Return what an error says of whose a value is, such as `` (session 's', agent 'a')``."""
    ids = {"session": context.get("session_id"), "agent": context.get("agent_id")}
    named = ", ".join(f"{kind} {value!r}" for kind, value in ids.items() if value)
    return f" ({named})" if named else ""


def corrupt(table: str, key: tuple[Any, ...], why: str, context: dict[str, Any]) -> CorruptRowError:
    """Return the error for a row that can't be read."""
    return CorruptRowError(
        f"the row {key!r} of {table} can't be read: {why}; repair or delete that row",
        table=table,
        key=key,
        **context,
    )


def _with_room(call: Callable[[], _T]) -> _T:
    """Call, and again on a stack of its own where the caller's is too deep already."""
    try:
        return call()
    except RecursionError:
        return on_fresh_stack(call)


def _encode(value: Any) -> str:
    _encodings.bytes_encoded = 0
    try:
        text = _encoder.encode(value)
    except ValueError:  # a number that isn't finite, as a rule
        return _encoder.encode(_enveloped(value))
    if text.count(_BYTES_MARK) > _encodings.bytes_encoded or _OUR_MARK in text:
        return _encoder.encode(_enveloped(value))
    return text


def _encode_other(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        _encodings.bytes_encoded += 1
        return {_BYTES: True, "data": base64.b64encode(value).decode()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"is of type {type(value).__name__}, which JSON can't hold")


_encoder = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_encode_other
)


def _enveloped(value: Any) -> Any:
    """Return a copy in which what JSON can't express is in envelopes."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_OURS: "float", "data": repr(float(value))}
    if isinstance(value, dict):
        pairs = []
        for key, one in value.items():
            pairs.append((_key(key), _enveloped(one)))
        if any(key in (_BYTES, _OURS) for key, _ in pairs):
            return {_OURS: "dict", "data": [list(pair) for pair in pairs]}
        return dict(pairs)
    if isinstance(value, (list, tuple)):
        items = []
        for one in value:  # not a comprehension, which takes a frame of its own on older Pythons
            items.append(_enveloped(one))  # noqa: PERF401
        return items
    if isinstance(value, (str, int, float, bytes, bytearray, type(None))):
        return value
    return _enveloped(_encode_other(value))


def _place_of_unfit(value: Any, place: str = "", depth: int = 0) -> str:
    """Return where the first value is that JSON can't hold; empty if there is none such."""
    if depth > _MAX_PLACE_DEPTH:
        return ""
    if isinstance(value, dict):
        children = [(f"{place}[{key!r}]" if place else str(key), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        children = [(f"{place}[{index}]", one) for index, one in enumerate(value)]
    else:
        fits = isinstance(value, (str, int, float, bytes, bytearray, type(None)))
        return "" if fits or dataclasses.is_dataclass(value) else place
    found = (_place_of_unfit(one, at, depth + 1) for at, one in children)
    return next(filter(None, found), "")


_MAX_PLACE_DEPTH = 100  # a circle has no end


def _key(key: Any) -> Any:
    if isinstance(key, float) and not math.isfinite(key):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(float(key))]
    return key


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        if _OURS in value and len(value) == 2:  # noqa: PLR2004 - the mark and its data
            return _from_envelope(value)
        if value.get(_BYTES) is True and "data" in value:
            return _from_base64(value)
        for key, one in value.items():
            if isinstance(one, (dict, list)):
                value[key] = _opened(one)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            if isinstance(one, (dict, list)):
                value[index] = _opened(one)
    return value


def _from_envelope(value: dict[str, Any]) -> Any:
    kind, data = value[_OURS], value.get("data")
    if kind == "part":
        raise MissingContentError(f"its content {data} is missing or was altered")
    if kind == "float" and data in ("nan", "inf", "-inf"):
        return float(data)
    if kind == "dict" and isinstance(data, list) and all(map(_is_pair, data)):
        result = {}
        for key, one in data:
            result[key] = _opened(one)
        return result
    return value


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)  # noqa: PLR2004


def _from_base64(value: dict[str, Any]) -> Any:
    _opened(value["data"])  # content that wasn't put back in
    # Older versions stored dicts that only look like an envelope as they were.
    try:
        return base64.b64decode(value["data"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        return value


def check_depth(text: str) -> None:
    """Check that what a text says can be copied, compared and written, whatever the stack.

    Python reads deeper nesting than that.

    Raises:
        RecursionError: If it is nested too deep.
    """
    if len(text) <= 2 * MAX_DEPTH:  # a bracket is closed by another one
        return
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise RecursionError


def decoded_text(text: str) -> Any:
    """Return what `to_json` has encoded, as a reader will find it."""
    return decoded(parsed(text), text)


def parsed(text: Any) -> Any:
    """Return the value of a JSON text, however deep the caller's stack is already.

    Raises:
        RecursionError: If it is nested too deep.
        ValueError: If it isn't JSON.
    """
    if not isinstance(text, str):
        raise ValueError("it is not text")  # noqa: TRY004 - it isn't JSON either
    return _with_room(lambda: json.loads(text))
