"""A pytest plugin for Strands' tests: ours in place of theirs, and the tests that use it.

It is loaded as ``upstream.plugin``, because ``tests`` is Strands' folder in these runs.
"""

import contextlib
import importlib
import json
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, GenericAlias
from typing import Any, TypeGuard

import pytest

from .replacements import SUITES, Suite, close_databases
from .waivers import reasons

_USERS = (
    "strands.session",
    "strands._context_manager.context_manager",
    "strands.vended_memory_stores.file_memory_store",
    "strands.vended_memory_stores.test_memory_store",
    "strands.vended_plugins.context_offloader",
)
"""Modules of Strands that go on with Strands' own classes: what is replaced is what tests name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the suite, and the file for what came of it."""
    parser.addoption("--suite", choices=sorted(SUITES), required=True)
    parser.addoption("--outcome", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Put ours in place of theirs, before their tests are imported."""
    config.pluginmanager.register(_Replacing(SUITES[config.option.suite], config.option.outcome))


class _Replacing:
    """What a run does beside what pytest does."""

    def __init__(self, suite: Suite, outcome: Path) -> None:
        self.reasons = reasons(suite.kind, version("strands-agents"))
        self.outcome = outcome
        self.waived: Counter[str] = Counter()
        classes = suite.classes()
        self.ours = tuple(classes.values())
        self.names = {path.partition(":")[2] for path in classes}
        for module in _USERS:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        for path, ours in classes.items():
            module, _, name = path.partition(":")
            _replace(module, name, ours)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the tests that use ours, and expect of the waived ones that they fail."""
        kept = [item for item in items if isinstance(item, pytest.Function) and self._uses(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
        found = set()
        for item in items:
            for key in {item.nodeid, item.nodeid.partition("[")[0]} & self.reasons.keys():
                item.add_marker(pytest.mark.xfail(reason=self.reasons[key], strict=True))
                found.add(key)
        if gone := self.reasons.keys() - found:
            raise pytest.UsageError(
                "these have a waiver in tests/upstream/waivers.py, and aren't there or use nothing"
                " of ours; take the waiver out: " + ", ".join(sorted(gone))
            )

    def _uses(self, item: pytest.Function) -> bool:
        """Whether a test names what is replaced, itself or through its module's helpers."""
        module = vars(item.module)
        ours = {
            name
            for name, value in module.items()
            if _is_class(value) and issubclass(value, self.ours)
        }
        ours |= self.names - module.keys()  # imported where they are used
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        todo: list[Any] = [item.function, *(one.func for same in fixtures for one in same)]
        seen = set()
        while todo:
            code = getattr(todo.pop(), "__code__", None)
            if code is None or code in seen:
                continue
            seen.add(code)
            names = set(_names(code))
            if names & ours:
                return True
            todo += _helpers(module, names)
        return False

    @pytest.fixture(autouse=True)
    def _databases(self) -> Iterator[None]:
        yield
        close_databases()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Count what is waived, by its reason."""
        report = yield
        if report.skipped and hasattr(report, "wasxfail"):
            self.waived[report.wasxfail] += 1
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write down how many there were of which kind."""
        counts = {kind: len(found) for kind, found in terminalreporter.stats.items() if kind}
        self.outcome.write_text(json.dumps({"counts": counts, "waived": self.waived}), "utf-8")


def _replace(module: str, name: str, ours: type) -> None:
    """Put a class in another's place, in its module and in the package that exports it."""
    theirs = getattr(importlib.import_module(module), name)
    for place in (module, module.rpartition(".")[0]):
        if getattr(sys.modules[place], name, None) is theirs:
            setattr(sys.modules[place], name, ours)


def _is_class(value: object) -> TypeGuard[type]:
    # Python 3.10 takes list[int] for a type.
    return isinstance(value, type) and not isinstance(value, GenericAlias)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that a function's code has, those of functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _helpers(module: dict[str, Any], names: set[str]) -> Iterator[Any]:
    """Yield the functions and methods of a module that go by these names."""
    for name in names & module.keys():
        value = module[name]
        if getattr(value, "__module__", None) == module["__name__"]:
            if _is_class(value):
                yield from (one for one in vars(value).values() if isinstance(one, FunctionType))
            else:
                yield value
