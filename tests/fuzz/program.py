"""What the fuzzers have in common as programs: so many runs of a seed, or one of them again."""

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Protocol


class Fuzzer(Protocol):
    """What makes numbered runs, and counts how each of them ended."""

    ends: Counter[str]

    def run(self, number: int) -> None:
        """Make one run; it raises what is wrong."""

    def close(self) -> None:
        """Let go of what the runs have used."""


def main(make: Callable[[int], Fuzzer], what: str, runs: int, description: str | None) -> None:
    """Run as asked on the command line.

    Args:
        make: Makes the fuzzer of a seed.
        what: What one of its runs is about, in a word.
        runs: How many there are, where the command line doesn't say.
        description: What the program does.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help=f"the number of one {what} to run again")
    asked = parser.parse_args()
    fuzz = make(asked.seed)
    numbers = range(asked.runs) if asked.only is None else [asked.only]
    for number in numbers:
        try:
            fuzz.run(number)
        except BaseException:  # noqa: PERF203 - the number is what helps
            print(f"{what} {number} of seed {asked.seed}:")  # noqa: T201 - a program
            raise
    fuzz.close()
    for end, times in fuzz.ends.most_common():
        print(f"{times:8} {end}")  # noqa: T201 - a program
