"""The pages keep their word: examples run and print what is shown, links and cited tests exist."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

import strands_persql
from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
    admin,
    errors,
    testing,
)
from tests.unit.cli import Terminal

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(
    r"^(?P<note><!-- not run: [^\n]* -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
_CITATION = re.compile(r"(tests/[\w/]+\.py)::([\w:]+)")
_MARK = re.compile(r"pytest\.mark\.guarantee\(number=(?P<number>\d+)\)")
_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
# What a page may say of how its code is run.
_NEEDS = re.compile(r"^<!-- needs ([\w.]+) -->$", re.MULTILINE)
_APART = "<!-- runs in a process of its own -->"
_BY_PYTEST = "<!-- run by pytest -->"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    runs: bool
    prints: str | None  # a block of text right behind it


def blocks(page: Path) -> Iterator[Block]:
    """Give a page's blocks in order."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        beside = following is not None and not text[match.end() : following.start()].strip()
        shown = following["text"] if following and following["language"] == "text" else None
        yield Block(
            match["language"],
            match["text"],
            text.count("\n", 0, match.start("text")),
            match["note"] is None,
            shown if beside else None,
        )


@functools.cache
def everything() -> str:
    """Give the text of all pages."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@_each_page
def test_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's Python and commands run from top to bottom, and print what stands behind them."""
    text = page.read_text(encoding="utf-8")
    for needed in _NEEDS.findall(text):
        pytest.importorskip(needed, reason=f"{needed} isn't installed")
    monkeypatch.chdir(tmp_path)
    if _BY_PYTEST in text:
        code = "\n".join(block.text for block in blocks(page) if block.language == "python")
        (tmp_path / "test_page.py").write_text(code, encoding="utf-8")
        run_apart("-m", "pytest", "-q", "-p", "no:asyncio", "test_page.py")
    elif _APART in text:
        run_apart("-c", f"from tests.unit.test_docs import *; run_page(Path({str(page)!r}))")
    else:
        run_page(page)


def run_apart(*program: str) -> None:
    """Run Python in a process of its own, which says nothing on stderr and succeeds."""
    ran = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def run_page(page: Path) -> None:
    """Run a page's blocks, and compare what they print with what stands behind them."""
    names: dict[str, object] = {"__name__": page.name}
    for block in blocks(page):
        if block.language == "console" and block.runs:
            shown = terminal(block.text)
            if os.environ.get("STRANDS_PERSQL_WRITE_DOCS"):
                text = page.read_text(encoding="utf-8")
                page.write_text(text.replace(block.text, shown, 1), encoding="utf-8")
                continue
            assert same_always(shown) == same_always(block.text)
        if block.language != "python":
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec")
        if block.runs:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, names)  # noqa: S102 - the pages are ours
            assert printed.getvalue() == (block.prints or "")


def terminal(text: str) -> str:
    """Run a block's commands, and give them with what they print."""
    shown = ""
    for line in text.splitlines():
        if line.startswith("$ "):
            program, *arguments = shlex.split(line[2:])
            assert program == "strands-persql"
            ran = Terminal([]).run_plain(*arguments)
            shown += f"{line}\n{ran.out}{ran.err}"
    return shown


# What differs from run to run: times, ids, and sizes, which depend on the version of Strands.
_DIFFERENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ][\d:.+]+)?|\b[0-9a-f]{16}\b|\b[\d.]+ (?:bytes|KB)\b|█+|─+|\s+"
    r"|\"(?:bytes|sha256|tracking_id|other_bytes)\": (?:\d+|\"[^\"]*\")"
)


def same_always(text: str) -> str:
    """Give text without what differs from run to run."""
    return _DIFFERENT.sub(" ", text)


@_each_page
def test_sql_on_a_page_runs(page: Path) -> None:
    """Each query on a page is taken by a database that has our tables."""
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).setup()
        for block in blocks(page):
            if block.language == "sql":
                database.query(block.text)


@_each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page leads to a file of the repository, and to a heading of it."""
    for path, heading in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        if "/src/" in path and not (ROOT / "src").exists():
            continue  # where the wheel is tested, the sources are away
        assert target.exists(), f"{page.name} links to {path}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{page.name} links to {path}#{heading}"


def test_every_page_is_linked() -> None:
    """The README and the pages' index lead to every page."""
    index = ROOT / "docs" / "index.md"
    linked = {
        (page.parent / path).resolve()
        for page in (README, index)
        for path, _ in _LINK.findall(page.read_text("utf-8"))
    }

    assert {page.resolve() for page in PAGES} - linked <= {README.resolve(), index.resolve()}


def test_a_dashboards_queries_ask_for_what_is_told() -> None:
    """Each metric and label of the dashboard's queries is one of the library's, as it is told."""
    page = (ROOT / "docs" / "how-to" / "observability.md").read_text(encoding="utf-8")
    queries = "".join(
        block.text
        for block in blocks(ROOT / "docs" / "how-to" / "observability.md")
        if block.language == "promql"
    )
    told = set()
    for name, kind, _ in re.findall(r"^\| `([\w.]+)` \| (\w+), `(\S+)`", page, re.MULTILINE):
        spelled = name.replace(".", "_")
        if kind == "histogram":
            told |= {f"{spelled}_seconds_{part}" for part in ("bucket", "count", "sum")}
        else:
            told.add(f"{spelled}_total" if kind == "counter" else spelled)
            told.add(f"{spelled}_bytes")
    labels = {name.replace(".", "_") for name in re.findall(r"`((?:db|error)\.[\w.]+)`", page)}

    asked = set(re.findall(r"\b(?:strands_persql|db_client)_\w+", queries))
    assert len(asked) > 8
    assert asked - told == set()
    assert set(re.findall(r"\b(?:db|error)_\w+", queries)) - asked - labels == set()


