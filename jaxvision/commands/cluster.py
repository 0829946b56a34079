"""Cluster the pixels of photos: k-means, Gaussian mixtures, mean shift, normalised cuts.

    jaxvision cluster photo.jpg --k 5 --features colour,position --position-weight 0.5
    jaxvision cluster photo.jpg --method mean-shift --quantile 0.05
    jaxvision cluster photo.jpg --method ncut --superpixels 400 --cut recursive --threshold 0.01
    jaxvision cluster a.jpg b.jpg c.jpg --method all --output gallery

Writes a label map of each photo's own size and a picture of photo, clusters in their mean colours
and their boundaries; with `all` also gallery.png, a row for each photo (docs/clustering.md).
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

METHODS = ("kmeans", "gmm", "mean-shift", "ncut")
CUTS = ("k-way", "recursive")
_SIZE = 480  # longer side of what is clustered
_SIZE_OF_PIXEL_GRAPHS = 160
_SIGMA_OF_PIXELS, _SIGMA_OF_SUPERPIXELS = 0.3, 0.7
_K = 6
_COMPONENTS = 8  # of a network's channels
_TILE = 300  # width of a gallery's pictures

# Options of some methods only, and their defaults.
_OWN: dict[str, tuple[tuple[str, ...], Any]] = {
    "k": (("kmeans", "gmm", "ncut"), None),
    "init": (("kmeans",), "k-means++"),
    "n_init": (("kmeans", "gmm"), 1),
    "max_iter": (("kmeans", "gmm", "mean-shift"), None),
    "tol": (("kmeans", "gmm"), None),
    "max_changes": (("kmeans",), 0.0),
    "objective_tol": (("kmeans",), 0.0),
    "covariance": (("gmm",), "full"),
    "bandwidth": (("mean-shift",), None),
    "quantile": (("mean-shift",), 0.1),
    "kernel": (("mean-shift",), "flat"),
    "superpixels": (("ncut",), 0),
    "cut": (("ncut",), None),
    "threshold": (("ncut",), None),
    "radius": (("ncut",), 5),
    "sigma": (("ncut",), None),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", help="image files and folders")
    add("--method", default="kmeans", help=f"{', '.join(METHODS)} or all (default kmeans)")
    add("--output", default="clusters", metavar="FOLDER", help="default clusters")
    add("--size", type=int, metavar="PIXELS", help="longer side of what is clustered (default "
        f"{_SIZE}; {_SIZE_OF_PIXEL_GRAPHS} for ncut of pixels)")  # fmt: skip
    add("--seed", type=int, default=0, help="of random starts")
    add("--features", default="colour,position",
        help="of intensity, colour (CIELAB), rgb, position, texture, network; ncut takes position "
        "from its graph (default colour,position)")  # fmt: skip
    add("--position-weight", type=float, default=0.5, help="default 0.5")
    add("--texture-weight", type=float, default=1.0, help="default 1")
    add("--network-weight", type=float, default=1.0, help="default 1")
    add("--model", help="network: which")
    add("--weights", default="default", help="network: file, tag or Hub name")
    add("--map", type=int, default=2, help="network: which of its maps, from 0, finest first")
    add("--k", type=int, help=f"kmeans, gmm, ncut: clusters (default {_K})")
    add("--init", help="kmeans: k-means++ (default) or random")
    add("--n-init", type=int, help="kmeans, gmm: starts, of which the best is kept (default 1)")
    add("--max-iter", type=int, help="kmeans, gmm, mean-shift: iterations (300, 100, 300)")
    add("--tol", type=float, help="stop: kmeans at this shift of centres, of the variance (1e-4); "
        "gmm at this gain of log-likelihood (1e-3)")  # fmt: skip
    add("--max-changes", type=float, help="kmeans: stop where this share changes cluster (0)")
    add("--objective-tol", type=float, help="kmeans: stop at this relative gain of inertia (0)")
    add("--covariance", help="gmm: full (default), diag or spherical")
    add("--bandwidth", type=float, help="mean-shift: of the kernel (default: estimated)")
    add("--quantile", type=float, help="mean-shift: share of pixels in an estimated one (0.1)")
    add("--kernel", help="mean-shift: flat (default) or gaussian")
    add("--superpixels", type=int, metavar="N", help="ncut: of N superpixels (default: of pixels)")
    add("--cut", help="ncut: k-way (default) or recursive")
    add("--threshold", type=float, help="ncut: cut recursively, up to this value of a cut")
    add("--radius", type=int, help="ncut: pixels up to this distance are joined (default 5)")
    add("--sigma", type=float, help="ncut: of the features, whose variance is 1 (default "
        f"{_SIGMA_OF_PIXELS}, of superpixels {_SIGMA_OF_SUPERPIXELS})")  # fmt: skip


@dataclass
class Result:
    """Clusters of a photo as it was clustered: labels [h, w], the largest cluster first."""

    labels: "np.ndarray"
    found: str
    seconds: float


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from PIL import Image

    from jaxvision.train import compilation

    if overrides:
        raise UserError(f"There is no configuration; leave out --config.{next(iter(overrides))}.")
    methods = check(options)
    photos = _photos(options.inputs)
    network = _network(options)
    compilation.use_cache("auto")
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, photo in photos.items():
        tiles = []
        for method in methods:
            small = _reduced(photo, _longer_side(method, options))
            result = cluster(small, method, options, network)
            height, width = small.shape[:2]
            count = int(result.labels.max()) + 1
            print(
                f"{name}: {method}, {count} cluster{'s' * (count > 1)} of {width}x{height} pixels, "
                f"{result.found}, {result.seconds:.2f} s",
                flush=True,
            )
            labels = _enlarged(result.labels, photo.shape[:2])
            _write_labels(folder / f"{name}_{method}", labels)
            shown = _enlarged(result.labels, _reduced(photo, _SIZE).shape[:2])
            tiles.append(_in_mean_colours(_reduced(photo, _SIZE), shown))
            picture = _triptych(_reduced(photo, _SIZE), tiles[-1], shown)
            Image.fromarray(picture).save(folder / f"{name}_{method}_picture.png", optimize=True)
        rows.append([_reduced(photo, _SIZE), *tiles])
    if options.method == "all":
        gallery = _gallery(rows, ("photo", *methods))
        Image.fromarray(gallery).save(folder / "gallery.png", optimize=True)
    what = "label maps and pictures" + (" and gallery.png" if options.method == "all" else "")
    print(f"Wrote {what} to {folder}")


def check(options: argparse.Namespace) -> tuple[str, ...]:
    """The methods to use; fills in the defaults of their options.

    Raises:
      UserError: options that contradict each other, or name nothing known.
    """
    if options.method not in (*METHODS, "all"):
        raise unknown("method", options.method, (*METHODS, "all"))
    methods = METHODS if options.method == "all" else (options.method,)
    for name, (owners, default) in _OWN.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif not set(owners) & set(methods):
            why = " it finds the number of clusters itself;" if name == "k" else ""
            flag = name.replace("_", "-")
            raise UserError(
                f"--{flag} is an option of {', '.join(owners)}, not of {options.method};{why} "
                "leave it out."
            )
    for name, least in (("k", 1), ("superpixels", 0), ("radius", 1), ("size", 8), ("map", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value} must be at least {least}.")
    if options.sigma is None:
        options.sigma = _SIGMA_OF_SUPERPIXELS if options.superpixels else _SIGMA_OF_PIXELS
    if options.sigma <= 0:
        raise UserError(f"--sigma={options.sigma} must be positive.")
    if options.cut is not None and options.cut not in CUTS:
        raise unknown("cut", options.cut, CUTS)
    if options.threshold is not None and options.cut == "k-way":
        raise UserError("--threshold ends recursive cuts; leave it out, or --cut k-way.")
    from jaxvision.classical.pixel_features import FEATURES

    names = _features(options)
    for name in names:
        if name not in (*FEATURES, "network"):
            raise unknown("feature", name, (*FEATURES, "network"))
    if ("network" in names) != bool(options.model):
        raise UserError("--features network and --model NAME belong together; give both.")
    if "ncut" in methods and names == ["position"]:
        raise UserError("ncut takes position from its graph; name another feature too.")
    return methods


def _features(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.features.split(",") if name.strip()]


def _longer_side(method: str, options: argparse.Namespace) -> int:
    of_pixels = method == "ncut" and not options.superpixels
    return options.size or (_SIZE_OF_PIXEL_GRAPHS if of_pixels else _SIZE)


# -- clustering -----------------------------------------------------------------------------------


def cluster(photo: "np.ndarray", method: str, options: argparse.Namespace, network=None) -> Result:
    """Clusters the pixels of a photo uint8 [h, w, 3] by one method with its checked options."""
    import numpy as np

    from jaxvision.classical import pixel_features

    start = time.perf_counter()
    names = [n for n in _features(options) if (method, n) != ("ncut", "position")]
    weights = {n: getattr(options, f"{n}_weight") for n in names if hasattr(options, f"{n}_weight")}
    extra = {"network": network(photo)} if network else {}
    values = pixel_features.features(photo, names, weights, extra)
    labels, found = _METHODS[method](photo, values, options)
    # The largest first, and none left out.
    _, labels, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    labels = rank[labels].reshape(photo.shape[:2]).astype(np.int32)
    return Result(labels, found, time.perf_counter() - start)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that were given; the others keep the function's defaults."""
    return {n: getattr(options, n) for n in names if getattr(options, n) is not None}


