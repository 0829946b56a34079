"""HOG against scikit-image's."""

import numpy as np
import pytest
import skimage.data
import skimage.feature

from jaxvision.classical.hog import NORMS, hog
from jaxvision.errors import UserError

ASTRONAUT = skimage.data.astronaut()[40:140, 160:270]


def expected(images, orientations=9, cell=(8, 8), block=(3, 3), norm="L2-Hys", square_root=False):
    grey = images.shape[-1] == 1
    return np.stack([
        skimage.feature.hog(
            image[..., 0] if grey else image, orientations, cell, block, norm,
            transform_sqrt=square_root, channel_axis=None if grey else -1,
        )
        for image in images
    ])  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_equals_skimage(norm, channels):
    images = np.stack([ASTRONAUT[..., :channels], ASTRONAUT[::-1, ::-1, :channels]])
    ours = hog(images, 9, (8, 8), (3, 3), norm)
    assert ours.shape == (2, 10 * 11 * 81)  # 100 x 110 pixels: 12 x 13 cells
    np.testing.assert_allclose(ours, expected(images, norm=norm), atol=2e-6)


@pytest.mark.parametrize(
    ("orientations", "cell", "block", "square_root"),
    [(8, (6, 5), (2, 2), False), (12, (7, 9), (1, 3), True), (4, (8, 8), (1, 1), False)],
)
def test_equals_skimage_with_other_cells_and_blocks(orientations, cell, block, square_root):
    # Square roots are grey here: where channels tie, rounding decides which one counts.
    images = ASTRONAUT[None, ..., :1] if square_root else ASTRONAUT[None]
    ours = hog(images, orientations, cell, block, "L2-Hys", square_root)
    reference = expected(images, orientations, cell, block, square_root=square_root)
    np.testing.assert_allclose(ours, reference, atol=5e-6)


def test_gradients_along_the_borders_of_bins():
    y, x = np.mgrid[:12, :12]
    images = np.stack([a * x + b * y + 100 for a, b in ((2, 0), (-2, 0), (0, 3), (0, -3), (2, 2),
                                                       (2, -2), (-2, 2), (0, 0))])  # fmt: skip
    images = images[..., None].astype(np.uint8)
    for orientations in (4, 8, 9):
        ours = hog(images, orientations, (4, 4), (3, 3))
        reference = expected(images, orientations, (4, 4), (3, 3))
        np.testing.assert_allclose(ours, reference, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(UserError, match=r"Unknown norm 'L2Hys'\. Did you mean 'L2-Hys'"):
        hog(ASTRONAUT[None], 9, (8, 8), (3, 3), "L2Hys")
    with pytest.raises(UserError, match=r"Images of 20x20 pixels hold 2x2 cells"):
        hog(ASTRONAUT[None, :20, :20])
