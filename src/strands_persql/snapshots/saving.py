"""One save: what it builds on, what it sends, and what it does where it isn't applied."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strands_persql.databases.protocol import Statement
from strands_persql.errors import OutcomeUnknownError, PerSQLError
from strands_persql.gateway.batch import Answer, Batch, Handle, Row
from strands_persql.gateway.retry import LostRaceError
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import new_id
from strands_persql.snapshots.errors import StorageConflictError
from strands_persql.snapshots.keys import context_of, pool_end, pool_of
from strands_persql.snapshots.pieces import parts_of, to_json
from strands_persql.snapshots.planning import Base, SavePlan, part_name, plan_save
from strands_persql.snapshots.sight import ABSENT, SeenValue
from strands_persql.snapshots.store import ValueStore
from strands_persql.snapshots.values import Encoded, StoredValue, pieces_of
from strands_persql.tables import object_conditions, object_parts, objects
from strands_persql.tables.object_parts import PartText
from strands_persql.tables.objects import ObjectRow
from strands_persql.tables.preconditions import Precondition

_UPLOADED = 16
"""Parts that one request brings ahead of a save, and that a save brings itself: 4 MB or more."""

Beside = Callable[[str], Sequence[Statement]]
"""Returns statements that go with a save, given its write's id."""


class SaveInDoubtError(Exception):
    """A save whose answer was lost.

    Attributes:
        seen: What is known of the value now.
        error: What the caller is told.
    """

    def __init__(self, seen: SeenValue, error: OutcomeUnknownError) -> None:
        """Initialize."""
        super().__init__(str(error))
        self.seen = seen
        self.error = error


@dataclass(frozen=True)
class _Attempt:
    """What one attempt sends.

    Attributes:
        write_id: The write.
        plan: What goes where.
        base: What it builds on, with its key.
    """

    write_id: str
    plan: SavePlan
    base: Base | None
    base_key: str

    @property
    def name(self) -> str:
        """What the names of its parts begin with."""
        return part_name(self.write_id)

    @property
    def made(self) -> int:
        """How many parts it makes."""
        addition = self.plan.addition
        return len(self.plan.parts) + (addition is not None and addition.size is None)


