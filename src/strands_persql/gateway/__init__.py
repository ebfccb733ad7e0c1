"""One round trip to the database: sent, retried, counted and traced."""
