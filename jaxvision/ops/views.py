"""Several views of each image as one batch, and back."""

from jaxtyping import Array, Shaped


def as_batch(views: Shaped[Array, "v b ..."]) -> Shaped[Array, "n ..."]:
    """All views as one batch, those of an image after one another.

    So devices that share a batch keep their images. With one view of all images after the other the
    batch would be spread anew, and XLA has each device compute everything instead.
    """
    return views.swapaxes(0, 1).reshape(-1, *views.shape[2:])


def as_views(batch: Shaped[Array, "n ..."], count: int) -> Shaped[Array, "v b ..."]:
    """What `as_batch` had, of so many views."""
    return batch.reshape(-1, count, *batch.shape[1:]).swapaxes(0, 1)
