"""The shapes that decoded rows must have for Strands to work with them."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from strands.types.content import Role

_ROLES = get_args(Role)


def is_message(value: Any) -> bool:
    """Whether a value has the shape of a message: a role, and a list of blocks."""
    if not isinstance(value, dict) or value.get("role") not in _ROLES:
        return False
    content = value.get("content")
    if "metadata" in value and not isinstance(value["metadata"], dict):
        return False
    return isinstance(content, list) and all(map(_is_block, content))


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or not block:
        return False
    for kind, value in block.items():
        is_shaped = _BLOCKS.get(kind)  # other kinds are none of this library's business
        if is_shaped is not None and not is_shaped(value):
            return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tool_use(value: Any) -> bool:
    return _has(value, toolUseId=str, name=str)


def _is_tool_result(value: Any) -> bool:
    if not _has(value, toolUseId=str):
        return False
    content = value.get("content", [])
    return isinstance(content, list) and all(isinstance(one, dict) for one in content)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_BLOCKS: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "toolUse": _is_tool_use,
    "toolResult": _is_tool_result,
    **dict.fromkeys(
        ("audio", "cachePoint", "citationsContent", "document", "guardContent", "image"),
        _is_object,
    ),
    **dict.fromkeys(("reasoningContent", "video"), _is_object),
}


def is_manager_state(value: Any) -> bool:
    """Whether a value may be the state of a conversation manager."""
    if not isinstance(value, dict):
        return False
    count = value.get("removed_message_count", 0)
    return isinstance(count, int) and count >= 0


def is_internal_state(value: Any) -> bool:
    """Whether a value may be what is kept of an agent besides its state, for a record at least."""
    if not isinstance(value, dict):
        return False
    waiting = value.get("waiting", {})
    return isinstance(waiting, dict) and all(map(_is_interrupt_state, waiting.values()))


def is_restorable(internal: Mapping[str, Any]) -> bool:
    """Whether an agent can be given what is kept of it besides its state."""
    interrupts = internal.get("interrupt_state")
    is_given = interrupts is None or _is_interrupt_state(interrupts)
    return is_given and isinstance(internal.get("model_state", {}), dict)


def _is_interrupt_state(value: Any) -> bool:
    if not _has(value, interrupts=dict, context=dict, activated=bool):
        return False
    return all(_has(one, id=str, name=str) for one in value["interrupts"].values())


def _has(value: Any, **kinds: type) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(value.get(name), kind) for name, kind in kinds.items()
    )
