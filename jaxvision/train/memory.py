"""How the process keeps the host's memory. Imports nothing, as it must act before JAX starts."""

import ctypes
import sys
from pathlib import Path

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")


def keep_freed_memory() -> bool:
    """Makes glibc reuse large blocks that are freed, rather than give them back to the system.

    On CPUs each step takes its temporary memory from malloc. By default glibc returns it after the
    step, and the system clears every page of it for the next one: a tenth of the step's time. Must
    be called before JAX starts its threads. Where there is an accelerator or no glibc it does
    nothing.

    Returns:
      Whether it did.
    """
    if sys.platform != "linux" or any(Path(device).exists() for device in _ACCELERATORS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    accepted = [mallopt(parameter, value) for parameter, value in settings]
    return all(accepted)
