"""How the process keeps the host's memory, and when it looks for what it may free."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt(3)
_MADV_HUGEPAGE = 14  # of madvise(2)
_ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")


@contextmanager
def garbage_waits() -> Iterator[None]:
    """Python does not look for garbage meanwhile; for imports and traces, also as a decorator.

    They make a million objects that stay. Looking through them again and again, each time that
    they have become a quarter more, takes a fifth of the start of a large network.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_freed_memory() -> bool:
    """Lets JAX use on CPUs, step after step, the memory that it has once asked the system for.

    On CPUs a step's temporary memory comes from malloc. By default glibc returns it after the step,
    and the system clears every page of it for the next one. Only what the main thread takes can be
    kept, so steps also run in the thread that starts them. Must be called in the main thread before
    JAX has a device. Where there is an accelerator or no glibc it does nothing.

    Returns:
      Whether it did.
    """
    if not set_malloc():
        return False
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def set_malloc() -> bool:
    """The half of `keep_freed_memory` that has nothing to do with JAX, nor imports it."""
    if sys.platform != "linux" or any(Path(device).exists() for device in _ACCELERATORS):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mallopt"):
        return False
    accepted = [libc.mallopt(_MMAP_MAX, 0), libc.mallopt(_TRIM_THRESHOLD, -1)]
    if not all(accepted):
        return False
    _ask_for_huge_pages(libc)
    return True


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Lets the part of the heap that is yet to come have pages of 2 MB, cleared at one go each.

    The heap grows by half of the machine's memory, none of which is used before it is written to.
    Where such a promise counts as use, everything stays as it was.
    """
    import resource  # which Windows lacks

    strict = Path("/proc/sys/vm/overcommit_memory")
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if not strict.exists() or strict.read_text().strip() == "2":
        return
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return
    page = os.sysconf("SC_PAGE_SIZE")
    size = page * (os.sysconf("SC_PHYS_PAGES") // 2)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(size)
    if block:
        first = -(-block // page) * page
        libc.madvise(first, size - page, _MADV_HUGEPAGE)
        libc.free(block)
