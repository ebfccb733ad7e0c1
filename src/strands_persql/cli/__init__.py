"""``strands-persql``, the command line: needs the extra ``cli``."""

import importlib.util
import sys


def main() -> None:
    """Run the command that the arguments name."""
    if any(importlib.util.find_spec(name) is None for name in ("rich", "typer")):
        sys.exit("strands-persql needs its extra: pip install 'strands-persql[cli]'")
    from strands_persql.cli.app import app  # noqa: PLC0415 - of the extra

    app()
