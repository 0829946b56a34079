"""What a network asks of its images."""

from jaxtyping import Array, Float

from jaxvision.errors import UserError


def check_size(image: Float[Array, "b h w c"], smallest: int, network: str) -> None:
    """Refuses images that a network's strides and poolings would leave nothing of.

    Args:
      image: what the network was called with.
      smallest: how many rows and columns it needs.
      network: its name, the subject of the message.

    Raises:
      UserError: the images are smaller.
    """
    rows, columns = image.shape[1:3]
    if min(rows, columns) < smallest:
        raise UserError(
            f"{network} takes images of {smallest}x{smallest} or more; not of {rows}x{columns}."
        )
