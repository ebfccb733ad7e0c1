"""The embedded database: durable, private, shared by threads, processes and forks."""

import gc
import multiprocessing
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from strands_persql.databases.local import LocalDatabase
from strands_persql.databases.protocol import Statement, Value
from strands_persql.errors import DatabaseOpenError
from tests.support.racing import exit_status

INSERT = "INSERT INTO t (a) VALUES (?)"
COUNT = "SELECT count(*) AS n FROM t"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# From Python 3.12 on, a fork beside threads is warned of; tests and their timeout have threads.
fork_warning = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, path: Path) -> Iterator[LocalDatabase]:
    with LocalDatabase(path if request.param == "file" else ":memory:") as opened:
        opened.query("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)")
        yield opened


@pytest.fixture
def on_file(path: Path) -> Iterator[LocalDatabase]:
    with LocalDatabase(path) as opened:
        opened.query("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)")
        yield opened


def count(database: LocalDatabase) -> int:
    n: int = database.query(COUNT)["data"][0]["n"]
    return n


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def in_child(work: Callable[[], object]) -> str:
    """Run `work` in a fork; give "ok", or the error that it ended with."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
            os.write(writer, b"ok")
        except BaseException as error:  # noqa: BLE001 - the parent hears of it
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    exit_status(pid)
    return said


class TestResults:
    def test_a_query_gives_rows_by_column_name(self, database: LocalDatabase) -> None:
        """A row is a dict by column name, beside the columns in their order."""
        result = database.query("SELECT ? AS x, 'b' AS y", [1])

        assert result["data"] == [{"x": 1, "y": "b"}]
        assert result["columns"] == ["x", "y"]
        assert result["rows_read"] is None

    @pytest.mark.parametrize(
        ("sql", "written"),
        [
            ("INSERT INTO t (a) VALUES (7), (8)", 2),
            ("INSERT INTO t (a) VALUES (7), (8) RETURNING id", 2),
            ("UPDATE t SET a = 9 WHERE a = 1 RETURNING a", 1),
            ("UPDATE t SET a = 9 WHERE a = 5", 0),
            ("DELETE FROM t", 1),
            ("SELECT * FROM t", 0),
            ("CREATE TABLE u (x)", 0),
        ],
    )
    def test_rows_written_are_counted(
        self, database: LocalDatabase, sql: str, written: int
    ) -> None:
        """rows_written counts the rows that the statement changed, with RETURNING too."""
        database.query(INSERT, [1])

        assert database.query(sql)["rows_written"] == written

    def test_returned_rows_come_back(self, database: LocalDatabase) -> None:
        """RETURNING gives its rows, and they are committed."""
        result = database.query("INSERT INTO t (a) VALUES (1), (2) RETURNING a")

        assert result["data"] == [{"a": 1}, {"a": 2}]
        assert count(database) == 2

    def test_a_batch_gives_a_result_a_statement(self, database: LocalDatabase) -> None:
        """A batch answers each statement in its order, parameters left out or not."""
        inserted, counted = database.batch(
            [{"sql": INSERT, "params": [1]}, {"sql": COUNT}], transaction=True
        )

        assert inserted["rows_written"] == 1
        assert counted["data"] == [{"n": 1}]

    def test_an_empty_batch_gives_nothing(self, database: LocalDatabase) -> None:
        """No statements, no results."""
        assert database.batch([], transaction=True) == []


class TestTransactions:
    def test_a_failure_takes_all_back(self, database: LocalDatabase) -> None:
        """Of a transactional batch that fails nothing stays, and the next one works."""
        twice: list[Statement] = [{"sql": INSERT, "params": [1]}] * 2

        with pytest.raises(sqlite3.IntegrityError):
            database.batch(twice, transaction=True)

        assert count(database) == 0
        database.batch([{"sql": INSERT, "params": [1]}], transaction=True)
        assert count(database) == 1

    def test_without_a_transaction_each_stands_alone(self, database: LocalDatabase) -> None:
        """Statements before the one that fails stay, those after it don't run."""
        with pytest.raises(sqlite3.IntegrityError):
            database.batch([{"sql": INSERT, "params": [n]} for n in (1, 1, 2)])

        assert count(database) == 1

    @pytest.mark.parametrize(
        "sql", ["BEGIN", "commit", " -- why\nROLLBACK", "/* x */ SAVEPOINT s", "END", "RELEASE s"]
    )
    def test_sql_opens_no_transaction(self, database: LocalDatabase, sql: str) -> None:
        """A statement that opens or ends a transaction is refused, as the hosted one does it."""
        with pytest.raises(ValueError, match="batch"):
            database.query(sql)

    def test_a_read_does_not_wait_for_a_writer(self, on_file: LocalDatabase, path: Path) -> None:
        """A transaction of reads goes on while another process holds the write lock."""
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")

        assert on_file.batch([{"sql": COUNT}], transaction=True)[0]["data"] == [{"n": 0}]
        writer.close()

    @pytest.mark.parametrize("first", ["", "WITH x AS (SELECT 1) "])
    def test_read_then_write_is_a_write_from_the_start(
        self, on_file: LocalDatabase, path: Path, first: str
    ) -> None:
        """Transactions that read before they write wait for each other; none is refused."""
        add = f"{first}INSERT INTO t (a) SELECT coalesce(max(a), 0) + 1 FROM t"
        with LocalDatabase(path) as other, ThreadPoolExecutor(2) as pool:
            batches = [
                pool.submit(each.batch, [{"sql": COUNT}, {"sql": add}], transaction=True)
                for _ in range(25)
                for each in (on_file, other)
            ]
            for each in batches:
                each.result()

        assert on_file.query("SELECT max(a) AS n FROM t")["data"] == [{"n": 50}]

    def test_a_rollback_that_fails_closes_the_file(self, on_file: LocalDatabase) -> None:
        """What can't be rolled back is dropped with its connection; the next call opens another."""

        class Stuck:
            def __init__(self, connection: sqlite3.Connection) -> None:
                self.connection = connection

            def __getattr__(self, name: str) -> object:
                return getattr(self.connection, name)

            def execute(self, sql: str, params: tuple[Value, ...] = ()) -> sqlite3.Cursor:
                if sql == "ROLLBACK":
                    raise sqlite3.OperationalError("disk I/O error")
                return self.connection.execute(sql, params)

        assert on_file._connection is not None
        on_file._connection = cast("sqlite3.Connection", Stuck(on_file._connection))
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            on_file.batch(
                [{"sql": INSERT, "params": [1]}, {"sql": "SELECT nowhere"}], transaction=True
            )

        assert count(on_file) == 0


