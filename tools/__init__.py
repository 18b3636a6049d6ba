"""What keeps the documentation true: run from the root of the repository."""
