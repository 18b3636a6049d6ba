"""Faults that are injected into a study on a cluster of hosts; `python -m tests.lab.faults` runs them."""
