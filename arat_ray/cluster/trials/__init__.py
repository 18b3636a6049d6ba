"""One trial on the cluster: its actor, its workers, its checkpoints, and what may end it before its time."""
