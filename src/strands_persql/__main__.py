"""``python -m strands_persql`` is ``strands-persql``."""

from strands_persql.cli import main

if __name__ == "__main__":
    main()
