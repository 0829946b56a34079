"""How the process keeps the host's memory, which is settled before JAX has a device."""

import ctypes
import sys
from pathlib import Path

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")


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
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    accepted = [mallopt(parameter, value) for parameter, value in settings]
    return all(accepted)
