"""The suite is tested too: stores that are wrong on purpose must not pass it."""

import logging
from collections.abc import Iterator

import pytest

from tests.contract import broken
from tests.contract.backends import Backend


@pytest.fixture(scope="module")
def known() -> list[str]:
    """The tests that the library itself fails, which say nothing about other stores."""
    return list(broken.failures(Backend))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_sound_store_passes(known: list[str]) -> None:
    """The runner that judges broken stores finds nothing to blame in the sound one."""
    assert known == []


def test_the_runner_finds_the_tests() -> None:
    """Hundreds of the contract's tests take part in the judgement."""
    assert len(list(broken.checks())) > 200


@pytest.mark.parametrize("store", broken.BROKEN, ids=lambda store: store.__name__)
def test_a_broken_store_is_rejected(store: type, known: list[str]) -> None:
    """At least one test of the contract fails on each broken store."""
    assert next(broken.failures(broken.backend_of(store), known), None) is not None
