"""The reference is whole: each public name, option and command is described."""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

import strands_persql
from strands_persql import admin, testing
from strands_persql.cli.app import app

ROOT = Path(__file__).parents[2]
# What older versions of Strands have no use for; it is imported when it is asked for.
OF_STORAGES = [f"strands_persql.{name}" for name in strands_persql._OF_STORAGES]

# What these inherit is called by the library, or says what their pages say.
NOT_FOR_USERS = {
    "strands_persql.FullTextSearch",
    "strands_persql.testing.CountingDatabase",
    "strands_persql.testing.FaultyDatabase",
    "strands_persql.testing.InterceptingDatabase",
}


def public_objects() -> dict[str, object]:
    """Give all that is public, by the name that users import it under."""
    found: dict[str, object] = {}
    for module in (strands_persql, testing, admin):
        for name in module.__all__:
            found[f"{module.__name__}.{name}"] = getattr(module, name)
    if find_spec("strands.storage"):
        found |= {name: getattr(strands_persql, name.rpartition(".")[2]) for name in OF_STORAGES}
    return found


def test_every_public_name_is_in_the_reference() -> None:
    """Each public name has its place in the pages that are made from docstrings, once."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    listed = re.findall(
        r"^::: (\S+)$", "\n".join(page.read_text("utf-8") for page in pages), re.MULTILINE
    )

    assert sorted(listed) == sorted({*public_objects(), *OF_STORAGES})


def test_inherited_methods_are_on_the_pages() -> None:
    """What a class has from another one of ours is named with it, for its page to show it."""
    pages = "\n".join(
        page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")
    )
    shown = {
        name: set(members.split(", "))
        for name, members in re.findall(
            r"^::: (\S+)\n    options:\n      inherited_members: \[(.*)\]$", pages, re.MULTILINE
        )
    }
    assert shown == {
        name: names
        for name, thing in public_objects().items()
        if (names := inherited(thing)) and name not in NOT_FOR_USERS
    }


def inherited(thing: object) -> set[str]:
    """Give the public methods that a class has from another one that isn't public itself."""
    if not isinstance(thing, type):
        return set()
    return {
        part
        for cls in thing.__mro__[1:]
        if cls.__module__.startswith("strands_persql.") and cls not in public_objects().values()
        for part, value in vars(cls).items()
        if inspect.isfunction(value) and not part.startswith("_")
    }


def test_every_option_is_in_a_docstring() -> None:
    """Each argument that may be left out, of whatever is public, is described where it is taken."""
    assert [*undescribed()] == []


def undescribed() -> Iterator[str]:
    """Give the options without a description."""
    for name, thing in public_objects().items():
        if isinstance(thing, type) and not issubclass(thing, BaseException):
            described = f"{thing.__doc__}\n{thing.__init__.__doc__}"
            yield from missing(name, thing, described)
            parts = {
                part: method
                for cls in reversed(thing.__mro__)
                if cls.__module__.startswith("strands_persql.")
                for part, method in vars(cls).items()
            }
            for part, method in parts.items():
                function = getattr(method, "__func__", method)
                if inspect.isfunction(function) and not part.startswith("_"):
                    yield from missing(f"{name}.{part}", function, function.__doc__)
        elif inspect.isfunction(thing):
            yield from missing(name, thing, thing.__doc__)


def missing(name: str, called: Callable[..., object], described: str | None) -> Iterator[str]:
    """Give the options that a docstring doesn't describe."""
    try:
        parameters = inspect.signature(called).parameters.values()
    except ValueError:  # a class that says nothing of how it is made, such as an alias of Strands'
        return
    for one in parameters:
        is_option = one.default is not one.empty and not one.name.startswith("_")
        if is_option and not re.search(rf"^ *{one.name}: ", described or "", re.MULTILINE):
            yield f"{name}({one.name})"


def test_every_command_and_option_is_on_its_page() -> None:
    """The page of the command line has a row for each option of each command."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    commands: Any = typer.main.get_command(app)
    lacking = [
        f"{name} {option}"
        for name, command in commands.commands.items()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
        and not re.search(rf"^\| (`{name}`|every) \| `{option}`[,| ]", page, re.MULTILINE)
    ]

    assert lacking == []
    assert [name for name in commands.commands if f"`{name}`" not in page] == []


def test_the_site_has_every_page() -> None:
    """Each page is in the site's navigation, and has a line in llms.txt that says what it is."""
    folder = ROOT / "docs"
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.md"))
    navigation = re.findall(
        r"^ +- .*?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    index = (folder / "llms.txt").read_text(encoding="utf-8")

    assert sorted(navigation) == pages
    assert sorted(re.findall(r"^- \[[^]]+\]\((\S+)\): .+\.$", index, re.MULTILINE)) == pages
