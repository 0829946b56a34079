"""Devices as a mesh: the batch is split over both axes, parameters over `fsdp`."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxvision.errors import UserError

AXES = ("data", "fsdp")
_SMALLEST_SPLIT = 2**12  # elements; splitting smaller arrays costs more than it saves


def make(config: ConfigDict) -> Mesh:
    """A (data, fsdp) mesh over all devices of all processes.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    data, fsdp = config.mesh.data, config.mesh.fsdp
    if fsdp == -1:
        fsdp = devices // max(data, 1)
    if data == -1:
        data = devices // max(fsdp, 1)
    if data < 1 or fsdp < 1 or data * fsdp != devices:
        raise UserError(
            f"mesh.data={config.mesh.data} x mesh.fsdp={config.mesh.fsdp} does not make "
            f"{devices} devices. Use -1 for one of them."
        )
    return jax.make_mesh((data, fsdp), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def check_batch(batch_size: int, mesh: Mesh, key: str, accumulate: int = 1) -> None:
    """Refuses a batch (or micro-batch) that the devices cannot share equally.

    Raises:
      UserError: naming the nearest sizes that they can.
    """
    unit = mesh.size * accumulate
    if batch_size % unit:
        below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
        near = f"{below} or {above}" if below else str(above)
        of = f"{mesh.size} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        raise UserError(f"{key}={batch_size} is not divisible by {of}. Nearest: {near}.")


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Checks that the devices can share the batches of training and evaluation equally.

    Raises:
      UserError: naming the nearest sizes that they can.
    """
    groups = config.optimizer.groups.to_dict().values()
    own = [group.get("optimizer", {}).get("accumulate", 1) for group in groups]
    accumulate = max([config.optimizer.accumulate, *own])
    check_batch(config.train.batch_size, mesh, "train.batch_size", accumulate)
    check_batch(config.eval.batch_size or config.train.batch_size, mesh, "eval.batch_size")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch, split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """A sharding for every leaf of a train state (arrays or shapes).

    Leaves of parameters, their averages and their optimiser moments are split along their largest
    axis that `fsdp` divides; small leaves and batch statistics are on every device.
    """
    parts = mesh.shape["fsdp"]

    def split(leaf: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not axes or np.prod(leaf.shape) < _SMALLEST_SPLIT:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*([None] * largest), "fsdp"))

    def whole(tree: Any) -> Any:
        return jax.tree.map(lambda _: replicated(mesh), tree)

    shardings = jax.tree.map(split, state)
    ema = state.ema and {
        kind: shardings.ema[kind] if kind == "params" else whole(tree)
        for kind, tree in state.ema.items()
    }
    return shardings.replace(model_state=whole(state.model_state), ema=ema)


def describe(mesh: Mesh) -> str:
    """`"8 cpu devices: data 4 x fsdp 2, 1 process"`."""
    device = mesh.devices.flat[0]
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    many = "" if mesh.size == 1 else "s"
    processes = jax.process_count()
    hosts = f"{processes} process" + ("es" if processes > 1 else "")
    return f"{mesh.size} {device.device_kind} device{many}: {axes}, {hosts}"
