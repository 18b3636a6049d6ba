"""Frontier: the non-dominated trials, how sure we are of them, and the pictures."""