def _kmeans(photo, values, options: argparse.Namespace):
    from jaxvision.classical.kmeans import kmeans

    flat = values.reshape(-1, values.shape[-1])
    own = _given(options, "init", "n_init", "max_iter", "tol", "max_changes", "objective_tol")
    found = kmeans(flat, options.k or _K, seed=options.seed, **own)
    inertia = found.inertia / len(flat)
    return found.labels, (
        f"inertia {inertia:.4f} a pixel, {found.iterations} iterations (ended by {found.stopped})"
    )


def _gmm(photo, values, options: argparse.Namespace):
    from jaxvision.classical.gaussian_mixture import gaussian_mixture

    flat = values.reshape(-1, values.shape[-1])
    own = _given(options, "n_init", "max_iter", "tol")
    found = gaussian_mixture(flat, options.k or _K, options.covariance, seed=options.seed, **own)
    ended = "" if found.converged else " (not converged)"
    return found.labels, (
        f"log-likelihood {found.lower_bound:.4f} a pixel, {found.iterations} iterations{ended}"
    )


def _mean_shift(photo, values, options: argparse.Namespace):
    from jaxvision.classical.mean_shift import estimate_bandwidth, mean_shift

    flat = values.reshape(-1, values.shape[-1])
    bandwidth = options.bandwidth
    if bandwidth is None:
        bandwidth = estimate_bandwidth(flat, options.quantile, seed=options.seed) or 1.0
    own = _given(options, "kernel", "max_iter")
    found = mean_shift(flat, bandwidth, **own)
    return found.labels, f"bandwidth {bandwidth:.4f}, {found.iterations} iterations"


