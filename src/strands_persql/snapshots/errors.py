"""What a storage raises: each error is one of ours, and a `StorageError` of Strands too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strands.types.exceptions import StorageError

from strands_persql import errors
from strands_persql.errors import PerSQLError


class StorageConflictError(errors.ConflictError, StorageError):
    """Another writer has saved the value since this one read or saved it; nothing was written.

    Attributes:
        key: The value's key.
    """

    def __init__(self, message: str, *, key: str, **context: Any) -> None:
        """Initialize with the key."""
        super().__init__(message, **context)
        self.key = key


class StorageAlreadyExistsError(errors.AlreadyExistsError, StorageError):
    """What was to be made is there; nothing was written."""


class StorageNotFoundError(errors.NotFoundError, StorageError):
    """What was asked for isn't there."""


class StorageCorruptRowError(errors.CorruptRowError, StorageError):
    """A value's row can't be read, or a part of it is missing or altered; others are readable."""


class StorageFailedError(PerSQLError, StorageError):
    """It failed for a reason that isn't an error of ours; the reason is its cause."""


def _made(error: type[PerSQLError]) -> type[PerSQLError]:
    """Return a class of errors that are of one of our classes and Strands' too."""
    name = f"Storage{error.__name__}"
    made = type(name, (error, StorageError), {"__doc__": error.__doc__, "__module__": __name__})
    globals()[name] = made  # where pickle looks for it
    return made


_COUNTERPARTS: dict[type[PerSQLError], type[PerSQLError]] = {
    error: globals().get(f"Storage{error.__name__}") or _made(error)
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, PerSQLError) and error is not PerSQLError
}


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Raise what goes wrong as a `StorageError` too.

    Args:
        what: What was to be done, such as ``"write 'a/b'"``.
    """
    try:
        yield
    except StorageError:
        raise
    except PerSQLError as error:
        counterpart = _counterpart_of(type(error))
        raised = counterpart.__new__(counterpart)
        raised.__dict__.update(error.__dict__)
        raised.args = (f"Failed to {what}: {error}",)
        raise raised from error
    except Exception as error:
        raise StorageFailedError(f"Failed to {what}: {error}") from error


def _counterpart_of(error: type[PerSQLError]) -> type[PerSQLError]:
    """Return the counterpart of an error's class, or of the nearest one that has any."""
    found = (_COUNTERPARTS[cls] for cls in error.__mro__ if cls in _COUNTERPARTS)
    return next(found, StorageFailedError)
