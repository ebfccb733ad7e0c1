"""Where commands print: terminals, pipes and pagers; JSON, questions, progress and errors."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from strands_persql.admin import CheckProgress, Sweep
from strands_persql.admin import Progress as Moved
from strands_persql.cli.connection import WrongUsageError
from strands_persql.cli.wording import as_json, counted, one_line, printable

FAILED, USAGE, NOT_FOUND, FOUND_DAMAGE, EXISTS = 1, 2, 3, 4, 5
"""Exit codes; 0 is success, and 130 an interrupt from the keyboard."""


class Output:
    """What a command prints, and to whom.

    Args:
        json: Whether to print one JSON document instead of text.
        yes: Whether questions are answered already.
    """

    def __init__(self, *, json: bool = False, yes: bool = False) -> None:
        """Look where the output goes."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        self.json, self._yes = json, yes
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    def document(self, value: Any) -> None:
        """Print the JSON document of a command."""
        sys.stdout.write(f"{as_json(value)}\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something that isn't a part of the output."""
        if not self.json:
            self.errors.print(Text(text), soft_wrap=True)

    def confirm(self, question: str) -> None:
        """Ask before something is destroyed.

        Raises:
            typer.Exit: If the answer is no, or nobody can be asked.
        """
        if self._yes:
            return
        if not sys.stdin.isatty() or self.json:
            text = f"{question} Nobody can be asked here: give --yes."
            if self.json:
                raise self.fail(WrongUsageError(text), USAGE)
            self.errors.print(Text(text), soft_wrap=True)
            raise typer.Exit(USAGE)
        if not typer.confirm(question, err=True):
            self.errors.print("Nothing was changed.")
            raise typer.Exit(FAILED)

    def say(self, text: str) -> None:
        """Print a sentence, however long, as one line."""
        self.console.print(Text(text), soft_wrap=True)

    @contextlib.contextmanager
    def pages(self) -> Iterator[Console]:
        """Print through a pager where the output is a terminal, and as it comes elsewhere."""
        command = _pager()
        if command is None or not self.console.is_terminal:
            yield self.console
            return
        # As git does: end where it fits the screen, keep colors, leave the text behind.
        environment = {"LESS": "FRX", **os.environ}
        pager = subprocess.Popen(  # noqa: S602 - the user's own setting, as other programs use it
            command, shell=True, stdin=subprocess.PIPE, text=True, env=environment
        )
        assert pager.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                yield _Console(
                    file=pager.stdin,
                    force_terminal=True,
                    width=self.console.width,
                    no_color=self.console.no_color,
                    highlight=False,
                    markup=False,
                )
        finally:
            with contextlib.suppress(BrokenPipeError):
                pager.stdin.close()
            pager.wait()

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[Any], None] | None]:
        """Show how far a long command is, where a person looks on."""
        if self.json or not self.errors.is_terminal:
            yield None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
        with Progress(*columns, TimeElapsedColumn(), console=self.errors, transient=True) as bar:
            task = bar.add_task(what, total=None)

            def tell(how_far: Any) -> None:
                words, fraction = _how_far(how_far)
                bar.update(
                    task,
                    description=f"{what}: {words}",
                    total=None if fraction is None else 1.0,
                    completed=fraction or 0.0,
                )

            yield tell

    def discard(self) -> None:
        """Print nothing more, for nobody reads it: not even what Python still holds."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def fail(self, error: BaseException, code: int) -> typer.Exit:
        """Print an error, and return what ends the command."""
        if self.json:
            self.document({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            text = printable(f"error: {error}")
            self.errors.print(Text(text, style="red"), soft_wrap=True)
        return typer.Exit(code)


def _console(stream: IO[str]) -> Console:
    return _Console(file=stream, highlight=False, markup=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command, which may have more to do than to print."""
        raise BrokenPipeError


def _pager() -> str | None:
    wanted = os.environ.get("PAGER")
    if wanted is not None:
        return wanted if wanted and wanted != "cat" else None
    return next((one for one in ("less", "more") if shutil.which(one)), None)


def _how_far(how_far: Any) -> tuple[str, float | None]:
    if isinstance(how_far, Moved):
        words = f"{counted(how_far.sessions, 'session')}, {counted(how_far.messages, 'message')}"
        return words, how_far.fraction
    if isinstance(how_far, CheckProgress):
        return f"{one_line(how_far.session_id, 24)}, {counted(how_far.messages, 'message')}", None
    if isinstance(how_far, Sweep):
        return f"{counted(how_far.sessions, 'session')} of {how_far.looked_at} removed", None
    return counted(int(how_far), "session"), None
