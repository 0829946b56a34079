"""What a training would take, told by its compiled step: nothing is trained or written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import beginning, compilation, mesh, optimizer
from jaxvision.train.exchanges import exchanges, parse


@dataclass(frozen=True)
class Rehearsal:
    """What a step of a training takes; bytes are those of one device.

    Attributes:
      devices: the mesh in words.
      batch: images of a batch, of a host's part, of a device's part.
      state: bytes of parameters, statistics, averages and the optimiser's moments.
      arguments: bytes of the state and of a batch.
      temporary: bytes that the step needs beside them.
      exchanged: bytes that a step exchanges with other devices, by kind: those of whole arrays.
      flops: of one image.
      steps: of an epoch, of the training.
    """

    devices: str
    batch: tuple[int, int, int]
    state: int
    arguments: int
    temporary: int
    exchanged: dict[str, int]
    flops: float
    steps: tuple[int, int]

    def lines(self) -> list[str]:
        """To be read."""
        images, of_host, of_device = self.batch
        memory = {
            "state": self.state,
            "batch": self.arguments - self.state,
            "temporary": self.temporary,
        }
        epoch, steps = self.steps
        return [
            self.devices,
            f"batch: {images:,} images, {of_host:,} a host, {of_device:,} a device",
            f"memory of a step, a device: {_summed(memory)}",
            f"exchanged in a step, a device: {_summed(self.exchanged)}",
            f"{self.flops / 1e9:.3g} GFLOP an image; {epoch:,} steps an epoch, {steps:,} in all",
        ]


def _summed(sizes: Mapping[str, int]) -> str:
    """`3.1 MiB (state 0.1, batch 0.0, temporary 3.0)`."""
    parts = ", ".join(f"{name} {size / 2**20:,.1f}" for name, size in sizes.items())
    return f"{sum(sizes.values()) / 2**20:,.1f} MiB" + (f" ({parts})" if parts else "")


def rehearse(config: ConfigDict) -> Rehearsal:
    """Opens the data of a training and compiles its step.

    Args:
      config: see `jaxvision.config`.

    Raises:
      UserError: whatever would stop the training before its first step.
    """
    configuration.validate(config)
    optimizer.check_names(config)
    compilation.use_cache(config.compilation_cache)
    data, plan, setup = beginning.settle(config)
    step = setup.compile_step(data.spec)
    compiled: Any = step.call
    memory = compiled.memory_analysis()
    if memory is None:
        raise UserError(f"XLA does not say what a step takes on {jax.default_backend()}.")
    leaves = jax.tree.leaves(setup.state)
    images, devices = config.train.batch_size, setup.devices
    return Rehearsal(
        mesh.describe(devices),
        (images, images // jax.process_count(), images // devices.size),
        sum(_bytes_on_a_device(leaf) for leaf in leaves),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        {
            kind: sizes["bytes"] + sizes["small_bytes"]
            for kind, sizes in exchanges(parse(compiled.as_text())).items()
        },
        step.flops * devices.size / images,
        (plan.per_epoch, plan.total),
    )


def _bytes_on_a_device(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None  # `prepare` places every one
    return leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