class TestLimits:
    def test_a_batch_has_a_hundred_statements(self, database: LocalDatabase) -> None:
        """A hundred statements pass, one more is refused before anything runs."""
        statements: list[Statement] = [{"sql": INSERT, "params": [n]} for n in range(101)]

        with pytest.raises(ValueError, match="at most 100 statements, not 101"):
            database.batch(statements)
        assert count(database) == 0
        assert len(database.batch(statements[:100])) == 100

    def test_a_statement_has_a_hundred_parameters(self, database: LocalDatabase) -> None:
        """A hundred parameters pass, one more is refused before anything runs."""
        marks = ", ".join("?" * 101)

        with pytest.raises(ValueError, match="at most 100 parameters, not 101"):
            database.batch(
                [{"sql": INSERT, "params": [1]}, {"sql": f"SELECT {marks}", "params": [0] * 101}]
            )
        assert count(database) == 0
        assert len(database.query(f"SELECT {marks[3:]}", [0] * 100)["columns"]) == 100

    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800"])
    def test_values_have_their_bounds(self, database: LocalDatabase, value: Any) -> None:
        """What SQLite can't hold is refused as a value, not as an accident."""
        with pytest.raises(ValueError, match=r"64 bits|lone surrogate"):
            database.query("SELECT ?", [value])


