"""A token that shows itself to nobody but the service, and that may change."""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_SHOWN = "[token]"


class Secret(str):
    """A string whose repr hides it, from whatever reports the variables of a failed frame."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Hide it."""
        return repr(_SHOWN)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be pickled or copied into anything."""
        raise TypeError("a token can't be pickled: give it to each process by itself")

    def check(self) -> None:
        """Refuse what can't be a token.

        Raises:
            ValueError: If it is empty or has characters that no header may carry.
        """
        if not _TOKEN.fullmatch(self):
            raise ValueError(
                "the token must be a string of letters, digits and '._~+/=-', without spaces or "
                "line ends: check how it was read"
            )

    def removed_from(self, text: str) -> str:
        """Return a text without the token, as it is or quoted for a URL."""
        return text.replace(self, _SHOWN).replace(quote(self, safe=""), _SHOWN)


def secret(token: Any) -> Secret:
    """Hide a token; what isn't a string becomes one that `Secret.check` refuses."""
    return Secret(token) if isinstance(token, str) else Secret()


class Token:
    """The token of a client: one for good, or what a function returns for each request.

    Args:
        token: The token, or the function.

    Attributes:
        known: The last ones that were sent.

    Raises:
        ValueError: If it can't be a token.
    """

    def __init__(self, token: str | Callable[[], str]) -> None:
        """Initialize, asking no function."""
        self._ask = token if callable(token) else None
        # Those that an error might repeat: a request may be under way with the one before last.
        self.known: deque[Secret] = deque(maxlen=_REMEMBERED)
        if not callable(token):
            token = secret(token)  # from here on no variable shows it
            token.check()
            self.known.append(token)

    def current(self) -> Secret:
        """Return the token for a request.

        Raises:
            ValueError: If the function returned what can't be a token.
            Exception: What the function raised.
        """
        if self._ask is None:
            return self.known[-1]
        token = secret(self._ask())
        token.check()
        if token not in self.known:
            self.known.append(token)
        return token

    def removed_from(self, text: str) -> str:
        """Return a text without the tokens, as they are or quoted for a URL."""
        for token in tuple(self.known):
            text = token.removed_from(text)
        return text


_REMEMBERED = 16
