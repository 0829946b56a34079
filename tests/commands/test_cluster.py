"""`jaxvision cluster` on small photos."""

import numpy as np
import pytest
from PIL import Image

from jaxvision import cli, models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two squares on a ground, with some noise; one large, one small."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, (height, width) in {"large": (120, 160), "small": (24, 32)}.items():
        photo = np.full((height, width, 3), (40, 90, 200), np.uint8)
        photo[height // 4 : height // 2, width // 8 : width // 3] = (230, 40, 30)
        photo[height // 2 :, width // 2 : -width // 8] = (250, 240, 60)
        noisy = photo + rng.normal(0, 4, photo.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def cluster(*arguments):
    cli.run(["cluster", *map(str, arguments)])


def truth(height, width):
    labels = np.zeros((height, width), int)
    labels[height // 4 : height // 2, width // 8 : width // 3] = 1
    labels[height // 2 :, width // 2 : -width // 8] = 2
    return labels


def purity(labels, expected):
    """Share of the pixels in the class that most of their cluster are of."""
    return sum(np.bincount(expected[labels == k]).max() for k in np.unique(labels)) / labels.size


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kmeans", ("--k", 3, "--n-init", 3, "--max-changes", 0.001)),
        ("gmm", ("--k", 3, "--covariance", "diag", "--features", "colour")),
        ("mean-shift", ("--bandwidth", 0.6)),
        ("ncut", ("--k", 3, "--superpixels", 120)),
        ("ncut", ("--threshold", 0.05, "--superpixels", 120, "--sigma", 0.4)),
    ],
)
def test_every_method_finds_the_squares(method, options, photos, tmp_path, capsys):
    photo = photos / "large.png"
    cluster(photo, "--method", method, *options, "--output", tmp_path, "--position-weight", 0.1)
    picture = Image.open(tmp_path / f"large_{method}.png")
    assert (picture.mode, picture.size) == ("P", (160, 120))
    labels = np.asarray(picture)
    assert 3 <= labels.max() + 1 <= 8
    assert purity(labels, truth(120, 160)) > 0.98
    sizes = np.bincount(labels.ravel())
    assert (np.diff(sizes) <= 0).all()  # the largest first
    shown = np.asarray(Image.open(tmp_path / f"large_{method}_picture.png"))
    assert shown.shape == (128, 3 * 164 + 4, 3)
    said = capsys.readouterr().out
    assert f"large: {method}, {labels.max() + 1} clusters of 160x120 pixels, " in said
    assert " s\n" in said


def test_a_gallery_of_all_methods(photos, tmp_path, capsys):
    arguments = (photos / "small.png", photos / "small.png", "--method", "all", "--radius", 2)
    cluster(*arguments, "--k", 3, "--output", tmp_path)
    methods = ("kmeans", "gmm", "mean-shift", "ncut")
    for name in ("small", "small_2"):
        for method in methods:
            assert np.asarray(Image.open(tmp_path / f"{name}_{method}.png")).shape == (24, 32)
    assert Image.open(tmp_path / "gallery.png").size == (5 * 304 + 4, 24 + 2 * (225 + 8))
    said = capsys.readouterr().out
    assert "normalised cut" in said
    assert said.endswith(f"Wrote label maps and pictures and gallery.png to {tmp_path}\n")


def test_label_maps_are_of_the_photos_size_and_hold_any_number(photos, tmp_path):
    options = ("--size", 40, "--k", 300, "--max-iter", 2)
    cluster(photos / "large.png", *options, "--output", tmp_path)
    labels = np.load(tmp_path / "large_kmeans.npy")
    assert labels.shape == (120, 160)
    assert labels.max() >= 256
    assert np.asarray(Image.open(tmp_path / "large_kmeans.png")).shape == (120, 160)


def test_one_colour_and_one_pixel(tmp_path):
    for size, methods in (((12, 9), ("mean-shift", "gmm", "ncut")), ((1, 1), ("kmeans", "ncut"))):
        Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "flat.png")
        for method in methods:
            few = () if method == "mean-shift" else ("--k", 1)
            cluster(
                tmp_path / "flat.png", "--method", method, *few, "--features", "colour",
                "--output", tmp_path,
            )  # fmt: skip
            labels = np.asarray(Image.open(tmp_path / f"flat_{method}.png"))
            np.testing.assert_array_equal(labels, np.zeros(size[::-1]))


def test_maps_of_a_network(photos, tmp_path):
    import jax
    import jax.numpy as jnp

    model = models.create("resnet8_cifar", 10)
    image = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()
    torch_weights.save(tmp_path / "weights.safetensors", variables)
    of = ("--model", "resnet8_cifar", "--weights", tmp_path / "weights.safetensors")
    options = ("--k", 3, "--features", "network,colour", "--network-weight", 0.5)
    cluster(photos / "small.png", *of, *options, "--map", 0, "--output", tmp_path)
    assert np.asarray(Image.open(tmp_path / "small_kmeans.png")).max() == 2
    with pytest.raises(UserError, match="--map=9; resnet8_cifar has maps 0 to"):
        cluster(photos / "small.png", *of, *options, "--map", 9, "--output", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "meanshift"), "Unknown method 'meanshift'. Did you mean 'mean-shift'"),
        (("--method", "mean-shift", "--k", "3"), "finds the number of clusters itself"),
        (("--bandwidth", "1"), "--bandwidth is an option of mean-shift, not of kmeans"),
        (("--k", "0"), "--k=0 must be at least 1"),
        (("--k", "1000"), "k is from 1 to 768"),
        (("--features", "color"), "Did you mean 'colour'"),
        (("--features", ","), "name at least one"),
        (("--features", "network"), "--features network and --model NAME belong together"),
        (("--model", "resnet18"), "--features network and --model NAME belong together"),
        (("--method", "ncut", "--features", "position"), "ncut takes position from its graph"),
        (("--method", "ncut", "--cut", "kway"), "Did you mean 'k-way'"),
        (("--method", "ncut", "--cut", "k-way", "--threshold", "0.1"), "ends recursive cuts"),
        (("--method", "ncut", "--superpixels", "-4"), "--superpixels=-4 must be at least 0"),
        (("--method", "ncut", "--superpixels", "9999"), "from 1 to 768"),
        (("--method", "ncut", "--sigma", "0"), "--sigma=0.0 must be positive"),
        (("--method", "gmm", "--covariance", "tied"), "Unknown covariance 'tied'"),
        (("--init", "kmeans"), "Did you mean 'k-means"),
        (("--position-weight", "-1"), "The weight of position is -1.0"),
        (("--size", "2"), "--size=2 must be at least 8"),
        (("--sise", "2"), "Did you mean 'size'"),
        (("--config.seed=1",), "There is no configuration; leave out --config.seed"),
    ],
)
def test_bad_options_are_refused(arguments, message, photos, tmp_path):
    import re

    with pytest.raises(UserError, match=re.escape(message)):
        cluster(photos / "small.png", *arguments, "--output", tmp_path / "out")


def test_bad_photos_are_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(UserError, match=r"Cannot read image .*broken.png"):
        cluster(tmp_path / "broken.png", "--output", tmp_path / "out")
    with pytest.raises(UserError, match="No such file or folder"):
        cluster(tmp_path / "absent.png", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
