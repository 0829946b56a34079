"""Proposals on their way from an algorithm to a network: found, kept, moved, padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.classical import selective_search as algorithm
from jaxvision.data import transforms
from jaxvision.data.annotations import KINDS, Settings
from jaxvision.data.augment import augment
from jaxvision.data.decode import Decode
from jaxvision.errors import UserError

KIND = KINDS["proposals"]
BOXES = np.float32([[30, 5, 50, 25], [0, 0, 10, 10], [-5, 30, 70, 50], [5, 8, 5, 9]])


def decoded(boxes, size=(40, 60)):
    record = {"image": np.zeros((*size, 3), np.uint8), "proposals": boxes}
    return Decode(3, (KIND,))(record, "rec")


def test_they_are_clipped_and_keep_their_rank():
    found = decoded(BOXES)["proposals"]
    np.testing.assert_array_equal(found, [[30, 5, 50, 25], [0, 0, 10, 10], [0, 30, 60, 40]])
    row = KIND.pad({"proposals": found}, "rec", Settings(max_proposals=2))
    np.testing.assert_array_equal(row["proposals"], found[:2])
    assert row["proposal_valid"].tolist() == [True, True]
    row = KIND.pad({"proposals": found}, "rec", Settings(max_proposals=4))
    assert row["proposal_valid"].tolist() == [True, True, True, False]
    assert not row["proposals"][3].any()


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 5)), r"rec: proposals has the shape \[2, 5\]; expected \[proposals, 4\]"),
        ([[3, 0, 1, 4]], "rec has proposals that are no"),
        ([[np.nan, 0, 1, 4]], "rec has proposals that are no"),
    ],
)
def test_what_is_no_box_is_refused(boxes, message):
    with pytest.raises(UserError, match=message):
        decoded(boxes)


def test_host_transforms_move_them():
    steps = [{"name": "resize", "size": [80, 120]}, {"name": "center_crop", "size": [40, 60]}]
    out = transforms.compose(steps, (KIND,))(decoded(BOXES), np.random.default_rng(0))
    # Twice as large, then without the 20 rows and 30 columns around; the second is outside.
    np.testing.assert_array_equal(out["proposals"], [[30, 0, 60, 30]])


def batch_of(boxes):
    boxes = np.float32(boxes)
    return {
        "image": jnp.zeros((len(boxes), 40, 60, 3)),
        "proposals": jnp.asarray(boxes),
        "proposal_valid": jnp.asarray((boxes[..., 2:] > boxes[..., :2]).all(-1)),
    }


def augmented(batch, *entries):
    return jax.device_get(jax.jit(lambda batch: augment(jax.random.key(0), batch, entries))(batch))


def test_the_device_mirrors_them():
    out = augmented(
        batch_of([[[10, 0, 20, 30], [0] * 4]] * 2), {"name": "flip_horizontal", "probability": 1.0}
    )
    np.testing.assert_array_equal(out["proposals"][:, 0], [[40, 0, 50, 30]] * 2)
    np.testing.assert_array_equal(out["proposal_valid"], [[True, False]] * 2)


def test_the_device_moves_them_out_of_the_image():
    move = {"name": "random_affine", "degrees": 0.0, "translate": (0.0, 0.0), "scale": (2.0, 2.0)}
    out = augmented(batch_of([[[25, 15, 35, 25], [0, 0, 10, 8]]]), move)
    np.testing.assert_allclose(out["proposals"][0, 0], [20, 10, 40, 30], atol=1e-4)
    assert out["proposal_valid"].tolist() == [[True, False]]


def test_joined_images_give_theirs_by_turns():
    """At half the size, around the middle: part p of an image is the image p before it."""
    boxes = [[[0, 0, 20, 20], [20, 20, 60, 40]], [[0, 0, 2, 2], [0] * 4]]
    half = {"name": "mosaic", "centre": (0.5, 0.5), "scale": (0.5, 0.5)}
    out = augmented(batch_of(boxes), half)
    np.testing.assert_array_equal(out["proposals"][0], [[0, 0, 10, 10], [30, 0, 31, 1]])
    np.testing.assert_array_equal(out["proposals"][1], [[0, 0, 1, 1], [30, 0, 40, 10]])
    assert out["proposal_valid"].all()


# -- the transform --------------------------------------------------------------------------------


def scene(channels=3):
    image = np.full((32, 48, channels), 40, np.uint8)
    image[6:20, 8:30] = 200
    image[22:30, 30:44] = 120
    return image


def proposed(image, **parameters):
    steps = transforms.compose([{"name": "selective_search", **parameters}], (KIND,))
    assert not steps.random
    return steps({"image": image}, np.random.default_rng(0))["proposals"]


def test_selective_search_of_the_image():
    every = algorithm.selective_search(scene(), "fast", seed=3)
    found = proposed(scene(), seed=3)
    np.testing.assert_array_equal(found, every)
    assert [8, 6, 30, 20] in found.tolist()
    np.testing.assert_array_equal(proposed(scene(1)), proposed(np.repeat(scene(1), 3, -1)))
    large = every[(every[:, 2:] - every[:, :2]).min(-1) >= 10]
    np.testing.assert_array_equal(proposed(scene(), seed=3, min_size=10, count=2), large[:2])
    blank = proposed(np.zeros((16, 24, 3), np.uint8))
    np.testing.assert_array_equal(blank, [[0, 0, 24, 16]])


def test_what_selective_search_refuses():
    with pytest.raises(UserError, match=r"Unknown mode of selective search 'fats'.*'fast'"):
        proposed(scene(), mode="fats")
    with pytest.raises(UserError, match="this is a volume"):
        proposed(np.zeros((4, 8, 8, 3), np.uint8))


@pytest.fixture
def calls(monkeypatch):
    """The images that are really searched."""
    made, search = [], algorithm.selective_search

    def counted(image, *given, **more):
        made.append(image)
        return search(image, *given, **more)

    monkeypatch.setattr(algorithm, "selective_search", counted)
    return made


def test_the_cache_knows_images_and_parameters(calls, tmp_path):
    cache = {"cache": str(tmp_path / "deep" / "proposals")}
    first = proposed(scene(), **cache)
    np.testing.assert_array_equal(proposed(scene(), **cache), first)
    assert len(calls) == 1
    other = scene()
    other[0, 0, 0] += 1
    for image, more in ((other, {}), (scene(), {"count": 1}), (scene(), {"mode": "single"})):
        proposed(image, **more, **cache)
    proposed(scene().reshape(48, 32, 3), **cache)  # the same bytes
    assert len(calls) == 5
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {path.suffix for path in files} == {".npy"}


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", "objects", "other"])
def test_a_damaged_file_of_the_cache_is_written_anew(calls, tmp_path, damage):
    first = proposed(scene(), cache=str(tmp_path))
    (file,) = tmp_path.rglob("*.npy")
    whole = file.read_bytes()
    if damage == "objects":  # would be unpickled
        np.save(file, np.array([{}], object), allow_pickle=True)
    elif damage == "other":
        np.save(file, np.zeros(3))
    else:
        file.write_bytes(damage)
    np.testing.assert_array_equal(proposed(scene(), cache=str(tmp_path)), first)
    assert len(calls) == 2
    assert file.read_bytes() == whole
    assert list(tmp_path.rglob("*.npy")) == [file]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"The cache of selective search, .*file, fails"):
        proposed(scene(), cache=str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b""