class TestFiles:
    @needs_modes
    def test_a_new_file_is_its_owners(self, on_file: LocalDatabase, path: Path) -> None:
        """The file, its log and the log's index are readable and writable by the owner alone."""
        count(on_file)

        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == dict.fromkeys(("agents.db", "agents.db-wal", "agents.db-shm"), 0o600)

    @needs_modes
    def test_a_file_that_is_there_keeps_its_mode(self, path: Path) -> None:
        """Opening a file leaves its mode as its owner set it."""
        path.touch()
        path.chmod(0o640)

        LocalDatabase(path).close()

        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_commits_are_durable(self, on_file: LocalDatabase) -> None:
        """Files use a write-ahead log that is synced in full at every commit."""
        assert on_file.query("PRAGMA journal_mode")["data"] == [{"journal_mode": "wal"}]
        assert on_file.query("PRAGMA synchronous")["data"] == [{"synchronous": 2}]

    @pytest.mark.guarantee(number=1)
    def test_it_is_there_after_a_kill(self, path: Path) -> None:
        """What a call wrote survives the end of its process without a close."""
        code = (
            "import os, sys; from strands_persql.databases.local import LocalDatabase\n"
            "d = LocalDatabase(sys.argv[1]); d.query('CREATE TABLE t (a)')\n"
            "d.query('INSERT INTO t VALUES (1)'); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)

        with LocalDatabase(path) as database:
            assert count(database) == 1

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///agents.db", "agents.db"),
            ("sqlite:////var/agents.db", "/var/agents.db"),
            ("sqlite+aiosqlite:///agents.db", "agents.db"),
            ("sqlite:///:memory:", ":memory:"),
            ("sqlite://", "agents.db"),
            ("file:agents.db?mode=ro", "agents.db"),
            ("file:///var/agents.db", "/var/agents.db"),
        ],
    )
    def test_a_url_is_refused_with_its_path(
        self, url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A URL makes no file of that name; the error says what to give instead."""
        monkeypatch.chdir(tmp_path)

        with pytest.raises(DatabaseOpenError, match="is a URL; give the path alone") as caught:
            LocalDatabase(url)

        assert str(caught.value).endswith(f"such as {path!r}")
        assert [*tmp_path.iterdir()] == []

    def test_a_path_is_never_a_uri(self, tmp_path: Path) -> None:
        """A file may have a name that looks like a URI, where it is given with its folder."""
        LocalDatabase(tmp_path / "file:x.db?mode=memory").close()

        assert [each.name for each in tmp_path.iterdir()] == ["file:x.db?mode=memory"]

    def test_repr_shows_the_path(self, path: Path) -> None:
        """The repr says which database it is."""
        with LocalDatabase(path) as on_file, LocalDatabase() as in_memory:
            assert repr(on_file) == f"LocalDatabase({str(path)!r})"
            assert repr(in_memory) == "LocalDatabase(':memory:')"

    def test_in_memory_each_is_its_own(self) -> None:
        """Two databases in memory share nothing."""
        with LocalDatabase() as one, LocalDatabase() as other:
            one.query("CREATE TABLE t (a)")

            assert other.query("SELECT name FROM sqlite_master")["data"] == []

    @needs_modes
    def test_a_file_made_through_a_link_is_its_owners(self, tmp_path: Path) -> None:
        """Through a link that leads nowhere yet, the file and its log are their owner's alone."""
        (tmp_path / "real").mkdir()
        link = tmp_path / "agents.db"
        link.symlink_to(tmp_path / "real" / "data.db")

        with LocalDatabase(link) as database:
            database.query("CREATE TABLE t (a)")
            files = {each.name: each.stat() for each in (tmp_path / "real").iterdir()}

        assert files.keys() == {"data.db", "data.db-wal", "data.db-shm"}
        assert {stat.S_IMODE(each.st_mode) for each in files.values()} == {0o600}

    def test_commits_may_leave_syncing_to_checkpoints(self, path: Path) -> None:
        """With ``synchronous="normal"`` the log is synced at checkpoints, not at each commit."""
        with LocalDatabase(path, synchronous="normal") as database:
            assert database.query("PRAGMA synchronous")["data"] == [{"synchronous": 1}]

    def test_what_a_schema_calls_is_not_trusted(self, on_file: LocalDatabase) -> None:
        """Functions that could do harm are refused where a view or trigger of a file calls them."""
        assert on_file.query("PRAGMA trusted_schema")["data"] == [{"trusted_schema": 0}]

    def test_text_that_is_not_utf_8_comes_as_bytes(self, database: LocalDatabase) -> None:
        """Stored text that can't be decoded spoils its own row, not the others."""
        database.query("INSERT INTO t (a) VALUES (CAST(X'636166E9' AS TEXT)), ('café')")

        rows = database.query("SELECT a FROM t ORDER BY id")["data"]
        assert rows == [{"a": b"caf\xe9"}, {"a": "café"}]


class TestGoneFiles:
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in their place")
    @pytest.mark.parametrize("gone", ["agents.db", "agents.db-wal", "agents.db-shm"])
    @pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
    def test_the_next_write_raises(
        self, on_file: LocalDatabase, path: Path, gone: str, how: str
    ) -> None:
        """Where the file or its log was taken away, no write is acknowledged from then on."""
        on_file.query(INSERT, [1])
        victim = path.with_name(gone)
        if how == "replaced":
            other = path.with_name("other")
            other.write_bytes(victim.read_bytes())
            other.replace(victim)
        elif how == "moved":
            victim.rename(path.with_name("moved"))
        else:
            victim.unlink()

        for _ in range(2):
            with pytest.raises(DatabaseOpenError, match=r"was removed or replaced") as caught:
                on_file.batch([{"sql": INSERT, "params": [2]}], transaction=True)
        assert caught.value.kind == "file_replaced"
        assert str(victim) in str(caught.value)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in their place")
    def test_reads_and_purges_raise_too(self, on_file: LocalDatabase, path: Path) -> None:
        """What would be read is not what others find, and there is nothing to purge."""
        path.unlink()

        calls: list[Callable[[], object]] = [
            lambda: count(on_file),
            on_file.checkpoint,
            on_file.purge,
        ]
        for call in calls:
            with pytest.raises(DatabaseOpenError, match="was removed or replaced"):
                call()

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in their place")
    def test_a_file_put_back_is_gone_on_with(self, on_file: LocalDatabase, path: Path) -> None:
        """A file that was moved away for a moment works again when it is back."""
        away = path.rename(path.with_name("away"))
        with pytest.raises(DatabaseOpenError):
            on_file.query(INSERT, [1])
        away.rename(path)

        on_file.query(INSERT, [1])
        with LocalDatabase(path) as other:
            assert count(other) == 1

    @needs_fork
    @fork_warning
    def test_a_fork_opens_no_other_file(self, on_file: LocalDatabase, path: Path) -> None:
        """A child opens the file anew, but neither makes one nor takes another's."""

        def child() -> None:
            path.unlink()
            on_file.query(INSERT, [1])

        assert in_child(child).startswith("DatabaseOpenError")
        assert not path.exists()


class TestDamagedFiles:
    def test_flipped_bytes_are_errors_that_say_so(self, path: Path) -> None:
        """Of 150 files with damage, each opens, fails to open in words, or is SQLite's error."""
        with LocalDatabase(path) as database:
            database.query("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, é TEXT)")
            for number in range(0, 400, 100):
                database.batch(
                    [
                        {"sql": INSERT, "params": [f"{n} {'x' * n}"]}
                        for n in range(number, number + 100)
                    ],
                    transaction=True,
                )
        whole, draw = path.read_bytes(), Random(3)  # noqa: S311 - damage, not secrets
        ends = {flipped(path.with_name("damaged.db"), whole, draw) for _ in range(150)}

        assert ends == {"sound", "DatabaseOpenError", "DatabaseError"}

    def test_a_damaged_schema_is_named_as_damage(self, path: Path) -> None:
        """A schema whose text is no UTF-8 says that the file is damaged, not how Python failed."""
        with LocalDatabase(path) as database:
            database.query("CREATE TABLE t (a, bcd)")
        path.write_bytes(path.read_bytes().replace(b"a, bcd)", b"a, \xff\xfe, "))

        with pytest.raises(DatabaseOpenError, match="the file is damaged; restore it"):
            LocalDatabase(path)

    def test_a_damaged_name_is_named_as_damage(self, path: Path) -> None:
        """A column whose name is no UTF-8 is an error of SQLite's kind."""
        with LocalDatabase(path) as database:
            database.query("CREATE TABLE t (a, bcd)")
            database.query("INSERT INTO t VALUES (1, 2)")
        path.write_bytes(path.read_bytes().replace(b"a, bcd)", b"a, \xff\xfed)"))

        with LocalDatabase(path) as database, pytest.raises(sqlite3.DatabaseError, match="UTF-8"):
            database.query("SELECT * FROM t")


def flipped(path: Path, whole: bytes, draw: Random) -> str:
    """Write a file with some bytes changed, use it, and give what came of it."""
    damaged = bytearray(whole)
    for _ in range(draw.choice([1, 3, 20])):
        damaged[draw.randrange(draw.choice([200, len(damaged)]))] = draw.randrange(256)
    path.write_bytes(damaged)
    try:
        with LocalDatabase(path) as database:
            database.query("SELECT * FROM t")
            database.query("UPDATE t SET a = a || 'x'")
            database.query("DELETE FROM t WHERE id > 3")
            database.purge()
    except (DatabaseOpenError, sqlite3.Error) as error:
        kinds = (DatabaseOpenError, sqlite3.DatabaseError)
        return next(kind.__name__ for kind in kinds if isinstance(error, kind))
    finally:
        for each in path.parent.glob("damaged.db*"):
            each.unlink()
    return "sound"


class TestErasing:
    def test_deleted_and_replaced_text_is_gone(self, on_file: LocalDatabase, path: Path) -> None:
        """After a checkpoint neither the file nor its log has what was deleted or replaced."""
        on_file.query(INSERT, ["s3cret one"])
        on_file.query(INSERT, [f"s3cret two {'x' * 20_000}"])
        on_file.query("UPDATE t SET a = 'redacted' WHERE id = 1")
        on_file.query("DELETE FROM t WHERE id = 2")
        assert b"s3cret" in contents(path)

        assert on_file.checkpoint()

        assert b"s3cret" not in contents(path)
        assert b"redacted" in contents(path)

    def test_a_purge_removes_moved_copies_too(self, on_file: LocalDatabase, path: Path) -> None:
        """SQLite leaves copies of rows that it moves between pages; a purge leaves none."""
        on_file.query(
            "CREATE TABLE m (s TEXT, i INTEGER, a TEXT, PRIMARY KEY (s, i)) WITHOUT ROWID"
        )
        draw = Random(1)  # noqa: S311 - an order, not secrets
        for number in range(1500):
            row: list[Value] = [
                f"u{draw.randrange(30)}",
                number,
                f"<{number}>{'x' * draw.choice([50, 300, 700])}",
            ]
            on_file.query("INSERT INTO m VALUES (?, ?, ?)", row)
        on_file.query("DELETE FROM m WHERE i % 3")
        on_file.checkpoint()
        moved = leftovers(path)

        assert on_file.purge()

        assert leftovers(path) == 0 < moved

    def test_a_reader_elsewhere_is_waited_for_and_told_of(
        self, on_file: LocalDatabase, path: Path
    ) -> None:
        """While another process still reads the old state the log can't be emptied: False."""
        with LocalDatabase(path, busy_timeout=0.05) as impatient:
            on_file.query(INSERT, ["s3cret"])
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute(COUNT).fetchall()
            on_file.query("DELETE FROM t")

            assert not impatient.checkpoint()
            reader.close()
            assert impatient.checkpoint()
        assert b"s3cret" not in contents(path)

    def test_a_writer_elsewhere_is_waited_for_and_told_of(
        self, on_file: LocalDatabase, path: Path
    ) -> None:
        """While another process writes, a purge gives up after the busy timeout: False."""
        on_file.query(INSERT, ["x"])
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")

        with LocalDatabase(path, busy_timeout=0.05) as impatient:
            assert not impatient.purge()
            writer.close()
            assert impatient.purge()

    def test_memory_has_nothing_to_erase(self) -> None:
        """A database in memory has no files, so all is done."""
        with LocalDatabase() as database:
            assert database.checkpoint()
            assert database.purge()


def contents(path: Path) -> bytes:
    """Give the bytes of a database's files, log included."""
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def leftovers(path: Path) -> int:
    """Count the deleted rows of the table ``m`` whose text is in the files all the same."""
    found = {int(number) for number in re.findall(rb"<(\d+)>", contents(path))}
    return sum(1 for number in found if number % 3)


class TestRunaways:
    ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"

    def test_a_statement_that_runs_away_is_stopped(self, path: Path) -> None:
        """Beyond its time a statement ends with an error that says what helps; others go on."""
        with LocalDatabase(path, statement_timeout=0.1) as database:
            begun = time.monotonic()
            with pytest.raises(sqlite3.OperationalError, match=r"stopped after 0\.1 s"):
                database.query(self.ENDLESS)
            assert time.monotonic() - begun < 5
            assert database.query("SELECT 1 AS n")["data"] == [{"n": 1}]

    def test_a_transaction_that_runs_away_is_taken_back(self, path: Path) -> None:
        """Of a transaction with such a statement nothing stays, and the file isn't locked."""
        with LocalDatabase(path, statement_timeout=0.1) as database:
            database.query("CREATE TABLE t (a)")
            with pytest.raises(sqlite3.OperationalError, match="stopped"):
                database.batch(
                    [{"sql": INSERT, "params": [1]}, {"sql": self.ENDLESS}], transaction=True
                )
            assert count(database) == 0
            with LocalDatabase(path, busy_timeout=0) as other:
                other.query(INSERT, [1])

    def test_time_is_counted_by_the_statement(self) -> None:
        """Each statement has its own time, not what others have left."""
        with LocalDatabase(statement_timeout=0.2) as database:
            slow = self.ENDLESS.replace("FROM n)", "FROM n WHERE i < 200000)", 1)
            database.batch([{"sql": slow}] * 10)


class TestOpening:
    @pytest.mark.parametrize("content", [b"notes\n", b"no database\n" * 200])
    def test_a_file_that_is_no_database(self, path: Path, content: bytes) -> None:
        """A file of another kind is refused by name, and left as it is."""
        path.write_bytes(content)

        with pytest.raises(DatabaseOpenError, match=r"agents\.db.*not a SQLite database"):
            LocalDatabase(path)
        assert path.read_bytes() == content
        assert [each.name for each in path.parent.iterdir()] == [path.name]

    def test_a_folder(self, tmp_path: Path) -> None:
        """A folder is refused as one."""
        with pytest.raises(DatabaseOpenError, match="is a folder"):
            LocalDatabase(tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        """A missing folder is named and not made."""
        with pytest.raises(DatabaseOpenError, match=r"no folder .*nowhere.*create it first"):
            LocalDatabase(tmp_path / "nowhere" / "agents.db")
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere"
    )
    def test_a_folder_without_rights(self, tmp_path: Path) -> None:
        """A file that may not be created says which rights are missing."""
        tmp_path.chmod(0o500)

        with pytest.raises(DatabaseOpenError, match="must be readable and writable"):
            LocalDatabase(tmp_path / "agents.db")

    @pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
    def test_no_path(self, path: str) -> None:
        """What can't be a path is refused."""
        with pytest.raises(DatabaseOpenError, match="not a path"):
            LocalDatabase(path)

    @pytest.mark.parametrize("path", [None, b"agents.db", 3])
    def test_no_text(self, path: Any) -> None:
        """What isn't text, as a variable that wasn't set, is refused as an option's value."""
        with pytest.raises(ValueError, match="path must be the name of a file"):
            LocalDatabase(path)

    @pytest.mark.parametrize("length", [300, 5000])
    def test_a_long_name(self, tmp_path: Path, length: int) -> None:
        """A name that is too long for the system says so."""
        with pytest.raises(DatabaseOpenError, match="path is too long"):
            LocalDatabase(tmp_path / ("a" * length))

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has other limits")
    def test_a_long_path(self, tmp_path: Path) -> None:
        """A path that is too long for SQLite says so, and makes no file."""
        folder = tmp_path.joinpath(*["f" * 100] * 5)
        folder.mkdir(parents=True)

        with pytest.raises(DatabaseOpenError, match="path is too long"):
            LocalDatabase(folder / "agents.db")
        assert list(folder.iterdir()) == []

    def test_a_name_forges_no_line(self, tmp_path: Path) -> None:
        """Line ends and direction marks of a path are escaped where an error shows it."""
        with pytest.raises(DatabaseOpenError) as caught:
            LocalDatabase(tmp_path / "nowhere\nERROR \u202e" / "agents.db")
        assert "\n" not in str(caught.value)
        assert "\u202e" not in str(caught.value)

    @pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
    def test_no_timeout(self, timeout: float) -> None:
        """A busy timeout is a number of seconds, and so is a statement's."""
        for name in ("busy_timeout", "statement_timeout"):
            options: dict[str, Any] = {name: timeout}
            with pytest.raises(ValueError, match=name):
                LocalDatabase(**options)

    def test_no_such_synchronous(self) -> None:
        """What isn't a way to sync is refused."""
        with pytest.raises(ValueError, match="synchronous is 'full' or 'normal'"):
            LocalDatabase(synchronous="off")  # type: ignore[arg-type]

    def test_one_whose_making_failed_has_a_repr(self) -> None:
        """What reports a failed constructor's variables can show the object that wasn't made."""
        assert repr(LocalDatabase.__new__(LocalDatabase)) == "LocalDatabase('not opened')"

    def test_many_open_a_new_file_at_once(self, path: Path) -> None:
        """Threads that open one new file at the same moment all get it."""
        barrier = threading.Barrier(8, timeout=60)

        def open_it(_: int) -> None:
            barrier.wait()
            with LocalDatabase(path) as database:
                database.query("CREATE TABLE IF NOT EXISTS t (a)")

        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(open_it, range(8)))) == 8


