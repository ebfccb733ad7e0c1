"""The hosted database: PerSQL's documented HTTP API, over one pool of kept-alive connections."""

import json
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from math import isfinite
from types import NoneType, TracebackType
from typing import Any, ClassVar, NoReturn
from urllib.parse import quote

import httpx

from .protocol import Statement, Value

MAX_STATEMENTS = 100
"""The most statements that the service takes in one batch."""

_MAX_KEY_LENGTH = 200
_MAX_TEXT = 500
# JSON numbers pass through the service's JavaScript, which holds integers exactly up to here.
_MAX_INTEGER = 2**53
_KEEPALIVE_S = 90.0
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "strands-persql",
}
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DATABASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9][A-Za-z0-9._/-]{0,63})?")
_KEY = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_PLAIN_TYPES = {str, NoneType}


class RestError(Exception):
    """The hosted database could not be asked, or refused.

    Holds neither the token nor the request. Nothing is tried again here.

    Attributes:
        message: What happened.
        status: The HTTP status, or None where there was none.
        kind: The service's `errorDetail.kind`, or one of ours: `connect` (never sent), `timeout`,
            `connection_lost`, `bad_answer`, `redirect`, `closed`, `approval_required`; None
            where nobody said.
        retry_after: Seconds to wait, where the service said so.
        may_have_applied: False where the request surely changed nothing.
        detail: The service's whole `errorDetail`, or where an approval is missing its
            `approvalUrl` and `hits`; or an empty dict.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        may_have_applied: bool = False,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Initialize with what is known of the failure."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.retry_after = retry_after
        self.may_have_applied = may_have_applied
        self.detail = detail or {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all attributes, for errors cross process pools."""
        return type(self), (self.message,), self.__dict__


