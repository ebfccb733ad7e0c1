"""Where the hosted service and its databases are: checked before anything is sent there."""

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from strands_persql.databases.secret import Token
from strands_persql.runtime.text import one_line

_MAX_PORT = 65_535
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9_]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[a-z0-9_~-][a-z0-9._~-]*)*)/?",
    re.IGNORECASE,
)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DATABASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9][A-Za-z0-9._/-]{0,63})?")


class Address:
    """A checked base URL.

    Args:
        base_url: Where the service is.

    Attributes:
        scheme: `https`, or `http` for this machine only.
        host: The host alone, an IPv6 address in brackets.
        port: The port, or None for the scheme's own.
        path: What comes before the service's own paths, without a slash at its end.
        loopback: Whether it is this machine.

    Raises:
        ValueError: If it isn't such an address, or would expose the token.
    """

    def __init__(self, base_url: Any) -> None:
        found = _URL.fullmatch(base_url) if isinstance(base_url, str) else None
        if found is None or ".." in found["host"] or int(found["port"] or 1) > _MAX_PORT:
            raise ValueError(
                "base_url must be an address like https://api.persql.com, without user, password, "
                "query or fragment"
            )
        self.scheme = found["scheme"].lower()
        self.host = found["host"].lower()
        self.port = int(found["port"]) if found["port"] else None
        self.path = found["path"]
        self.loopback = _is_loopback(self.host)
        if self.scheme == "http" and not self.loopback:
            raise ValueError(
                f"base_url must be https for {self.host}: http would show the token to the network"
            )

    def __str__(self) -> str:
        """Return the host, and its port where one was given."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a URL begins."""
        return f"{self.scheme}://{self}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def database_path(name: Any, token: Token) -> str:
    """Return the path of a database below the base URL.

    Args:
        name: Its namespace and name, and its branch if it is one.
        token: What an error mustn't show, should the two have been mixed up.

    Raises:
        ValueError: If the name isn't of that form.
    """
    if any(map(_is_name, token.known)) and not _is_name(name):
        raise ValueError("the token and the database's name are swapped")
    if not _is_name(name):
        shown = one_line(token.removed_from(repr(name)))
        raise ValueError(
            f"{shown} is not a database's name: it must be 'namespace/database' or "
            "'namespace/database.branch', of letters, digits, '-' and '_'"
        )
    namespace, _, database = name.partition("/")
    return f"/v1/db/{quote(namespace)}/{quote(database, safe='')}"


def _is_name(name: Any) -> bool:
    namespace, _, database = name.partition("/") if isinstance(name, str) else ("", "", "")
    fits = _NAMESPACE.fullmatch(namespace) and _DATABASE.fullmatch(database)
    return bool(fits) and ".." not in name
