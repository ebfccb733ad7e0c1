"""Our JSON of Strands' dataclasses equals their own."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql.errors import InvalidDataError
from strands_persql.tables.codec import build as from_fields
from strands_persql.tables.codec import fields_of as to_fields
from strands_persql.tables.encoding import from_json, to_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)
times = st.datetimes().map(lambda time: time.isoformat())
messages: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.lists(objects, max_size=3)}
)
session_messages = st.builds(
    SessionMessage,
    message=messages,
    message_id=st.integers(0, 2**53),
    redact_message=st.none() | messages,
    created_at=times,
    updated_at=times,
)
# Bytes in an agent's state are what newer versions of Strands encode, and older ones can't store.
encodes_agents = SessionAgent("a", {"b": b""}, {}).to_dict()["state"] != {"b": b""}
plain_objects = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text())
of_agents = objects if encodes_agents else plain_objects
session_agents = st.builds(
    SessionAgent,
    agent_id=st.text(),
    state=of_agents,
    conversation_manager_state=of_agents,
    _internal_state=of_agents,
    created_at=times,
    updated_at=times,
)
sessions = st.builds(
    Session,
    session_id=st.text(),
    session_type=st.just(SessionType.AGENT),
    created_at=times,
    updated_at=times,
)
stored: st.SearchStrategy[Any] = session_messages | session_agents | sessions


@given(stored)
def test_the_json_is_that_of_to_dict(one: Any) -> None:
    """What is written is what Strands' own ``to_dict`` would have been written as."""
    assert json.loads(to_json(to_fields(one), "it")) == json.loads(json.dumps(one.to_dict()))


@given(stored)
def test_what_is_read_is_what_from_dict_gives(one: Any) -> None:
    """What is read from our JSON equals what Strands' own ``from_dict`` makes of it."""
    text = to_json(to_fields(one), "it")
    ours = from_fields(type(one), from_json(text, "t", ()), "t", ())
    assert ours == type(one).from_dict(json.loads(text))


@given(stored)
def test_there_and_back_changes_nothing(one: Any) -> None:
    """Encoding and decoding gives an equal object."""
    text = to_json(to_fields(one), "it")
    assert from_fields(type(one), from_json(text, "t", ()), "t", ()) == one


@given(stored)
def test_the_text_can_be_sent(one: Any) -> None:
    """The JSON has a UTF-8 form and no NUL, whatever text is in it."""
    assert b"\0" not in to_json(to_fields(one), "it").encode()


@given(st.sampled_from([{1}, object(), 1j, {(1, 2): 3}]), objects)
def test_what_json_cant_hold_is_refused(unfit: Any, around: dict[str, Any]) -> None:
    """Wherever it stands, a value without a JSON form is a typed error."""
    for value in (unfit, {**around, "x": unfit}, [around, [unfit]]):
        with pytest.raises(InvalidDataError):
            to_json(value, "it")
