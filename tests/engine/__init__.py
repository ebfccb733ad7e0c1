"""The hosted database's engine for the tests: its HTTP API on loopback, and faults on the wire."""
