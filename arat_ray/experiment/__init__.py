"""Experiment: one training run plus what varies in it, read from YAML and validated."""
