"""Processes, threads, ids and clocks: what every other room uses."""
