"""What users import, pinned: whoever changes it means to."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

import strands_persql
from strands_persql import testing

PUBLIC = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "BadAnswerError",
    "Checkpoint",
    "ConflictError",
    "CorruptRowError",
    "Database",
    "DatabaseError",
    "DatabaseOpenError",
    "InvalidDataError",
    "LocalDatabase",
    "MessageHit",
    "NotFoundError",
    "OutcomeUnknownError",
    "PerSQLError",
    "PerSQLSessionManager",
    "PerSQLSessionRepository",
    "RestClient",
    "RestDatabase",
    "RestError",
    "Result",
    "RetryPolicy",
    "SchemaError",
    "SessionCache",
    "Statement",
    "StatementError",
    "Stats",
    "TooLargeError",
    "UnavailableError",
    "Value",
    "persql_error",
]
TESTING = [
    "CountingDatabase",
    "Fault",
    "FaultyDatabase",
    "InterceptingDatabase",
    "ManualClock",
    "Redact",
    "Reply",
    "ScriptedModel",
    "ToolCall",
]
MODULES = ["strands_persql"] + [
    found.name for found in pkgutil.walk_packages(strands_persql.__path__, "strands_persql.")
]


def test_the_public_names_are_pinned() -> None:
    """``strands_persql`` exports these names, sorted, and each is there."""
    assert strands_persql.__all__ == PUBLIC == sorted(PUBLIC)
    assert all(hasattr(strands_persql, name) for name in PUBLIC)


def test_the_names_for_tests_are_pinned() -> None:
    """``strands_persql.testing`` exports these names, sorted, and each is there."""
    assert testing.__all__ == TESTING == sorted(TESTING)
    assert all(hasattr(testing, name) for name in TESTING)


def test_nothing_else_is_public_by_accident() -> None:
    """Besides its modules the package has no public name that isn't exported."""
    names = {
        name
        for name, value in vars(strands_persql).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert names == set(PUBLIC)


def _definitions(module_name: str) -> Iterator[tuple[str, Any]]:
    module = importlib.import_module(module_name)
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module_name or name.startswith("_"):
            continue
        if inspect.isclass(value):
            yield f"{module_name}.{name}", value
            for member, method in vars(value).items():
                function = getattr(method, "__func__", getattr(method, "fget", method))
                if inspect.isfunction(function) and not member.startswith("_"):
                    yield f"{module_name}.{name}.{member}", function
        elif inspect.isfunction(value):
            yield f"{module_name}.{name}", value


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_described(module: str) -> None:
    """Each module, and each public class, method and function in it, has a docstring."""
    if module.startswith("strands_persql.snapshots"):
        pytest.importorskip("strands.storage", reason="this version of Strands has no storages")
    silent = [name for name, value in _definitions(module) if not (value.__doc__ or "").strip()]
    assert silent == []
    assert importlib.import_module(module).__doc__


def test_the_package_is_typed() -> None:
    """The marker for type checkers is part of the package."""
    assert (resources.files(strands_persql) / "py.typed").is_file()