class TestLocks:
    def test_a_lock_is_waited_for(self, on_file: LocalDatabase, path: Path) -> None:
        """A write waits for another process's transaction to end."""
        writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.2, writer.close)
        release.start()

        on_file.query(INSERT, [1])

        release.join(60)
        assert count(on_file) == 1

    def test_a_lock_is_not_waited_for_for_ever(self, on_file: LocalDatabase, path: Path) -> None:
        """Beyond the busy timeout SQLite's own error comes through, and a later write works."""
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")

        with LocalDatabase(path, busy_timeout=0.05) as impatient:
            begun = time.monotonic()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                impatient.batch([{"sql": INSERT, "params": [1]}], transaction=True)
            assert time.monotonic() - begun < 2
            writer.close()
            impatient.query(INSERT, [1])

        assert count(on_file) == 1

    def test_a_locked_file_is_no_broken_file(self, path: Path) -> None:
        """A file locked while it is opened gives SQLite's error, which may be tried again."""
        owner = sqlite3.connect(path, isolation_level=None)
        owner.execute("BEGIN EXCLUSIVE")
        owner.execute("CREATE TABLE t (a)")

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            LocalDatabase(path, busy_timeout=0.05)
        owner.close()

    def test_eight_threads(self, database: LocalDatabase) -> None:
        """Eight threads write through one object, and every row is there once."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: database.query(INSERT, [n]), range(200)))

        assert count(database) == 200

    def test_four_processes(self, on_file: LocalDatabase, path: Path) -> None:
        """Four processes write into one file at once, and every row is there once."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(4) as pool:
            pool.starmap(write_fifty, [(str(path), n * 50) for n in range(4)])

        assert count(on_file) == 200


