"""Cluster: the only room that imports Ray."""
