"""API: what the command line and `import arat_ray` both call; a run, a search, an evaluation from its input to its end.

The names for users are in `arat_ray/__init__.py`.
"""
