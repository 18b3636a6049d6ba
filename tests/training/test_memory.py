"""A process that keeps its memory takes no page faults for tensors of sizes it has had before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from arat_ray.training.memory import is_out_of_memory

SCRIPT = """
import resource, torch
from arat_ray.training.memory import keep_freed_memory
x = torch.ones(12 << 20)  # 48 MiB
def faults():
    for _ in range(5):
        (x + x).sum()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        (x + x).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
keep_freed_memory()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_what_was_freed_is_used_again_without_page_faults() -> None:
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
    given_back, kept = map(int, output.split())
    assert kept < 0.3 * given_back


def test_memory_that_torch_and_python_cannot_get_is_recognised_and_nothing_else() -> None:
    errors: list[BaseException] = [MemoryError()]
    for ask in (lambda: torch.empty(1 << 50), lambda: bytes(1 << 60)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            ask()
        errors.append(raised.value)
    assert all(is_out_of_memory(error) for error in errors)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))
