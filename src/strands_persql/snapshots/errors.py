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


class StorageExistsError(errors.AlreadyExistsError, StorageError):
    """What was to be made is there; nothing was written."""


class StorageMissingError(errors.NotFoundError, StorageError):
    """What was asked for isn't there."""


class StorageCorruptError(errors.CorruptRowError, StorageError):
    """A value's row can't be read, or a part of it is missing or altered; others are readable."""


class StorageSchemaError(errors.SchemaError, StorageError):
    """The tables are missing or old, and this access may not create or alter them."""


class StorageOpenError(errors.DatabaseOpenError, StorageError):
    """The database can't be opened, isn't there, or was closed."""


class StorageUnavailableError(errors.UnavailableError, StorageError):
    """The database was out of reach until the time budget ended; nothing was written."""


class StorageOutcomeUnknownError(errors.OutcomeUnknownError, StorageError):
    """The answer to a write was lost; writing again is safe."""


class StorageAccessError(errors.AccessDeniedError, StorageError):
    """The token, its role, the balance or an approval rule doesn't allow it."""


class StorageStatementError(errors.StatementError, StorageError):
    """The database refused a statement."""


class StorageFailedError(PerSQLError, StorageError):
    """It failed for another reason, which is its cause."""


_COUNTERPARTS: dict[type[PerSQLError], type[PerSQLError]] = {
    cls.__mro__[1]: cls
    for cls in (
        StorageSchemaError,
        StorageOpenError,
        StorageUnavailableError,
        StorageOutcomeUnknownError,
        StorageAccessError,
        StorageStatementError,
    )
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
        counterpart = _COUNTERPARTS.get(type(error), StorageFailedError)
        raised = counterpart.__new__(counterpart)
        raised.__dict__.update(error.__dict__)
        raised.args = (f"Failed to {what}: {error}",)
        raise raised from error
    except Exception as error:
        raise StorageFailedError(f"Failed to {what}: {error}") from error
