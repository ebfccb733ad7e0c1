"""The hosted database: PerSQL's documented HTTP API, over one pool of kept-alive connections."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from strands_persql.databases.address import Address, database_path
from strands_persql.databases.protocol import Statement, Value
from strands_persql.databases.rest_error import RestError
from strands_persql.databases.secret import Token, secret
from strands_persql.databases.wire import HttpAnswer, Reader, encode_batch, encode_query

if TYPE_CHECKING:
    import urllib3

    from strands_persql.databases.connections import Connections

__all__ = ["RestClient", "RestDatabase", "RestError"]

_MAX_KEY_LENGTH = 200
_KEY = re.compile(r"[!-~]+")


class RestClient:
    """Connections to PerSQL for any number of databases and threads.

    Close it, or use it as a context manager. After a fork the child opens connections of its own.

    Examples:
        >>> with RestClient(token) as client:
        ...     database = client.database("acme/agent-state")
        ...     database.query("SELECT ? AS answer", [42])["data"]
        [{'answer': 42}]
    """

    _connections: "Connections | None" = None

    def __init__(
        self,
        token: str | Callable[[], str],
        *,
        base_url: str = "https://api.persql.com",
        timeout: float = 10.0,
        max_connections: int = 128,
        max_answer_bytes: int = 64 * 1024 * 1024,
        http: "urllib3.PoolManager | None" = None,
    ) -> None:
        """Initialize without connecting.

        Args:
            token: A token of PerSQL; it is kept out of every repr, log and error. Or a function
                that returns it: it is called for each request, from several threads, so that a
                new token is used as soon as there is one. Let it answer from memory.
            base_url: Where the service is. `http` is taken for loopback addresses only.
            timeout: Seconds for a whole request: waiting for a free connection, connecting,
                sending, and the answer to its last byte. Looking up the host's name comes on top.
            max_connections: The most connections at a time; further requests wait for one.
            max_answer_bytes: The most bytes of an answer, decompressed; a longer one is an error.
            http: A urllib3 `PoolManager` of your own, for a proxy or certificates; you close it,
                and `max_connections` is its `maxsize`. It serves this process only, not a fork of
                it. None makes one, with the proxies and certificates of the environment.

        Raises:
            ValueError: For a token that can't be one, a `base_url` that would expose it, and
                numbers out of their range.
            TypeError: If `http` isn't a `PoolManager`.
        """
        token = token if callable(token) else secret(token)  # no variable shows it from here on
        hidden = Token(token)
        address = Address(base_url)
        _check_number("timeout", timeout, above=0)
        _check_number("max_connections", max_connections, whole=True)
        _check_number("max_answer_bytes", max_answer_bytes, whole=True)

        # Loads urllib3, which nobody needs whose sessions are in a file.
        from strands_persql.databases.connections import Connections, check_pools  # noqa: PLC0415

        check_pools(http)
        self._connections = Connections(
            hidden,
            address,
            timeout=timeout,
            max_connections=max_connections,
            max_answer_bytes=max_answer_bytes,
            http=http,
        )

    def database(self, name: str) -> "RestDatabase":
        """Return a database, without asking the service.

        Args:
            name: Its namespace and name, `"acme/agent-state"`; a branch is `"acme/db.branch"`.

        Raises:
            ValueError: When the name isn't of that form.
        """
        assert self._connections is not None
        return RestDatabase(self._connections, name)

    def close(self) -> None:
        """Close the connections; later calls raise `RestError`."""
        if self._connections is not None:
            self._connections.close()

    def __enter__(self) -> "RestClient":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Show the host, never the token; also of one whose making failed."""
        return f"<RestClient {self._connections or 'not made'}>"


