"""The faults: each is injected into a running study, repaired where that takes somebody, and told in a sentence."""

from __future__ import annotations

import os
import signal

from arat_ray.exit_codes import NOT_SAVED
from tests.disks import fill
from tests.lab.faults.clusters import DISK, processes
from tests.lab.faults.studies import BrokenPromiseError, Study

WHILE_S = 20.0


def driver_killed(study: Study) -> None:
    """the driver is killed"""
    for pid in processes(study.host, b"arat-ray\0tune"):
        os.kill(pid, signal.SIGKILL)
    study.ends()
    study.resume()


def worker_killed(study: Study) -> None:
    """the process of a worker is killed"""
    _, pid = study.cluster.at_work()
    os.kill(pid, signal.SIGKILL)


def worker_stopped(study: Study) -> None:
    """the process of a worker is stopped (`timeout_minutes: 0.25`)"""
    _, pid = study.cluster.at_work()
    os.kill(pid, signal.SIGSTOP)


def one_of_two_killed(study: Study) -> None:
    """one of a trial's two workers is killed"""
    _, pid = study.cluster.at_work(b"ray::RayTrainWorker")
    os.kill(pid, signal.SIGKILL)


def node_killed(study: Study) -> None:
    """a worker's node is lost, and there is a spare one"""
    node, _ = study.cluster.at_work()
    study.cluster.lose(node)


def node_drained(study: Study) -> None:
    """a worker's node is about to be taken away (`ray drain-node`, as on a spot notice), and there is a spare one"""
    node, _ = study.cluster.at_work()
    study.cluster.drain(node)
    study.goes_on()
    study.cluster.lose(node)


def last_node_killed(study: Study) -> None:
    """a worker's node is lost, there is no other, and one is added when the study says what it waits for"""
    node, _ = study.cluster.at_work()
    study.cluster.lose(node)
    study.says("waiting since 2 min", 300)
    study.by_hand.append("a node is added")
    study.cluster.add_worker()


def link_down_shortly(study: Study) -> None:
    """a worker's node is cut off from the network for 8 s"""
    node, _ = study.cluster.at_work()
    node.cut_off()
    study.lasts(8)
    node.reconnect()


def link_down_for_long(study: Study) -> None:
    """a worker's node is cut off until the trial goes on at a spare one, then comes back"""
    node, _ = study.cluster.at_work()
    node.cut_off()
    study.goes_on()
    node.reconnect()
    study.wait(lambda: not processes(node, b"ray::"), 120, f"{node.name}'s old workers to end")
    study.cluster.lose(node)


def head_killed(study: Study) -> None:
    """the head's node is lost with the driver on it; a new head has its address"""
    study.cluster.head.kill()
    _new_head(study)
    study.resume()


def head_killed_driver_elsewhere(study: Study) -> None:
    """the head's node is lost, the driver runs on another"""
    study.cluster.head.kill()
    study.ends()
    login = study.host
    _new_head(study)
    study.cluster.restart_ray(login)
    study.resume(host=login)


def disk_full(study: Study) -> None:
    """the disk with the results is full for 20 s"""
    fill(DISK)
    study.lasts(WHILE_S)
    (DISK / "ballast").unlink()


def bucket_refuses(study: Study) -> None:
    """the bucket's server refuses connections for 20 s"""
    study.cluster.refuse_bucket()
    study.lasts(WHILE_S)
    study.cluster.accept_bucket()


def bucket_hangs(study: Study) -> None:
    """the bucket's server accepts connections and does not answer for 20 s"""
    study.cluster.signal_bucket(signal.SIGSTOP)
    study.lasts(WHILE_S)
    study.cluster.signal_bucket(signal.SIGCONT)


def bucket_gone_at_the_end(study: Study) -> None:
    """the bucket refuses from before the end of the study until the driver has given up (exit code 3)"""
    study.cluster.refuse_bucket()
    code = study.ends()
    study.cluster.accept_bucket()
    if code != NOT_SAVED:
        raise BrokenPromiseError(f"exit code {code}, not {NOT_SAVED}; it said:\n{study.said()}")
    study.resume()


def _new_head(study: Study) -> None:
    """What `ray up` does: a head, and Ray started again on the workers."""
    study.by_hand.append("a head is started")
    study.cluster.boot_head()
    for worker in study.cluster.workers:
        study.cluster.restart_ray(worker)
