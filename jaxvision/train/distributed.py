"""Many processes as one program, through `jax.distributed`."""

import os

import jax

from jaxvision.errors import UserError

# Set by launchers that jax.distributed.initialize() reads by itself, when there are several tasks.
_MANY = {
    "SLURM_NTASKS": lambda value: int(value) > 1,
    "OMPI_COMM_WORLD_SIZE": lambda value: int(value) > 1,
    "TPU_WORKER_HOSTNAMES": lambda value: "," in value,
    "MEGASCALE_COORDINATOR_ADDRESS": bool,
    "JAX_COORDINATOR_ADDRESS": bool,
}


def initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins this process to the others; with no arguments, if a launcher says there are others.

    Args:
      coordinator: `host:port` of process 0.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      UserError: only some of the arguments are given, or they contradict one another.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if all(given):
        assert processes is not None
        assert process is not None
        if not 0 <= process < processes:
            raise UserError(f"--process-id {process} is not within 0..{processes - 1}.")
        jax.distributed.initialize(coordinator, processes, process)
    elif any(given):
        raise UserError("Give --coordinator, --num-processes and --process-id together.")
    elif any(is_many(os.environ[name]) for name, is_many in _MANY.items() if os.environ.get(name)):
        jax.distributed.initialize()