class RestClient:
    """Connections to PerSQL for any number of databases and threads.

    Close it, or use it as a context manager. After a fork the child connects anew by itself.

    Example:
        >>> with RestClient(token) as client:
        ...     database = client.database("acme/agent-state")
        ...     database.query("SELECT ? AS answer", [42])["data"]
        [{'answer': 42}]
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = "https://api.persql.com",
        timeout: float = 10.0,
        max_connections: int = 20,
        http: httpx.Client | None = None,
    ) -> None:
        """Initialize without connecting.

        Args:
            token: A token of PerSQL; it is kept out of every repr, log and error.
            base_url: Where the service is. `http` is taken for loopback addresses only.
            timeout: Seconds to wait for a connection, for sending, and for each part of the answer.
            max_connections: The most connections at a time; further requests wait for one.
            http: A client of your own, for a proxy or certificates; you close it. It serves this
                process only, not a fork of it. None makes one.

        Raises:
            ValueError: For a token that can't be one, or a `base_url` that would expose it.
        """
        if max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections}")
        self._connections = _Connections(token, _Address(base_url), timeout, max_connections, http)

    def database(self, name: str) -> "RestDatabase":
        """Return a database, without asking the service.

        Args:
            name: Its namespace and name, `"acme/agent-state"`; a branch is `"acme/db.branch"`.

        Raises:
            ValueError: When the name isn't of that form.
        """
        namespace, _, database = name.partition("/")
        if not _NAMESPACE.fullmatch(namespace) or not _DATABASE.fullmatch(database) or ".." in name:
            raise ValueError(
                f"{self._connections.clean(repr(name))} is no database: it must be "
                "'namespace/database' or 'namespace/database.branch', of letters, digits, '-' "
                "and '_'"
            )
        path = f"/v1/db/{quote(namespace)}/{quote(database, safe='')}"
        return RestDatabase(self._connections, name, path)

    def close(self) -> None:
        """Close the connections; later calls raise `RestError`."""
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
        """Show the host, never the token."""
        return f"<RestClient {self._connections}>"


class RestDatabase:
    """One hosted database. `RestClient.database` makes it; it is cheap, and any thread may use it.

    Attributes:
        name: Its namespace and name.
        max_row_bytes: The most bytes that the engine takes in a row.
    """

    max_row_bytes: ClassVar[int] = 2_000_000

    def __init__(self, connections: "_Connections", name: str, path: str) -> None:
        """Initialize; use `RestClient.database`."""
        self.name = name
        self._connections = connections
        self._query_url = connections.address.url(path + "/query")
        self._batch_url = connections.address.url(path + "/batch")
        self._where = f"{name} at {connections.address.host}"

    def __repr__(self) -> str:
        """Show the database and its host, never the token."""
        return f"<RestDatabase {self._where}>"

    def query(
        self, sql: str, params: Sequence[Value] = (), *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Run one statement, committed by itself.

        Args:
            sql: The statement, with `?` for values.
            params: The values.
            idempotency_key: Names this request for the service, which answers a repetition from
                memory where it can. At most 200 visible ASCII characters.

        Returns:
            `data` (rows as dicts), `columns`, `rows_read` and `rows_written` (None where the
            service didn't say), and `meta` as the service sent it, or an empty dict.

        Raises:
            ValueError: For NaN, infinite numbers and integers beyond 2**53, and for a bad key.
            TypeError: For a value that isn't a string, number or None.
            RestError: When the database could not be asked, or refused.
        """
        content = _encode(_statement(sql, params))
        body = self._ask(self._query_url, content, idempotency_key, atomic=True)
        answer = body.get("data")
        if not isinstance(answer, dict):
            raise self._bad_answer("has no result in it")
        return self._result(answer, body.get("meta"))

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
            transaction: Whether all of them stand or fall together.
            idempotency_key: As for `query`, for the whole batch.

        Returns:
            One result a statement, in their order, as `query` returns it. Where the service sends
            one `meta` for the batch, the first result has it, and the others have none.

        Raises:
            ValueError: As for `query`, and for more than 100 statements; nothing was sent.
            TypeError: As for `query`.
            RestError: When the database could not be asked, or refused.
        """
        if len(statements) > MAX_STATEMENTS:
            raise ValueError(
                f"{len(statements)} statements: a batch takes at most {MAX_STATEMENTS}"
            )
        if not statements:
            return []
        wire = [_statement(each["sql"], each.get("params", ())) for each in statements]
        content = _encode({"statements": wire, "transaction": transaction})
        body = self._ask(self._batch_url, content, idempotency_key, atomic=transaction)
        answers, meta = body.get("data", body.get("results")), body.get("meta")
        if isinstance(answers, dict):
            meta = answers.get("meta", meta)
            answers = answers.get("results", answers.get("data"))
        if not isinstance(answers, list) or len(answers) != len(statements):
            raise self._bad_answer(f"has no list of {len(statements)} results in it")
        results = []
        for answer in answers:
            if not isinstance(answer, dict):
                raise self._bad_answer("has a result that is no object")
            results.append(self._result(answer, None))
        if isinstance(meta, dict) and not results[0]["meta"]:
            results[0]["meta"] = meta
        return results

    def _ask(
        self, url: httpx.URL, content: bytes, key: str | None, *, atomic: bool
    ) -> dict[str, Any]:
        """Send a request and return the body of its success."""
        if key is not None and (len(key) > _MAX_KEY_LENGTH or not _KEY.fullmatch(key)):
            raise ValueError(
                f"an idempotency key must have 1 to {_MAX_KEY_LENGTH} visible ASCII characters"
            )
        response = self._connections.post(url, content, key, self._where)
        try:
            body = json.loads(response.content)
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict) and body.get("success") is True:
            return body
        raise self._refusal(response, body, atomic=atomic)

    def _result(self, answer: dict[str, Any], meta: Any) -> dict[str, Any]:
        """Return one statement's result in the documented shape of the SDK."""
        rows = answer.get("rows")
        if rows is None:
            rows = answer.get("data")
        columns = answer.get("columns")
        own = answer.get("meta", meta)
        own = own if isinstance(own, dict) else {}
        if not isinstance(rows, list):
            raise self._bad_answer("has a result without rows")
        if rows and not isinstance(rows[0], dict):
            try:
                rows = [dict(zip(columns, row, strict=True)) for row in rows]  # type: ignore[arg-type]
            except (TypeError, ValueError):
                rows = None
            if rows is None:
                raise self._bad_answer("has rows that don't fit their columns")
        elif columns is None:
            columns = list(rows[0]) if rows else []
        return {
            "data": rows,
            "columns": columns,
            "rows_read": _first(answer, own, "rowsRead", "rows_read"),
            "rows_written": _first(answer, own, "rowsWritten", "rows_written"),
            "meta": own,
        }

    def _bad_answer(self, what: str) -> RestError:
        return RestError(
            f"the answer of {self._where} {what}: is its base_url PerSQL's?",
            status=200,
            kind="bad_answer",
            may_have_applied=True,
        )

    def _refusal(self, response: httpx.Response, body: Any, *, atomic: bool) -> RestError:
        """Return the error for an answer that is no success."""
        status = response.status_code
        if response.is_redirect:
            return RestError(
                f"{self._where} answered with a redirect ({status}), which is not followed, for "
                "it would carry the token elsewhere: set base_url to the service's own address",
                status=status,
                kind="redirect",
            )
        retry_after = _seconds(response.headers.get("Retry-After"))
        said = f"{self._where} answered with status {status}"
        if not isinstance(body, dict) or (response.is_success and body.get("success") is not False):
            refused = response.is_client_error
            return RestError(
                said if refused else f"{said} and a body that isn't PerSQL's JSON",
                status=status,
                kind="bad_answer" if response.is_success else None,
                retry_after=retry_after,
                may_have_applied=not refused,
            )
        detail = self._detail(body)
        kind = detail.get("kind")
        kind = kind if isinstance(kind, str) else None
        error = body.get("error")
        text = self._connections.clean(error) if isinstance(error, str) else "no reason given"
        if kind == "approval_required":
            text += "; an approval rule holds it back until somebody approves it"
        return RestError(
            f"{said}: {text}",
            status=status,
            kind=kind,
            retry_after=retry_after,
            may_have_applied=_may_have_applied(status, kind, atomic=atomic),
            detail=detail,
        )

    def _detail(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the service's detail of a failure, without the token wherever it stands."""
        detail = body.get("errorDetail")
        detail = dict(detail) if isinstance(detail, dict) else {}
        if isinstance(body.get("approvalUrl"), str):
            detail["kind"] = "approval_required"
            detail["approvalUrl"] = body["approvalUrl"]
            detail["hits"] = body.get("hits")
        return self._connections.clean_detail(detail)


def _may_have_applied(status: int, kind: str | None, *, atomic: bool) -> bool:
    """Tell from a refusal in the service's words whether something may have been written."""
    if status in (401, 402, 403, 404, 405, 408, 413, 429):
        return False  # refused before any statement ran
    if httpx.codes.is_client_error(status) or kind not in (None, "unknown"):
        return not atomic  # a statement failed, and without a transaction earlier ones stand
    return httpx.codes.is_server_error(status) or not atomic


class _Connections:
    """The token and the connections of one `RestClient`, shared with its databases."""

    def __init__(
        self,
        token: str,
        address: "_Address",
        timeout: float,
        max_connections: int,
        http: httpx.Client | None,
    ) -> None:
        # A variable that isn't set comes in as None, whatever the annotation says.
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):  # type: ignore[redundant-expr]
            raise ValueError(
                "the token must be a string of letters, digits and '._~+/=-', without spaces or "
                "line ends: check how it was read"
            )
        self.address = address
        self._token = token
        self._headers = {**_HEADERS, "Authorization": f"Bearer {token}"}
        self._timeout = httpx.Timeout(timeout)
        self._max_connections = max_connections
        self._supplied = http is not None
        # By process: a fork must not use its parent's sockets, nor close them.
        self._clients = {os.getpid(): http} if http is not None else {}
        self._closed = False

    def __str__(self) -> str:
        return f"{self.address.host}{' closed' if self._closed else ''}"

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        """Refuse, for a pickle would carry the token."""
        raise TypeError("a RestClient can't be pickled: make one in each process")

    def close(self) -> None:
        """Close this process's connections, unless the user's client holds them."""
        self._closed = True
        client = self._clients.get(os.getpid())
        if client is not None and not self._supplied:
            client.close()

    def clean(self, text: str) -> str:
        """Return a text that is fit for an error: one line, not long, without the token."""
        return " ".join(text.replace(self._token, "[token]").split())[:_MAX_TEXT]

    def clean_detail(self, detail: dict[str, Any]) -> dict[str, Any]:
        """Return a service's detail without the token, wherever it stands."""
        text = json.dumps(detail)
        if self._token not in text:
            return detail
        cleaned: dict[str, Any] = json.loads(text.replace(self._token, "[token]"))
        return cleaned

    def _client(self) -> httpx.Client | None:
        """Return this process's client, or None in a fork of the process that supplied one."""
        pid = os.getpid()
        client = self._clients.get(pid)
        if client is None and not self._supplied:
            made = httpx.Client(
                limits=httpx.Limits(
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_connections,
                    keepalive_expiry=_KEEPALIVE_S,
                ),
                # A proxy of the environment would read what goes to a loopback address in clear.
                trust_env=not self.address.loopback,
            )
            client = self._clients.setdefault(pid, made)
        return client

    def post(self, url: httpx.URL, content: bytes, key: str | None, where: str) -> httpx.Response:
        """Send one request and read its answer."""
        if self._closed:
            raise RestError(f"the client for {where} is closed: make a new one", kind="closed")
        client = self._client()
        if client is None:
            raise RestError(
                f"{where} was not asked: the httpx client given to RestClient belongs to the "
                "process that this one is a fork of; make a RestClient in each process",
                kind="connect",
            )
        # Its repr hides the token, from reporters that show what a failed frame held.
        headers = httpx.Headers(self._headers)
        if key is not None:
            headers["Idempotency-Key"] = key
        request = httpx.Request(
            "POST",
            url,
            headers=headers,
            content=content,
            extensions={"timeout": self._timeout.as_dict()},
        )
        try:
            return client.send(request, auth=None, follow_redirects=False)
        except httpx.HTTPError as error:
            failure = self._lost(error, where)
        except RuntimeError as error:
            if not client.is_closed:
                raise
            failure = RestError(
                f"the client for {where} was closed meanwhile ({type(error).__name__})",
                kind="closed",
                may_have_applied=True,
            )
        # Outside of the except block, so that the error has no context with the request in it.
        raise failure

    def _lost(self, error: httpx.HTTPError, where: str) -> RestError:
        """Return the error for a request that got no answer."""
        why = self.clean(str(error)) or type(error).__name__
        if isinstance(error, httpx.PoolTimeout):
            return RestError(
                f"{where} was not asked: all {self._max_connections} connections stayed in use "
                f"for {self._timeout.pool:g} s; raise max_connections",
                kind="connect",
            )
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
            return RestError(f"no connection to {where}: {why}", kind="connect")
        if isinstance(error, httpx.TimeoutException):
            return RestError(
                f"{where} did not answer within {self._timeout.read:g} s",
                kind="timeout",
                may_have_applied=True,
            )
        if isinstance(error, httpx.DecodingError):
            return RestError(
                f"{where} answered with a broken encoding: {why}",
                kind="bad_answer",
                may_have_applied=True,
            )
        return RestError(
            f"the connection to {where} was lost before the answer: {why}",
            kind="connection_lost",
            may_have_applied=True,
        )


