"""A value as bytes, as text, and as the database had it at one moment."""

import base64
import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from strands_persql.snapshots.pieces import Pieces, assembled, from_json

_TEXT, _BASE64 = "text", "base64"
_OVERHEAD = 1024  # an entry's other objects, in bytes


@dataclass(frozen=True)
class Encoded:
    """A value as text.

    Attributes:
        text: The text: the database takes no bytes, and no text with NUL.
        encoding: What the text is to the bytes.
        digest: What the bytes are recognized by.
    """

    text: str
    encoding: str
    digest: str

    @classmethod
    def of(cls, data: bytes) -> "Encoded":
        """Return bytes as text: as they are where they are UTF-8 without NUL, else as base64."""
        digest = digest_of(data)
        try:
            if b"\0" not in data:
                return cls(data.decode(), _TEXT, digest)
        except UnicodeDecodeError:
            pass
        return cls(base64.b64encode(data).decode("ascii"), _BASE64, digest)


def digest_of(data: bytes) -> str:
    """Return what bytes are recognized by."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


@dataclass(frozen=True)
class StoredValue:
    """A value as the database had it at one moment.

    Attributes:
        origin: The write that created it: another one means another value of that key.
        saved_by: The write that has left it so.
        version: 1 when it was created, one more with each write.
        encoding: What its text is to its bytes.
        digest: What its bytes are recognized by.
        pieces: Its pieces.
        own: The text in its own row.
        text: The text that its pieces are.
        part_sizes: How many characters its parts have, as far as that is known.
        checked_at: When the database was asked, in seconds of the cache's clock.
    """

    origin: str
    saved_by: str
    version: int
    encoding: str
    digest: str
    pieces: Pieces
    own: str
    text: str
    part_sizes: Mapping[str, int] = field(default_factory=dict)
    checked_at: float = 0.0

    @classmethod
    def of(
        cls, row: Mapping[str, Any], pieces: Pieces, texts: Iterable[Mapping[str, Any]]
    ) -> "StoredValue":
        """Return a value as it was read.

        Raises:
            ValueError: If something of it is missing or altered.
        """
        found = list(texts)
        text = assembled(pieces, row["data"], {int(one["place"]): one["text"] for one in found})
        value = cls(
            row["write_id"],
            row["saved_by"],
            int(row["version"]),
            row["encoding"],
            row["digest"],
            pieces,
            row["data"],
            text,
            {one["part"]: int(one["size"]) for one in found},
        )
        # Whatever went wrong below, in pieces, parts or by hand, is never taken for the value.
        if digest_of(value.data()) != value.digest:
            raise ValueError("its text is not what was stored")
        return value

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return (
            sys.getsizeof(self.text)
            + sys.getsizeof(self.own)
            + _OVERHEAD
            + 128 * (len(self.pieces) + len(self.part_sizes))
        )

    def checked(self, at: float) -> "StoredValue":
        """Return the value with the time at which it was found to be so."""
        return replace(self, checked_at=at)

    def with_sizes(self, sizes: Mapping[str, int]) -> "StoredValue":
        """Return the value with what is known of its parts' sizes: they only ever grow."""
        known = self.part_sizes
        grown = {part: max(size, sizes.get(part, 0)) for part, size in known.items()}
        return replace(self, part_sizes=grown)

    def data(self) -> bytes:
        """Return its bytes.

        Raises:
            ValueError: If its text isn't what its encoding says.
        """
        if self.encoding == _TEXT:
            return self.text.encode()
        if self.encoding == _BASE64:
            return base64.b64decode(self.text, validate=True)
        raise ValueError(f"its encoding {self.encoding!r} is not known here")


def pieces_of(text: Any) -> Pieces:
    """Return the pieces of a row.

    Raises:
        ValueError: If they can't be read.
    """
    try:
        return from_json(text)
    except (TypeError, RecursionError) as error:
        raise ValueError("its pieces can't be read") from error
