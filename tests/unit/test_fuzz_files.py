"""The fuzzer over damaged files, small; `python -m tests.fuzz.files --runs N` is it at any size."""

from contextlib import closing

from tests.fuzz.files import Fuzz


def test_whatever_is_flipped_in_a_file_only_errors_of_ours_come_of_it() -> None:
    """Of 60 damaged files every operation ends soundly or in an error of this package."""
    with closing(Fuzz(seed=1)) as fuzz:
        for number in range(60):
            fuzz.run(number)
    assert any(end.startswith("open: ") for end in fuzz.ends)
    assert any(end.endswith(": DatabaseOpenError") and end[:4] != "open" for end in fuzz.ends)
    assert fuzz.ends["turn: sound"] > 10