def _statement(sql: str, params: Sequence[Any]) -> dict[str, Any]:
    """Return a statement as it goes over the wire, its values checked."""
    types = set(map(type, params))
    if not types <= _PLAIN_TYPES:
        for value in params:
            if not isinstance(value, (str, int, float, NoneType)):
                name = type(value).__name__
                raise TypeError(f"a parameter is of type {name}: use a string, number or None")
            if isinstance(value, float):
                if not isfinite(value):
                    raise ValueError("a parameter is NaN or infinite, which JSON can't hold")
            elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
                raise ValueError("a parameter is an integer beyond 2**53, which would be rounded")
        if bool in types:
            # The engine would take JSON's true for the text 'true', where sqlite3 takes it for 1.
            params = [int(value) if isinstance(value, bool) else value for value in params]
    return {"sql": sql, "params": params if isinstance(params, list) else list(params)}


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _first(answer: dict[str, Any], meta: dict[str, Any], camel: str, snake: str) -> int | None:
    """Return a count under either spelling, from the result or else its meta."""
    for place in (answer, meta):
        for name in (camel, snake):
            count = place.get(name)
            if isinstance(count, int):
                return count
    return None


def _seconds(value: str | None) -> float | None:
    """Return a Retry-After in seconds, which may be a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if isfinite(seconds) else None


class _Address:
    """A checked base URL."""

    def __init__(self, base_url: str) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("base_url must be an address like https://api.persql.com")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("base_url must have no user, password, query or fragment")
        try:
            self.loopback = ip_address(url.host).is_loopback
        except ValueError:
            self.loopback = url.host == "localhost"
        if url.scheme == "http" and not self.loopback:
            raise ValueError(
                f"base_url must be https for {url.host}: http would show the token to the network"
            )
        self.host = url.netloc.decode("ascii")
        self._base = str(url).rstrip("/")

    def url(self, path: str) -> httpx.URL:
        """Return the address of a path below the base."""
        return httpx.URL(self._base + path)