def _ncut(photo, values, options: argparse.Namespace):
    import numpy as np

    from jaxvision.classical import normalized_cuts as cuts
    from jaxvision.classical import pixel_features, superpixels

    if options.superpixels:
        regions = superpixels.slic(pixel_features.lab(photo), options.superpixels)
        means = superpixels.region_means(values, regions, int(regions.max()) + 1)
        graph = cuts.region_graph(means, regions, options.sigma)
        nodes = f"{len(means)} superpixels"
    else:
        regions = np.arange(photo.shape[0] * photo.shape[1]).reshape(photo.shape[:2])
        graph = cuts.pixel_graph(values, options.radius, options.sigma)
        nodes = "pixels"
    if options.cut == "recursive" or options.threshold is not None:
        k = options.k or (_K if options.threshold is None else None)
        limit = options.threshold or 2.0  # above any cut's value
        segments = cuts.recursive_cut(graph, limit, k)
    else:
        segments = cuts.k_way_cut(graph, options.k or _K)
    return segments.labels[regions], f"normalised cut {segments.ncut:.4g} of {nodes}"


_METHODS = {"kmeans": _kmeans, "gmm": _gmm, "mean-shift": _mean_shift, "ncut": _ncut}


def _network(options: argparse.Namespace):
    """A function from photos to a network's maps; None without `--model`."""
    if not options.model:
        return None
    import jax
    import jax.numpy as jnp

    from jaxvision import pretrained
    from jaxvision.classical.pixel_features import principal
    from jaxvision.interop.published import Published, resolve
    from jaxvision.interop.weight_files import split_choice
    from jaxvision.tasks.inputs import Inputs

    _, known = resolve(split_choice(options.weights).place, options.model)
    model, variables = pretrained.create(options.model, options.weights, features_only=True)
    known = known or Published()
    inputs = Inputs(known.mean, known.std)
    apply = jax.jit(lambda v, image: model.apply(v, inputs.evaluate(image), train=False))

    def maps(photo):
        found = apply(variables, jnp.asarray(photo)[None])
        if options.map >= len(found):
            raise UserError(f"--map={options.map}; {options.model} has maps 0 to {len(found) - 1}.")
        small = principal(found[options.map][0].astype(jnp.float32), _COMPONENTS)
        return jax.image.resize(small, (*photo.shape[:2], small.shape[-1]), "bilinear")

    return maps


