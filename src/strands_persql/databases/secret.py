"""A token that shows itself to nobody but the service."""

import re
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
    """Hide a token; what is no string becomes one that `Secret.check` refuses."""
    return Secret(token) if isinstance(token, str) else Secret()
