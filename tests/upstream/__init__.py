"""Strands' own tests of its session managers and storages, run with ours in place of theirs."""
