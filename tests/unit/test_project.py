"""The files around the code agree with each other: versions, workflows, the catalogue's entries."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ENTRIES = sorted((ROOT / "docs" / "catalogue").glob("*.yaml"))


def read(path: str) -> str:
    """Return the text of one of the project's files."""
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    """Each action that a workflow uses is one of this repository's, or pinned by a whole hash."""
    used = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))

    assert used
    assert [
        action
        for action in used
        if not re.fullmatch(r"\./\S+|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    ] == []


def test_one_version_of_an_action_is_used() -> None:
    """No two workflows use different commits of one action."""
    used = re.findall(r"uses: (\w\S+)@", "\n".join(map(Path.read_text, WORKFLOWS)))
    commits = set(re.findall(r"uses: (\w\S+@\S+)", "\n".join(map(Path.read_text, WORKFLOWS))))

    assert len(set(used)) == len(commits)


def test_every_supported_python_is_tested() -> None:
    """CI runs both ends of Strands on each Python that the package says it supports."""
    supported = re.findall(r'Python :: (3\.\d+)"', read("pyproject.toml"))
    tested = re.findall(r"^ +python: \[(.*)\]$", read(".github/workflows/ci.yml"), re.MULTILINE)

    assert tested == [", ".join(f'"{version}"' for version in supported)] * 2


def test_the_lowest_versions_are_tested() -> None:
    """What `make oldest` installs is the lowest that the package asks for, of each dependency."""
    listed = re.search(
        r"^dependencies = \[\n(.*?)^\]", read("pyproject.toml"), re.MULTILINE | re.DOTALL
    )
    assert listed
    lowest = {}
    for text in re.findall(r'"(.*)"', listed[1]):
        needed = Requirement(text)
        floor = next(one.version for one in needed.specifier if one.operator == ">=")
        lowest[needed.name] = Version(floor)
    del lowest["typing-extensions"]  # Strands and pydantic ask for newer ones
    pins = re.search(r"^OLDEST := (.*)$", read("Makefile"), re.MULTILINE)
    assert pins
    pinned = dict(pin.split("==") for pin in pins[1].split())

    assert {name: Version(version) for name, version in pinned.items()} == lowest


def test_what_is_imported_is_declared() -> None:
    """Each package that the library imports is one that it asks for, not one that others bring."""
    text = read("pyproject.toml")
    listed = re.findall(r"^(?:dependencies|persql|cli) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    declared = {Requirement(one).name for part in listed for one in re.findall(r'"(.*?)"', part)}
    names = {
        "strands": "strands-agents",
        "opentelemetry": "opentelemetry-api",
        "markdown_it": "markdown-it-py",
    }
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _imported(node)
    } - {"strands_persql", "certifi", *sys.stdlib_module_names}  # certifi: only where it is there

    assert "strands" in imported
    assert {names.get(one, one.replace("_", "-")) for one in imported} <= declared


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.stem)
def test_entries_of_the_catalogue_are_valid(entry: Path) -> None:
    """An entry for Strands' catalogue has the fields that it must have, and no other."""
    fields = dict(
        line.split(":", 1) for line in entry.read_text("utf-8").splitlines() if line[0] != " "
    )

    assert set(fields) == {
        *("name", "description", "integrationType", "languages"),
        *("github", "docsUrl", "addedDate"),
    }
    assert fields["name"].strip() == entry.stem
    assert fields["integrationType"].strip() in ("session-manager", "storage")
    assert fields["github"].strip().startswith("https://github.com/")
    assert "\n  python:\n    package: strands-persql\n" in entry.read_text("utf-8")


def prepare(folder: Path) -> None:
    """Copy what is looked at before a release, in a state that is ready."""
    for name in (".ci/release-ready", "docs/catalogue"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / ".ci" / "release-ready", folder / ".ci")
    shutil.copytree(ROOT / "docs" / "catalogue", folder / "docs" / "catalogue")
    for entry in (folder / "docs" / "catalogue").iterdir():
        entry.write_text(entry.read_text("utf-8").replace("OWNER/", "acme/"), "utf-8")
    package = folder / "src" / "strands_persql"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n', "utf-8")
    (folder / "pyproject.toml").write_text(
        read("pyproject.toml").replace("OWNER/", "acme/"), "utf-8"
    )
    (folder / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\nNothing yet.\n\n## 1.2.3 - 2026-01-31\n\n- A line.\n",
        "utf-8",
    )


def release(folder: Path, tag: str = "v1.2.3") -> tuple[int, str]:
    """Ask whether a tag can be released."""
    done = subprocess.run(
        [folder / ".ci" / "release-ready", tag],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_tree_that_is_ready_can_be_released(tmp_path: Path) -> None:
    """With a tag of its version and a changelog in order a tree can be released."""
    prepare(tmp_path)

    assert release(tmp_path) == (0, "v1.2.3 is ready\n")


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        ("src/strands_persql/__init__.py", "1.2.3", "1.2.4", "__init__.py says 1.2.4"),
        ("CHANGELOG.md", "2026-01-31", "not yet released", "CHANGELOG.md has no heading"),
        ("CHANGELOG.md", "Nothing yet.", "- A line.", "still has lines under Unreleased"),
        ("pyproject.toml", "acme/", "OWNER/", "pyproject.toml has the placeholder"),
        ("docs/catalogue/strands-persql.yaml", "acme/", "OWNER/", "catalogue has the placeholder"),
    ],
)
def test_what_is_missing_for_a_release_is_named(
    tmp_path: Path, path: str, old: str, new: str, problem: str
) -> None:
    """A tree that isn't ready is refused, and what is missing is said."""
    prepare(tmp_path)
    file = tmp_path / path
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")

    code, said = release(tmp_path)

    assert code == 1
    assert problem in said
