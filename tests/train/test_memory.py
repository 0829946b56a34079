"""Freed memory, in a process of its own."""

import gc
import subprocess
import sys

import pytest

from jaxvision.train import memory

PROGRAM = """
import resource
import jax, jax.numpy as jnp
from jaxvision.train.memory import keep_freed_memory

def faults(function):
    for _ in range(16):
        function()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(32):
        function()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def block():
    b"x" * (1 << 26)

default = faults(block)
assert keep_freed_memory()
program = jax.jit(lambda x: jnp.sin(x) @ x)
matrix = jnp.ones((2048, 2048))
print(default, faults(block), faults(lambda: program(matrix).block_until_ready()))
"""

HUGE_PAGES = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, 2 * [resource.RLIM_INFINITY])
from jaxvision.train.memory import set_malloc

def huge():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))

assert set_malloc()
before = huge()
block = b"x" * (1 << 28)
print(huge() - before)
"""
_SETTING = memory.Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="for glibc"),
    pytest.mark.skipif(
        any(memory.Path(device).exists() for device in memory._ACCELERATORS),
        reason="not on accelerators",
    ),
]


@pytest.mark.skipif(
    not _SETTING.exists() or "[never]" in _SETTING.read_text(), reason="the system has none"
)
def test_the_heap_has_huge_pages():
    found = subprocess.run(
        [sys.executable, "-c", HUGE_PAGES], check=True, capture_output=True, text=True
    )
    assert int(found.stdout) > 2**18 // 2  # kB: of 256 MB; what is fragmented stays small


@pytest.mark.slow
def test_pages_are_cleared_once():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    default, kept, program = map(int, found.stdout.split())
    assert default >= 32 * 16384  # 64 MB are 16384 pages
    assert kept < default / 10
    assert program < 32 * 4096 / 4  # each of its two results of 16 MB is 4096 pages


def test_garbage_waits_and_is_looked_for_again():
    @memory.garbage_waits()
    def meanwhile():
        return gc.isenabled()

    assert not meanwhile()
    assert gc.isenabled()
    with memory.garbage_waits():
        meanwhile()
        assert not gc.isenabled()  # the inner one leaves it as it was
    with pytest.raises(KeyError):
        memory.garbage_waits()(dict.__getitem__)({}, "missing")
    assert gc.isenabled()
