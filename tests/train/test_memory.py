"""Freed memory, in a process of its own."""

import subprocess
import sys

import pytest

from jaxvision.train import memory

PROGRAM = """
import resource
from jaxvision.train.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * (1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
assert keep_freed_memory()
faults()
print(default, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="for glibc")
@pytest.mark.skipif(
    any(memory.Path(device).exists() for device in memory._ACCELERATORS),
    reason="not on accelerators",
)
def test_pages_are_cleared_once():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    default, kept = map(int, found.stdout.split())
    assert default >= 4 * 16384  # 64 MB are 16384 pages
    assert kept < default / 10