def write_fifty(path: str, first: int) -> None:
    with LocalDatabase(path, busy_timeout=30) as database:
        for n in range(first, first + 50):
            database.batch([{"sql": COUNT}, {"sql": INSERT, "params": [n]}], transaction=True)


@needs_fork
@fork_warning
class TestForks:
    def test_a_file_works_on_both_sides(self, on_file: LocalDatabase) -> None:
        """After a fork parent and child each write into the file and see the other's rows."""
        on_file.query(INSERT, [1])

        assert in_child(lambda: on_file.query(INSERT, [2])) == "ok"

        on_file.query(INSERT, [3])
        assert count(on_file) == 3

    def test_a_child_outlives_its_parents_handle(self, on_file: LocalDatabase) -> None:
        """What a child writes after its parent closed the file is kept."""
        ready, go = threading.Event(), os.pipe()

        def write_late() -> None:
            on_file.query(INSERT, [1])
            os.read(go[0], 1)
            on_file.query(INSERT, [2])

        with ThreadPoolExecutor(1) as pool:
            child = pool.submit(in_child, write_late)
            ready.wait(0.3)
            count(on_file)
            on_file.close()
            os.write(go[1], b"!")
            assert child.result() == "ok"
        for end in go:
            os.close(end)
        with LocalDatabase(on_file.path) as again:
            assert count(again) == 2

    def test_memory_stays_with_its_maker(self) -> None:
        """A database in memory says in a child that it is its parent's, and goes on there."""
        with LocalDatabase() as database:
            said = in_child(lambda: database.query("SELECT 1"))

            assert said.startswith("DatabaseOpenError")
            assert f"process {os.getpid()}" in said
            assert database.query("SELECT 1 AS n")["data"] == [{"n": 1}]

    def test_a_closed_one_stays_closed(self, on_file: LocalDatabase) -> None:
        """A fork opens nothing that was closed."""
        on_file.close()

        assert "is closed" in in_child(lambda: on_file.query("SELECT 1"))

    def test_a_fork_beside_busy_threads(self, on_file: LocalDatabase) -> None:
        """A fork waits for calls under way, so its child has every lock free."""
        with ThreadPoolExecutor(2) as pool:
            writes = [pool.submit(on_file.query, INSERT, [n]) for n in range(100)]
            said = {in_child(lambda: count(on_file)) for _ in range(5)}
            for each in writes:
                each.result()

        assert said == {"ok"}
        assert count(on_file) == 100