# -- photos and pictures --------------------------------------------------------------------------


def _photos(inputs: list[str]) -> "dict[str, np.ndarray]":
    """Photos by the names that their results will have."""
    from jaxvision.data.codecs import decode_image
    from jaxvision.data.sources import read_file
    from jaxvision.runs import image_files

    photos: dict[str, Any] = {}
    for file in image_files(inputs):
        name, again = file.stem, 2
        while name in photos:
            name, again = f"{file.stem}_{again}", again + 1
        photos[name] = decode_image(read_file(file), 3, str(file))
    return photos


def _reduced(photo: "np.ndarray", longer: int) -> "np.ndarray":
    """With no side above `longer`."""
    import cv2

    height, width = photo.shape[:2]
    scale = longer / max(height, width)
    if scale >= 1:
        return photo
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def _enlarged(labels: "np.ndarray", size: tuple[int, int]) -> "np.ndarray":
    """Labels at the pixels of another size."""
    import numpy as np

    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, labels.shape))
    return labels[rows.astype(int)[:, None], columns.astype(int)]


def _write_labels(path: Path, labels: "np.ndarray") -> None:
    """A PNG whose palette indices are the labels; from 257 clusters on also PATH.npy."""
    import numpy as np
    from PIL import Image

    from jaxvision.tasks.pictures import palette

    if labels.max() > 255:
        np.save(f"{path}.npy", labels)
    picture = Image.fromarray((labels % 256).astype(np.uint8))
    picture.putpalette(palette(256).tobytes())
    picture.save(f"{path}.png", optimize=True)


def _in_mean_colours(photo: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    import numpy as np

    from jaxvision.classical.superpixels import region_means

    means = np.asarray(region_means(photo, labels, int(labels.max()) + 1))
    return np.round(means[labels]).astype(np.uint8)


def _triptych(photo: "np.ndarray", coloured: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    """Photo, clusters in their mean colours, boundaries on the photo."""
    import numpy as np

    from jaxvision.classical.superpixels import boundaries
    from jaxvision.inspect import draw

    lined = np.where(
        np.asarray(boundaries(labels))[..., None], np.array([255, 255, 0], np.uint8), photo
    )
    return draw.grid(np.stack([photo, coloured, lined]), columns=3, gap=4)


def _gallery(rows: "list[list[np.ndarray]]", titles: tuple[str, ...]) -> "np.ndarray":
    """A row for each photo under the names of the columns."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from jaxvision.inspect import draw

    bands = []
    for row in rows:
        height, width = row[0].shape[:2]
        size = (round(_TILE * height / width), _TILE)
        tiles = np.stack([draw.resized(tile, size, smooth=True) for tile in row])
        bands.append(draw.grid(tiles, columns=len(row), gap=4))
    header = Image.new("RGB", (bands[0].shape[1], 24), "white")
    pen, font = ImageDraw.Draw(header), ImageFont.load_default(15)
    for index, title in enumerate(titles):
        middle = 4 + index * (_TILE + 4) + _TILE / 2
        pen.text((middle, 13), title, fill="black", font=font, anchor="mm")
    return np.concatenate([np.asarray(header), *bands])
