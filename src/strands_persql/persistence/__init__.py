"""The cache, and optimistic writes with their conflicts."""
