"""The file of an embedded database: private when it is made, and known again later."""

import contextlib
import errno
import os
import re
import threading
from pathlib import Path
from typing import Any, TypeAlias

from strands_persql.errors import DatabaseOpenError
from strands_persql.runtime.text import one_line

MEMORY = ":memory:"
"""What is given instead of a path for a database in memory."""

# What SQLite takes, less what it appends for its log; beyond it says no more than "unable to open".
_MAX_PATH_BYTES = 504

_DAMAGED = ("malformed", "unsupported file format")

# What other programs take for a file; "./file:x" names a file of that name.
_URL = re.compile(r"(?i)sqlite[+\w]*:(///?)?|file:(//(?=/))?")

_Identity: TypeAlias = tuple[int, int] | None

_creation_lock = threading.Lock()


class DatabaseFile:
    """A database's file and those that SQLite keeps beside it.

    Args:
        given: The path, always a path and never a URI.

    Attributes:
        path: Where the file really is, links followed, for SQLite to open.

    Raises:
        DatabaseOpenError: If that can't be a path.
    """

    def __init__(self, given: str) -> None:
        self._given = given
        # An absolute path survives a change of folder, and is not a URI even to a SQLite that is
        # built to look for one.
        try:
            os.fsencode(given)
            self._link = str(Path(given).absolute())
            self.path = os.path.realpath(self._link)
        except (OSError, ValueError) as error:  # such as a lone surrogate, or links in a circle
            raise DatabaseOpenError(self.explain(error)) from None
        if not given or "\0" in given:
            raise DatabaseOpenError(
                f"cannot open the database {given!r}: that is not a path;"
                f' give the name of a file, or "{MEMORY}"'
            )
        if url := _URL.match(given):
            raise DatabaseOpenError(
                f"cannot open the database {given!r}: that is a URL; give the path alone, such as"
                f" {given[url.end() :].partition('?')[0] or 'agents.db'!r}"
            )
        self._opened: _Identity = None
        self._beside: dict[str, _Identity] = {}
        self._log_lost: str | None = None

    def prepare(self) -> None:
        """Make the file if it isn't there, for its owner only; once opened it must be the same.

        Raises:
            OSError: If it can't be made.
            DatabaseOpenError: If it was opened before, and has been removed or replaced since.
        """
        if self._opened is not None:
            self.check()
            return
        if os.name == "posix" and len(os.fsencode(self.path)) > _MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        # SQLite would create it for everyone to read, and gives the log's files the same mode.
        # Only a new file is opened here, by one at a time: to close any handle of a file drops
        # the locks that other connections of this process hold on it.
        with _creation_lock, contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._opened = _identity(self._link)

    def note(self) -> None:
        """Remember which files SQLite has opened, right after it did."""
        self.check()
        self._beside = {self.path + end: None for end in ("-wal", "-shm")}
        self.check_all()

    def check(self) -> None:
        """See that the path still leads to the file that was opened.

        Raises:
            DatabaseOpenError: If it doesn't.
        """
        if self._log_lost is not None:
            raise self._lost(self._log_lost)
        if _identity(self._link) != self._opened:
            raise self._lost(self._link)

    def check_all(self) -> None:
        """See the same of the log and its index too: what was written is in all of them.

        A lost log stays lost: what was written to it since is nowhere else.

        Raises:
            DatabaseOpenError: If one was removed or replaced.
        """
        self.check()
        for path, known in self._beside.items():
            found = _identity(path)
            if known is None:
                self._beside[path] = found
            elif found != known:
                self._log_lost = path
                raise self._lost(path)

    def _lost(self, path: str) -> DatabaseOpenError:
        return DatabaseOpenError(
            f"cannot go on with the database {self._given!r}: {path!r} was removed or replaced"
            " while it was in use, and what is written here wouldn't be found there."
            " Put the file back, or make a new LocalDatabase to go on with what is there now",
            kind="file_replaced",
        )

    def explain(self, error: Exception) -> str:
        """Return why the file can't be opened, and what to do."""
        shown = one_line(repr(self._given))
        return f"cannot open the database {shown}: {self._reason(error)}"

    def _reason(self, error: Exception) -> str:
        path, said = getattr(self, "path", self._given), str(error)
        folder = os.path.dirname(path)  # noqa: PTH120 - a Path raises for some of these
        too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        detail = error.strerror if isinstance(error, OSError) else said
        reasons = (
            (isinstance(error, ValueError), "that is not a path; give the name of a file"),
            (too_long, "the path is too long; give a shorter one"),
            (os.path.isdir(path), "it is a folder; give the name of a file"),  # noqa: PTH112
            (
                not os.path.isdir(folder),  # noqa: PTH112
                f"there is no folder {folder!r}; create it first",
            ),
            (
                "not a database" in said,
                "the file is there, but is not a SQLite database; give another path",
            ),
            (
                any(word in said for word in _DAMAGED),
                "the file is damaged; restore it from a backup",
            ),
            (True, f"{detail}; the file and its folder must be readable and writable by this user"),
        )
        return next(reason for holds, reason in reasons if holds)


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path would take as long again
    except OSError:
        return None
    return found.st_dev, found.st_ino


def text_of_path(path: Any) -> str:
    """Return the name of a file as text.

    Raises:
        ValueError: If it is neither text nor a `Path`.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ValueError(  # noqa: TRY004 - as for every other option that was not set
            f"path must be the name of a file or {MEMORY!r}, not {path!r}"
        )
    return text
