"""Encoding by example; tests/properties has the equality with Strands' own."""

from typing import Any

import pytest
from strands.types.session import SessionAgent, SessionMessage

from strands_persql.errors import CorruptRowError, InvalidDataError
from strands_persql.tables.codec import build as from_fields
from strands_persql.tables.encoding import from_json, to_json


def test_json_is_compact_and_readable() -> None:
    """No blanks are stored, and text stays text."""
    assert to_json({"a": [1, "ü"]}, "it") == '{"a":[1,"ü"]}'


def test_bytes_are_encoded_as_strands_does() -> None:
    """Bytes become the object that Strands makes of them, and come back as bytes."""
    text = to_json({"a": b"\x00"}, "it")
    assert text == '{"a":{"__bytes_encoded__":true,"data":"AA=="}}'
    assert from_json(text, "t", ()) == {"a": b"\x00"}


def test_a_lone_surrogate_is_escaped() -> None:
    """Text without a UTF-8 form is stored as an escape and comes back."""
    text = to_json({"a": "\ud800", "b": b"x"}, "it")
    assert text.isascii()
    assert from_json(text, "t", ()) == {"a": "\ud800", "b": b"x"}


def test_a_refusal_names_what_and_whose() -> None:
    """The error says what can't be stored, and carries the session and the agent."""
    with pytest.raises(
        InvalidDataError, match=r"the message \(session 's', agent 'a'\) can't be stored"
    ) as caught:
        to_json({1, 2}, "message", session_id="s", agent_id="a")
    assert (caught.value.session_id, caught.value.agent_id) == ("s", "a")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", None, 3, '{"a":NaN'])
def test_what_is_no_object_is_corrupt(text: Any) -> None:
    """Text that is no JSON object is an error with its table and key."""
    with pytest.raises(CorruptRowError, match=r"\('s', 1\) of t ") as caught:
        from_json(text, "t", ("s", 1))
    assert (caught.value.table, caught.value.key) == ("t", ("s", 1))


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (SessionMessage, {"message_id": 1}),
        (SessionMessage, {"message": [], "message_id": 1}),
        (SessionMessage, {"message": {}, "message_id": "1"}),
        (SessionAgent, {"agent_id": "a", "state": {}}),
        (SessionAgent, {"agent_id": "a", "state": [], "conversation_manager_state": {}}),
    ],
)
def test_misshapen_fields_are_corrupt(cls: Any, fields: dict[str, Any]) -> None:
    """A missing field or one of another shape is an error that names it."""
    with pytest.raises(CorruptRowError, match="field"):
        from_fields(cls, fields, "t", ("s",))