class TestClosing:
    def test_closing_twice(self, path: Path) -> None:
        """Closing again does nothing."""
        database = LocalDatabase(path)
        database.close()
        database.close()

    def test_use_after_close(self, database: LocalDatabase) -> None:
        """A closed database says so instead of opening again."""
        database.close()

        with pytest.raises(sqlite3.ProgrammingError, match="is closed: make a new one"):
            database.query("SELECT 1")

    def test_closing_leaves_one_file(self, on_file: LocalDatabase, path: Path) -> None:
        """The last one to close leaves the database in a single file."""
        on_file.close()

        assert [each.name for each in path.parent.iterdir()] == [path.name]

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see handles")
    def test_no_handle_is_left(self, path: Path) -> None:
        """Neither closing, nor a failed open, nor forgetting to close leaves a handle or warns."""
        broken = path.with_name("broken.db")
        broken.write_text("no database\n" * 200)
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LocalDatabase(path).close()
            before = handles()
            LocalDatabase(path).query("SELECT 1")
            with pytest.raises(DatabaseOpenError):
                LocalDatabase(broken)
            gc.collect()

        assert handles() == before

    def test_one_that_is_forgotten_in_a_cycle_is_closed(self, path: Path) -> None:
        """What refers to itself is collected in any order, and Python warns of no open database."""
        script = (
            "import gc, sys\n"
            "from strands_persql import LocalDatabase\n"
            "for _ in range(20):\n"
            "    database = LocalDatabase(sys.argv[1])\n"
            "    database.query('SELECT 1')\n"
            "    holder = [database]\n"
            "    database.holder = holder\n"
            "del database, holder\n"
            "gc.collect()\n"
        )
        command = [sys.executable, "-W", "always::ResourceWarning", "-c", script, str(path)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert ended.stderr == ""