def test_cited_tests_exist() -> None:
    """Each test that a page cites is there."""
    assert set(_CITATION.findall(everything())) - {*every_test()} == set()


def test_every_guarantee_has_a_test() -> None:
    """Each numbered guarantee cites at least one test, and their numbers have no gap."""
    cited = guarantees()

    assert [*cited] == [*range(1, 1 + len(cited))]
    assert [number for number, holding in cited.items() if not holding] == []


def test_guarantees_and_tests_cite_each_other() -> None:
    """The tests that hold a guarantee are marked with its number, and named on its page."""
    marked: dict[int, set[tuple[str, str]]] = {number: set() for number in guarantees()}
    for test, definition in every_test().items():
        for decorator in getattr(definition, "decorator_list", ()):
            if found := _MARK.fullmatch(ast.unparse(decorator)):
                marked[int(found["number"])].add(test)

    assert marked == guarantees()


@functools.cache
def guarantees() -> dict[int, set[tuple[str, str]]]:
    """Give the tests that each guarantee cites, by file and name."""
    text = (ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    numbers = {section: re.match(r"G(\d+)\. ", section) for section in sections}
    return {
        int(number[1]): set(_CITATION.findall(section))
        for section, number in numbers.items()
        if number
    }


@functools.cache
def every_test() -> dict[tuple[str, str], ast.AST]:
    """Give all tests and their classes, by file and name."""
    found: dict[tuple[str, str], ast.AST] = {}
    for path in (ROOT / "tests").glob("*/test_*.py"):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[file, node.name] = node
            if isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.FunctionDef):
                        found[file, f"{node.name}::{each.name}"] = each
    return found


def test_every_public_name_is_on_a_page() -> None:
    """Each public name of the package, its testing and its admin module is on a page."""
    names = [*strands_persql.__all__, *testing.__all__, *admin.__all__]

    assert [name for name in names if not re.search(rf"`{name}\b", everything())] == []


def test_every_error_has_its_row() -> None:
    """The table of errors has a row for each class, with when it is raised and what to do."""
    table = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    classes = [name for name, value in vars(errors).items() if _is_own_error(value)]

    assert [
        name
        for name in classes
        if not re.search(rf"^\| `{name}` \| .+ \| .+ \|$", table, re.MULTILINE)
    ] == []


def _is_own_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, errors.PerSQLError)


def test_retry_defaults_are_as_described() -> None:
    """The table of retries has each parameter with the default that it has."""
    table = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(RetryPolicy):
        default = "time.sleep" if field.name == "sleep" else repr(field.default)
        assert f"| `{field.name}` | `{default}` |" in table


def test_options_are_as_described() -> None:
    """The README's table of options has each of the manager's, with its default."""
    table = README.read_text(encoding="utf-8")
    for name, option in inspect.signature(PerSQLSessionManager).parameters.items():
        if option.kind is not option.VAR_KEYWORD:
            shown = "" if option.default in (option.empty, None) else f" `{option.default!r}`"
            shown = shown.replace("'", '"')
            assert re.search(
                rf"^\| `{name}` \|({re.escape(shown)}| `None`) \| ", table, re.MULTILINE
            ), name


def test_columns_are_as_described() -> None:
    """The page on the tables has each table and each column."""
    page = (ROOT / "docs" / "reference" / "schema.md").read_text(encoding="utf-8")
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).setup()
        found = database.query(
            "SELECT t.name AS name, c.name AS part FROM sqlite_master AS t,"
            " pragma_table_info(t.name) AS c WHERE t.type = 'table'"
        )
    names = {row[key] for row in found["data"] for key in ("name", "part")}

    assert "strands_messages" in names
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_a_scoped_tokens_tables_are_all_named() -> None:
    """The page on hosting names every table that a token's scope must have."""
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).setup()
        tables = database.query("SELECT name FROM sqlite_master WHERE type = 'table'")
    scope = (ROOT / "docs/how-to/hosted.md").read_text(encoding="utf-8").split("table scope")[1]
    assert {row["name"] for row in tables["data"]} <= set(re.findall(r"`(\w+)`", scope))


def test_the_table_of_round_trips_is_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages' table of round trips is what the program that measures them prints."""
    from tests.benchmarks import costs  # noqa: PLC0415 - a program, imported where it is run

    monkeypatch.setattr("sys.argv", ["costs"])
    costs.main()

    measured = capsys.readouterr().out
    for page in (README, ROOT / "docs" / "explanation" / "costs.md"):
        assert measured in page.read_text(encoding="utf-8")


def test_the_map_is_whole() -> None:
    """The page for contributors names each room of the package, each folder of tests, each page."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "strands_persql"
    folders = [*source.glob("*/__init__.py"), *(ROOT / "tests").glob("*/*.py")]
    rooms = {f"`{one.parent.name}/`" for one in folders if one.is_relative_to(source)}
    tests = {f"`tests/{one.parent.name}/`" for one in folders if not one.is_relative_to(source)}

    assert [name for name in sorted(rooms | tests) if name not in page] == []


def test_make_targets_exist() -> None:
    """Each target of make that a page names is one of the Makefile's."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", everything(), re.MULTILINE))

    assert named - targets == set()
