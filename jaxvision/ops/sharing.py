"""How rows are laid out, so that devices share the work of a step."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped


def as_batch(views: Shaped[Array, "v b ..."]) -> Shaped[Array, "n ..."]:
    """Several views of each image as one batch, those of an image after one another.

    So devices that share a batch keep their images. With one view of all images after the other the
    batch would be spread anew, and XLA has each device compute everything instead.
    """
    return views.swapaxes(0, 1).reshape(-1, *views.shape[2:])


def as_views(batch: Shaped[Array, "n ..."], count: int) -> Shaped[Array, "v b ..."]:
    """What `as_batch` had, of so many views."""
    return batch.reshape(-1, count, *batch.shape[1:]).swapaxes(0, 1)


def spread(rows: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
    """The rows, of which each device has its part, as of a batch.

    For what a step makes itself, which belongs to no device: all would compute all of it. Outside
    of a mesh (`jax.set_mesh`), and where the rows do not divide, they are left alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or rows.shape[0] % mesh.size:
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(mesh.axis_names))
