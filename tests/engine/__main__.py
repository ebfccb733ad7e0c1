"""Serves the hosted database's engine on this machine, for scripts that use `RestClient`.

``make serve`` runs it. It speaks PerSQL's HTTP API on loopback; nothing leaves this machine.
"""

import argparse
import contextlib
import signal
import sys
import time
from pathlib import Path

from .engine import Engine, find_engine

WORDS = """\
The engine beneath PerSQL serves on this machine alone. Ctrl+C ends it{data}.

  address  {address}
  token    {token}

In a script:

  from strands_persql import PerSQLSessionManager, RestClient

  client = RestClient("{token}", base_url="{address}")
  session = PerSQLSessionManager("user-42", client.database("acme/agent-state"))
"""


def main() -> None:
    """Start the engine, print how to reach it, and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port; a free one if left out")
    parser.add_argument("--folder", type=Path, help="keep the databases here; else they go")
    parser.add_argument(
        "--role",
        choices=["admin", "readwrite", "readonly"],
        default="admin",
        help="what the printed token may do",
    )
    options = parser.parse_args()
    missing = find_engine()
    if isinstance(missing, str):
        sys.exit(missing)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = Engine(options.folder)
    engine.port = options.port
    with contextlib.suppress(KeyboardInterrupt), engine:
        print(
            WORDS.format(
                address=engine.base_url,
                token=engine.token(role=options.role),
                data="" if options.folder else ", and its databases with it",
            ),
            flush=True,
        )
        while engine.running:
            time.sleep(0.2)
        sys.exit("the engine has ended by itself")


if __name__ == "__main__":
    main()