class RestDatabase:
    """One hosted database. `RestClient.database` makes it; it is cheap, and any thread may use it.

    Attributes:
        name: Its namespace and name.
        max_row_bytes: The most bytes that the engine takes in a row.
    """

    max_row_bytes: ClassVar[int] = 2_000_000

    def __init__(self, connections: "Connections", name: str) -> None:
        """Initialize; use `RestClient.database`."""
        self._where = "not made"  # for reports of a bad name
        path = database_path(name, connections.token)
        self.name = name
        self._connections = connections
        self._query_path = path + "/query"
        self._batch_path = path + "/batch"
        self._where = f"{name} at {connections.address}"
        self._reader = Reader(self._where, connections.token)

    def __repr__(self) -> str:
        """Show the database and its host, never the token."""
        return f"<RestDatabase {self._where}>"

    @property
    def telemetry_attributes(self) -> Mapping[str, str | int]:
        """What tells the database apart in OpenTelemetry's spans and metrics."""
        address = self._connections.address
        default_port = 443 if address.scheme == "https" else 80
        return {
            "db.system.name": "persql",
            "db.namespace": self.name,
            "server.address": address.host.strip("[]"),
            "server.port": address.port or default_port,
        }

    def query(
        self, sql: str, params: Sequence[Value] = (), *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Run one statement, committed by itself.

        Args:
            sql: The statement, with `?` for values.
            params: The values, at most 100.
            idempotency_key: Names this request for the service, which answers a repetition from
                memory where it can. At most 200 visible ASCII characters.

        Returns:
            `data` (rows as dicts), `columns`, `rows_read` and `rows_written` (None where the
            service didn't say), and `meta` as the service sent it, or an empty dict.

        Raises:
            ValueError: For NaN, infinite numbers, integers beyond 2**53 and lone surrogates, for
                too many values, and for a bad key; nothing was sent.
            TypeError: For a value that isn't a string, number or None.
            RestError: When the database could not be asked, or refused.
        """
        answer = self._post(self._query_path, encode_query(sql, params), idempotency_key)
        results = answer if isinstance(answer, RestError) else self._reader.query(answer)
        del answer  # so that an error's traceback doesn't hold it
        if isinstance(results, RestError):
            raise results
        return results[0]

    def batch(
        self,
        statements: Sequence[Statement],
        *,
        transaction: bool = False,
        idempotency_key: str | None = None,
    ) -> list[dict[str, Any]]:
        """Run up to 100 statements in one request.

        Args:
            statements: What to run, in order.
            transaction: Whether to apply all of them or none.
            idempotency_key: As for `query`, for the whole batch.

        Returns:
            One result a statement, in their order, as `query` returns it. Where the service sends
            one `meta` for the batch, the first result has it, and the others have none.

        Raises:
            ValueError: As for `query`, and for more than 100 statements; nothing was sent.
            TypeError: As for `query`.
            RestError: When the database could not be asked, or refused.
        """
        if not statements:
            return []
        answer = self._post(
            self._batch_path, encode_batch(statements, transaction), idempotency_key
        )
        results = (
            answer
            if isinstance(answer, RestError)
            else self._reader.batch(answer, len(statements), atomic=transaction)
        )
        del answer  # so that an error's traceback doesn't hold it
        if isinstance(results, RestError):
            raise results
        return results

    def _post(self, path: str, content: bytes, key: str | None) -> HttpAnswer | RestError:
        if key is not None and (len(key) > _MAX_KEY_LENGTH or not _KEY.fullmatch(key)):
            raise ValueError(
                f"an idempotency key must have 1 to {_MAX_KEY_LENGTH} visible ASCII characters"
            )
        return self._connections.post(path, content, key, self._where)


def _check_number(name: str, value: object, *, above: int = 0, whole: bool = False) -> None:
    wanted = int if whole else (int, float)
    is_number = isinstance(value, wanted) and not isinstance(value, bool)
    if not is_number or not above < value < float("inf"):  # type: ignore[operator]
        kind = "a whole number, 1 or more" if whole else "a number of seconds, more than 0"
        raise ValueError(f"{name} must be {kind}, not {value!r}")
