"""What Strands calls: the session manager and the repository."""