class Save:
    """Saves a value where it is what its writer knows it to be.

    Args:
        store: Where values are.
        key: The value's key.
        value: The value.
        seen: What its writer has seen of it, or None where it has seen nothing.
        overwrites: Whether it replaces whatever it finds.
        beside: Returns statements that go with it.
    """

    def __init__(
        self,
        store: ValueStore,
        key: str,
        value: Encoded,
        seen: SeenValue | None,
        *,
        overwrites: bool,
        beside: Beside,
    ) -> None:
        """Begin with what its writer knows, or what this process does."""
        self._store = store
        self._key = key
        self._pool = pool_of(key)
        self._value = value
        self._beside = beside
        self._is_bound = seen is not None and not overwrites
        self._seen = ABSENT if seen is None else seen
        self._may_extend = self._may_share = True
        self._expected = seen if seen is not None else SeenValue.of(store.cache.get(key))

    def run(self) -> SeenValue:
        """Save, again where a race was lost that may be run again.

        Returns:
            What is known of the value now.

        Raises:
            StorageConflictError: If another writer came first, and the save is bound to what
                its own has seen.
            SaveInDoubtError: If the answer was lost.
            PerSQLError: If the database can't be asked.
        """
        try:
            return self._store.retry.retry_lost_races(self._attempt)
        except LostRaceError as lost:
            raise lost.conflict from None

    def _attempt(self) -> SeenValue:
        attempt = self._planned()
        asked_at = self._store.cache.clock()
        self._upload(attempt)
        batch, found = self._batch(attempt)
        with self._store.cache.asking(self._key, writes=True) as keep:
            row = self._send(batch, attempt).first(found)
            if row is not None and row["saved_by"] == attempt.write_id:
                stored = self._stored(attempt, row).checked(asked_at)
                keep(stored)
                self._store.latest.note(self._key)
                return SeenValue.of(stored)
            own = self._known(self._key)
            if row is not None and own is not None and row["saved_by"] == own.saved_by:
                keep(own)
        self._withdraw(attempt)
        return self._refused(row)

    # -- what it builds on ---------------------------------------------------------------------

    def _planned(self) -> _Attempt:
        # A new id for each attempt: a late copy of an earlier one must find its own id spent.
        write_id = new_id()
        base, key = self._base()
        return _Attempt(write_id, plan_save(self._value.text, base, write_id), base, key)

    def _base(self) -> tuple[Base | None, str]:
        """Return the value that this process knows and that has most in common, and its key."""
        own = self._known(self._key)
        if own is not None and own.saved_by != self._expected.saved_by:
            own = None
        other_key = self._store.latest.get(self._pool) if self._may_share else None
        other = self._known(other_key) if other_key not in (None, self._key) else None
        if other is None:
            base = None if own is None else Base(own, may_extend=self._may_extend)
            return base, self._key
        # Strands writes an immutable snapshot, then the latest one with the same text.
        if own is None or other.digest == self._value.digest:
            assert other_key is not None
            return Base(other, is_own=False, may_extend=self._may_extend), other_key
        return Base(own.with_sizes(other.part_sizes), may_extend=self._may_extend), self._key

    def _known(self, key: str | None) -> StoredValue | None:
        found = None if key is None else self._store.cache.get(key)
        return found if found is not None and found.encoding == self._value.encoding else None

    # -- what it sends -------------------------------------------------------------------------

    def _upload(self, attempt: _Attempt) -> None:
        """Send what is too large for one request, ahead of the request that refers to it."""
        if len(attempt.plan.parts) <= _UPLOADED:
            return
        for first in range(0, len(attempt.plan.parts), _UPLOADED):
            batch = Batch()
            for part, text in attempt.plan.parts[first : first + _UPLOADED]:
                place = PartText(self._pool, part, text)
                batch.run(object_parts.upload_part(self._store.tables, place, attempt.write_id))
            self._store.gateway.run(batch, writes=True, **context_of(self._key))

    def _batch(self, attempt: _Attempt) -> tuple[Batch, Handle]:
        tables, plan, write_id = self._store.tables, attempt.plan, attempt.write_id
        target, parts = self._target(attempt), self._parts(attempt)
        batch = Batch(*self._part_statements(attempt, target))
        row = ObjectRow(
            self._key,
            self._pool,
            self._value.encoding,
            len(self._value.text),
            self._value.digest,
            to_json(plan.pieces),
            plan.data,
            now(),
        )
        # The row last, so that no row ever refers to text that isn't there.
        if self._expected.saved_by:
            expected = self._expected.saved_by
            rest = object_conditions.all_of(self._base_condition(attempt), parts)
            batch.run(objects.replace_object(tables, row, expected, write_id, rest, adds=plan.adds))
        else:
            batch.run(
                objects.create_object(
                    tables, row, write_id, object_conditions.all_of(target, parts)
                ),
                objects.spend(tables, self._key, write_id),
            )
        if released := sorted(self._expected.parts - parts_of(plan.pieces)):
            names = json.dumps(released)
            batch.run(
                object_parts.release_parts(
                    tables, self._key, self._pool, pool_end(self._pool), names, write_id
                )
            )
        batch.run(*self._beside(write_id))
        return batch, batch.ask(objects.look(tables, self._key))

    def _part_statements(self, attempt: _Attempt, target: Precondition) -> list[Statement]:
        tables, plan, write_id = self._store.tables, attempt.plan, attempt.write_id
        made = [] if len(plan.parts) > _UPLOADED else plan.parts
        statements = [
            object_parts.store_part(tables, PartText(self._pool, part, text), write_id, target)
            for part, text in made
        ]
        addition = plan.addition
        if addition is None:
            return statements
        text = PartText(self._pool, addition.part, addition.text)
        if addition.takes_own:
            assert attempt.base is not None
            saved_by = attempt.base.value.saved_by
            text = PartText(self._pool, addition.part, addition.text, attempt.base_key, saved_by)
        if addition.size is None:
            return [*statements, object_parts.store_part(tables, text, write_id, target)]
        return [
            *statements,
            object_parts.extend_part(tables, text, addition.size, write_id, target),
        ]

    def _target(self, attempt: _Attempt) -> Precondition:
        """Return the precondition that the value and what it builds on are as they are known."""
        if self._expected.saved_by:
            target = object_conditions.object_is(self._key, self._expected.saved_by)
        else:
            target = object_conditions.no_object(self._key) & object_conditions.unspent(
                attempt.write_id
            )
        return object_conditions.all_of(target, self._base_condition(attempt))

    def _base_condition(self, attempt: _Attempt) -> Precondition | None:
        base = attempt.base
        if base is None or base.is_own:
            return None
        return object_conditions.base_is(attempt.base_key, base.value.saved_by)

    def _parts(self, attempt: _Attempt) -> Precondition | None:
        """Return the precondition that the parts are there that the save makes and extends."""
        made = extended = None
        addition = attempt.plan.addition
        if attempt.made:
            made = object_conditions.parts_stored(
                self._pool, attempt.name, attempt.write_id, attempt.made
            )
        if addition is not None and addition.size is not None:
            extended = object_conditions.part_extended(self._pool, addition.part, attempt.write_id)
        return object_conditions.all_of(made, extended) if made or extended else None

    def _send(self, batch: Batch, attempt: _Attempt) -> Answer:
        try:
            return self._store.gateway.run(batch, writes=True, **context_of(self._key))
        except OutcomeUnknownError as error:
            doubting = self._expected.doubting(attempt.write_id)
            raise SaveInDoubtError(doubting, error) from error

    def _stored(self, attempt: _Attempt, row: Row) -> StoredValue:
        plan, value = attempt.plan, self._value
        return StoredValue(
            row["write_id"],
            attempt.write_id,
            int(row["version"]),
            value.encoding,
            value.digest,
            plan.pieces,
            plan.own,
            value.text,
            plan.part_sizes,
        )

    # -- where it isn't applied ----------------------------------------------------------------

    def _withdraw(self, attempt: _Attempt) -> None:
        """Delete what was sent ahead; a sweep does where this fails."""
        if len(attempt.plan.parts) > _UPLOADED:
            batch = Batch(
                object_parts.withdraw_parts(
                    self._store.tables, self._pool, attempt.name, attempt.write_id
                )
            )
            with contextlib.suppress(PerSQLError):
                self._store.gateway.run(batch, writes=True, **context_of(self._key))

    def _refused(self, row: Row | None) -> SeenValue:
        """Return what is there where that will do, or have the save tried again.

        Raises:
            LostRaceError: To be tried again.
            StorageConflictError: If it may not be.
        """
        found = ABSENT if row is None else _seen(row)
        conflict = self._conflict(found)
        # Nobody has written the value: a part or another value that it builds on has changed.
        if found.saved_by == self._expected.saved_by:
            self._may_extend = self._may_share = False
            raise LostRaceError(conflict)
        self._store.gateway.count(conflicts=1)
        # Who saves what is there already loses nothing, and takes nothing from anybody.
        if row is not None and found.digest == self._value.digest:
            return found
        if self._is_bound and not self._is_as_seen(found):
            raise conflict
        self._expected = found
        raise LostRaceError(conflict)

    def _is_as_seen(self, found: SeenValue) -> bool:
        """Whether nothing is there that the writer hasn't seen or saved itself."""
        seen = self._seen
        return found.saved_by in seen.doubted or found.digest == seen.digest != ""

    def _conflict(self, found: SeenValue) -> StorageConflictError:
        expected = self._expected
        before = f"as version {expected.version}" if expected.saved_by else "when it was not there"
        if not found.saved_by:
            what = "was deleted"
        elif not expected.saved_by:
            what = "was created"
        else:
            what = f"was saved as version {found.version}"
        return StorageConflictError(
            f"{self._key!r} {what} by another writer since this one last read or saved it"
            f" ({before}); nothing was written. Restore it again and go on from there, or use"
            " on_conflict='overwrite' to let the last one win",
            key=self._key,
            expected_version=expected.version or None,
            found_version=found.version or None,
            **context_of(self._key),
        )


def _seen(row: Row) -> SeenValue:
    try:
        parts = frozenset(parts_of(pieces_of(row["pieces"])))
    except ValueError:  # a row that can't be read can be replaced; a sweep finds its parts
        parts = frozenset()
    return SeenValue(row["saved_by"], row["write_id"], int(row["version"]), row["digest"], parts)
