"""Prints the README's comparison with other session stores: `make compare`.

Stores whose packages aren't installed are left out, and named on standard error.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

from tests.comparison.questions import QUESTIONS, not_restored
from tests.comparison.stores import STORES, Store


def main() -> None:
    """Ask each store each question, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("--why", action="store_true", help="name what each store doesn't restore")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the others' own warnings
    warnings.simplefilter("ignore")
    able = [store for store in STORES if not store.missing]
    for store in STORES:
        if store.missing:
            print(f"{store.name} is left out: {store.missing} missing", file=sys.stderr)
    if options.why:
        for store in able:
            print(f"{store.name}: {'; '.join(_not_restored(store)) or 'all is restored'}")
        return
    sys.stdout.write(table(able))


def table(stores: list[Store]) -> str:
    """Return the table of these stores, in Markdown."""
    head = ["", *(question.head for question in QUESTIONS)]
    lines = [head, ["---", *("---:" for _ in QUESTIONS)], *(map(row, stores))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def row(store: Store) -> list[str]:
    """Return a store's row: its name, and its answers, each in a place of its own."""
    answers = []
    for question in QUESTIONS:
        with tempfile.TemporaryDirectory() as folder, store.opened(Path(folder)) as place:
            answers.append(question.ask(place))
    return [store.name, *answers]


def _not_restored(store: Store) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, store.opened(Path(folder)) as place:
        return not_restored(place)


if __name__ == "__main__":
    main()
