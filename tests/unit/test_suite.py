"""What these tests themselves keep to."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PUBLIC = (
    "strands_persql.admin",
    "strands_persql.cli",
    "strands_persql.errors",
    "strands_persql.testing",
)

# Modules of pure functions that are worth tests of their own, those of the databases, and those
# whose statements are asked for their plans.
UNITS = {
    "checks",
    "codec",
    "differ",
    "encoding",
    "errors",
    "failures",
    "files",
    "ids",
    "local",
    "merge",
    "planning",
    "protocol",
    "rest",
    "results",
    "runtime",
    "snapshots",
    "tables",
    "weaving",
}

# Sizes of pages and requests that are made small, and where a move is killed between two requests.
PATCHED = {
    "storing.REQUEST_BYTES",
    "storing._STATEMENT_BYTES",
    "storing._STAGED_AT_ONCE",
    "storing.drop_staged",
    "storing.DatabaseSink._store_all",
    "reading.PAGE_BYTES",
    "reading._FIRST_PAGE_ROWS",
    "checks._FIRST_PAGE_ROWS",
    "checks._PAGE_BYTES",
    "importlib.util.find_spec",
    "printed.errors",
}

# These have a limit where they are made.
LIMITED = {"barrier", "gate", "begin", "end", "waiting"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Give each module of the tests, by the name of its file."""
    for path in TESTS.glob("*/*.py"):
        yield path.relative_to(TESTS).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def endless(tree: ast.Module) -> list[str]:
    """Give the calls of a module that may wait for ever."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [f"{call.lineno}: {ast.unparse(call)}" for call in calls if _is_endless(call)]


def _is_endless(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    owner, _, method = name.rpartition(".")
    limits = {keyword.arg for keyword in call.keywords} & {"timeout", None}
    if method in ("join", "wait", "communicate") and owner.rpartition(".")[2] not in LIMITED:
        return not call.args and not limits
    if method == "Barrier" or name in ("subprocess.run", "subprocess.check_output"):
        return not limits
    return name == "os.waitpid" and "WNOHANG" not in ast.unparse(call)


def test_nothing_waits_for_ever() -> None:
    """Whatever waits for a thread, a process or a child has a limit, after which it fails."""
    found = {file: endless(tree) for file, tree in sources()}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "code",
    [
        "thread.join()",
        "self._process.wait()",
        "process.communicate()",
        "threading.Barrier(4)",
        "context.Barrier(len(racers))",
        "subprocess.run(['ls'], check=True)",
        "os.waitpid(child, 0)",
    ],
)
def test_a_wait_without_a_limit_is_found(code: str) -> None:
    """Each way to wait for ever is found, and is in order as soon as it has a limit."""
    limited = code.replace(", 0)", ", os.WNOHANG)").replace(")", ", timeout=5)").replace("(, ", "(")
    assert endless(ast.parse(code)) == [f"1: {code}"]
    assert endless(ast.parse(limited)) == []


def test_tests_use_what_is_public() -> None:
    """Besides a few pure functions and the databases' own tests no test knows our modules."""
    found = {
        (file, name)
        for file, tree in sources()
        if not file.startswith(("upstream/", "contract/test_storage_parts"))
        for node in ast.walk(tree)
        for name in _imported(node)
        if name.startswith("strands_persql.") and not name.startswith(PUBLIC)
    }
    assert {name.rpartition(".")[2] for _, name in found} <= UNITS, sorted(found)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_tests_patch_nothing_of_ours() -> None:
    """No test replaces an attribute of our modules or objects behind their backs."""
    found = [
        f"{file}:{node.lineno}"
        for file, tree in sources()
        if not file.startswith(("upstream/", "contract/test_storage_parts"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("monkeypatch.setattr")
        and not ast.unparse(node.args[0]).startswith(("'sys.", "RestClient"))
        and ".".join(ast.unparse(one).strip("'") for one in node.args[:2]) not in PATCHED
    ]
    assert found == []
