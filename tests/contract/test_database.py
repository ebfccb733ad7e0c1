"""What the library asks of a database: the checks that users have for databases of their own."""

import pytest

from strands_persql.testing import conformance
from strands_persql.testing.conformance import Check
from tests.support.backends import Backend


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_a_database_can_hold_sessions(backend: Backend, check: Check) -> None:
    """Each of our databases passes each check of those that users have for their own."""
    check(backend.reopen)
