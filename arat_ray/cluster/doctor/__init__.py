"""The doctor: whether a cluster can run an experiment, found out in minutes."""
