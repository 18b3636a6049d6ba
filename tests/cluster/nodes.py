"""A cluster of several nodes on this machine, in a process of its own that does what it is told, line by line.

    python -m tests.cluster.nodes WORKERS MEMORY HEAD CPUS...

Where WORKERS are `forks`, they are those of a fork server, and the nodes go without the parts of Ray that nobody looks
at here: less work for the tests' machine. Else they are Ray's own, with all of its agents, as on users' clusters.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from arat_ray.cluster import fork_server

STORE = 100 << 20
"""Size of a node's object store, in bytes."""


class Nodes(NamedTuple):
    """A cluster: `address`, and the process that is told `lose`, `lose the actor's` or `add` a node."""

    address: str
    host: subprocess.Popen[str]

    def tell(self, what: str) -> None:
        """Come back when it is done."""
        assert self.host.stdin is not None
        assert self.host.stdout is not None
        self.host.stdin.write(f"{what}\n")
        self.host.stdin.flush()
        assert self.host.stdout.readline() == "done\n"


@contextmanager
def started(head: int, *cpus: int, memory: int = 4 << 30, workers: str = "forks") -> Iterator[Nodes]:
    """A head with so many CPUs, and a node for each other number, within the block.

    Where the head has no `memory` to speak of, in bytes, no trial's actor is there.
    """
    command = [sys.executable, "-m", __name__, workers, *map(str, (memory, head, *cpus))]
    host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    try:
        address = host.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield Nodes(address, host)
    finally:
        host.communicate("", timeout=120)


def node_of_actor(address: str) -> str:
    """The node with the actor of the only trial, by the placement group that it is in."""
    import ray

    ray.init(address, log_to_driver=False)
    groups = ray.util.placement_group_table().values()
    (actor,) = (group for group in groups if group["state"] == "CREATED" and "memory" in group["bundles"][0])
    ray.shutdown()
    return str(actor["bundles_to_node_id"][0])


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(workers: str, memory: int, head: int, *cpus: int) -> None:
    """Say the address, then `done` after each line that was heard; the end of the input is the cluster's."""
    with ExitStack() as stack:
        if workers == "forks":
            stack.enter_context(fork_server.started("local", several_workers=True))
        from ray.cluster_utils import Cluster

        from arat_ray.cluster import parts

        if workers == "forks":
            stack.enter_context(parts.left_out(output=False))
        own = {"object_store_memory": STORE}
        first = {"num_cpus": head, "memory": memory, "include_dashboard": False, **own}
        cluster = Cluster(initialize_head=True, head_node_args=first)

        def add(count: int) -> Any:
            for _ in range(3):
                try:
                    return cluster.add_node(num_cpus=count, **own)
                except Exception as error:  # noqa: BLE001  Ray's are: a node has 30 s to start, few on a busy machine
                    sys.stderr.write(f"{error}\n")
            return cluster.add_node(num_cpus=count, **own)

        nodes = [add(count) for count in cpus]
        say(cluster.address)
        for line in sys.stdin:
            if line.strip() == "add":
                nodes.append(add(cpus[-1]))
            else:
                assert line.startswith("lose")
                lost = node_of_actor(cluster.address) if "actor" in line else nodes[-1].node_id
                (node,) = (each for each in nodes if each.node_id == lost)
                nodes.remove(node)
                cluster.remove_node(node, allow_graceful=False)
            say("done")
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
