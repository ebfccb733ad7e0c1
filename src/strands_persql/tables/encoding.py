"""Strands' dataclasses to JSON text and back, without per-message reflection or deep copies.

The JSON equals that of the dataclasses' own ``to_dict``; bytes travel as Strands encodes them.
"""

import base64
import dataclasses
import json
from typing import Any, TypeVar

from strands.types.session import Session, SessionAgent, SessionMessage, decode_bytes_values

from strands_persql.errors import CorruptRowError, InvalidDataError

_Stored = TypeVar("_Stored", Session, SessionAgent, SessionMessage)

_FIELDS: dict[type, tuple[str, ...]] = {
    cls: tuple(field.name for field in dataclasses.fields(cls))
    for cls in (Session, SessionAgent, SessionMessage)
}
_BYTES_MARK = '"__bytes_encoded__"'


def to_fields(value: Session | SessionAgent | SessionMessage) -> dict[str, Any]:
    """Give a dataclass's fields, shared with it: for encoding at once, not for keeping."""
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


def to_json(value: Any, what: str, **context: Any) -> str:
    """Encode a value as compact JSON text.

    Args:
        value: What to encode; bytes may stand anywhere but as a key.
        what: Names the value in the error, such as ``"message"``.
        **context: ``session_id`` and ``agent_id`` for the error.

    Raises:
        InvalidDataError: If JSON can't hold it, NaN and infinities included.
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDataError(
            f"the {what} can't be stored as JSON: {error}; nothing was written", **context
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

    Raises:
        CorruptRowError: If it is no JSON object.
    """
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise _corrupt(table, key, f"it is no JSON ({error})", context) from error
    if not isinstance(value, dict):
        raise _corrupt(table, key, "it is no JSON object", context)
    if _BYTES_MARK in text:
        try:
            return decode_bytes_values(value)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            raise _corrupt(table, key, f"its bytes are no base64 ({error})", context) from error
    return value


def from_fields(
    cls: type[_Stored], fields: dict[str, Any], table: str, key: tuple[Any, ...], **context: Any
) -> _Stored:
    """Build a dataclass from decoded JSON, passing over keys that it doesn't have.

    Raises:
        CorruptRowError: If a field is missing or of another shape.
    """
    for name, shape in _SHAPES[cls].items():
        if not isinstance(fields.get(name), shape):
            raise _corrupt(table, key, f"its field {name!r} is missing or misshapen", context)
    return cls(**{name: fields[name] for name in _FIELDS[cls] if name in fields})


_SHAPES: dict[type, dict[str, type]] = {
    Session: {"session_id": str, "session_type": str},
    SessionAgent: {"agent_id": str, "state": dict, "conversation_manager_state": dict},
    SessionMessage: {"message": dict, "message_id": int},
}


def _encode_other(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"__bytes_encoded__": True, "data": base64.b64encode(value).decode()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_encode_other
)


def _corrupt(
    table: str, key: tuple[Any, ...], why: str, context: dict[str, Any]
) -> CorruptRowError:
    return CorruptRowError(
        f"the row {key!r} of {table} can't be read: {why}; repair or delete that row",
        table=table,
        key=key,
        **context,
    )
