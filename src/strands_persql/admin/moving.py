"""Moving sessions out of a database and into it, as a part of what their keeper does."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, TypeAlias

from strands_persql.admin.access import Access
from strands_persql.admin.archive import ArchiveFile, ArchiveSink, ArchiveSource
from strands_persql.admin.directory import DirectorySource
from strands_persql.admin.folders import DirectorySink
from strands_persql.admin.lines import Existing, OnProgress, TransferReport, transfer
from strands_persql.admin.reading import DatabaseSource
from strands_persql.admin.storing import DatabaseSink
from strands_persql.errors import NotFoundError

FilePath: TypeAlias = str | os.PathLike[str]


class MovesSessions:
    """What `SessionAdmin` does with archives, folders and other databases."""

    @property
    def _access(self) -> Access:
        raise NotImplementedError

    # -- moving out ----------------------------------------------------------------------------

    def export_archive(
        self,
        target: FilePath | BinaryIO,
        session_ids: Collection[str] | None = None,
        *,
        starts_with: str = "",
        overwrite: bool = False,
        resume: bool = False,
        progress: OnProgress | None = None,
    ) -> TransferReport:
        """Write sessions to an archive of JSON Lines, whatever is in their rows.

        Each session is written as it was at one moment. A file has its name once it is complete.

        Args:
            target: The archive's name, or where to write, in binary.
            session_ids: Which sessions, or None for all.
            starts_with: What their ids begin with, where all are asked for.
            overwrite: Whether to replace a file of this name.
            resume: Whether to go on with what an interrupted export has left.
            progress: Called from time to time.

        Raises:
            AlreadyExistsError: If there is such a file, or an interrupted export of it.
            NotFoundError: If a session isn't there.
        """
        wanted = None if session_ids is None else set(session_ids)
        if not isinstance(target, str | os.PathLike):
            source = DatabaseSource(self._access, wanted, starts_with=starts_with)
            return transfer(source, ArchiveSink(target), progress)
        file = ArchiveFile(Path(target), overwrite=overwrite, resume=resume)
        with contextlib.closing(file):
            if wanted is not None:
                wanted = {one for one in wanted if one > file.after}
            source = DatabaseSource(self._access, wanted, starts_with=starts_with, after=file.after)
            report = transfer(source, file.sink, progress)
            file.complete()
        return report

    def export_directory(
        self,
        target: FilePath,
        session_ids: Collection[str] | None = None,
        *,
        starts_with: str = "",
        existing: Existing = "refuse",
        progress: OnProgress | None = None,
    ) -> TransferReport:
        """Write sessions to a folder, from where Strands' ``FileSessionManager`` restores them.

        The layout is that of ``S3SessionManager`` too: copied to a bucket, it is read there.

        Args:
            target: The folder.
            session_ids: Which sessions, or None for all.
            starts_with: What their ids begin with, where all are asked for.
            existing: What becomes of a session that is there already and isn't the same:
                ``"refuse"`` raises, ``"skip"`` leaves it, ``"replace"`` replaces it.
            progress: Called from time to time.

        Raises:
            AlreadyExistsError: If a session is there already and isn't the same.
            InvalidDataError: If a row can't be read, or has no agent.
            NotFoundError: If a session isn't there.
        """
        source = DatabaseSource(self._access, session_ids, starts_with=starts_with)
        return transfer(source, DirectorySink(Path(target), existing), progress)

    # -- moving in -----------------------------------------------------------------------------

    def import_archive(
        self,
        source: FilePath | BinaryIO,
        *,
        existing: Existing = "refuse",
        progress: OnProgress | None = None,
    ) -> TransferReport:
        """Store the sessions of an archive, each whole and checked, or not at all.

        Repeating it is safe, so an import that was interrupted is simply run again: a session
        that is there already, and the same, is left as it is.

        Args:
            source: The archive's name, or what to read, in binary.
            existing: What becomes of a session whose id is taken by another one: ``"refuse"``
                raises, ``"skip"`` leaves what is there, ``"replace"`` replaces it.
            progress: Called from time to time.

        Raises:
            AlreadyExistsError: If an id is taken; the sessions before it are stored.
            InvalidDataError: If the archive is cut short, was changed, or isn't one.
            NotFoundError: If there is no such file.
        """
        with contextlib.ExitStack() as stack:
            if isinstance(source, str | os.PathLike):
                path = Path(source)
                if not path.is_file():
                    raise NotFoundError(f"{path} isn't there, or isn't a file")
                file: BinaryIO = stack.enter_context(path.open("rb"))
                archive = ArchiveSource(file, str(path), path.stat().st_size)
            else:
                archive = ArchiveSource(source, getattr(source, "name", "the archive"))
            return transfer(archive, DatabaseSink(self._access, existing), progress)

    def import_directory(
        self,
        source: FilePath,
        session_ids: Collection[str] | None = None,
        *,
        existing: Existing = "refuse",
        progress: OnProgress | None = None,
    ) -> TransferReport:
        """Store the sessions of a folder of ``FileSessionManager``, or of a bucket on disk.

        Args:
            source: The folder that holds the sessions, or one session's.
            session_ids: Which sessions, or None for all.
            existing: As for `import_archive`.
            progress: Called from time to time.

        Raises:
            AlreadyExistsError: If an id is taken; the sessions before it are stored.
            InvalidDataError: If a file can't be read.
            NotFoundError: If the folder or a session isn't there.
        """
        files = DirectorySource(Path(source), session_ids)
        return transfer(files, DatabaseSink(self._access, existing), progress)

    def copy_from(
        self,
        source: "MovesSessions",
        session_ids: Collection[str] | None = None,
        *,
        starts_with: str = "",
        existing: Existing = "refuse",
        progress: OnProgress | None = None,
    ) -> TransferReport:
        """Store the sessions of another database, or of tables of another prefix.

        Args:
            source: The other one; its tables may be those of strands-persql 0.1.
            session_ids: Which sessions, or None for all.
            starts_with: What their ids begin with, where all are asked for.
            existing: As for `import_archive`.
            progress: Called from time to time.

        Raises:
            AlreadyExistsError: If an id is taken; the sessions before it are stored.
            NotFoundError: If a session isn't there.
        """
        rows = DatabaseSource(source._access, session_ids, starts_with=starts_with)  # noqa: SLF001
        return transfer(rows, DatabaseSink(self._access, existing), progress)
