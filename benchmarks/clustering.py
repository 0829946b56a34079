"""Time of the methods of `jaxvision cluster` beside scikit-learn's, scikit-image's and SciPy's.

    python benchmarks/clustering.py [--photo FILE] [--methods kmeans ncut-pixels ...] [--repeats N]
        [--json FILE] [--markdown docs/clustering.md]
    python benchmarks/clustering.py --photographs FOLDER

One photograph of 480 x 360 pixels (by default scikit-image's `coffee`), in CIELAB and position.
Both sides begin from the same start and end by the same rule. What they reach is compared first;
then they take turns, after compilation, and medians are printed. Methods that were measured before
stay in the JSON file, from which the table of the page between `<!-- results -->` and
`<!-- end -->` is written. `--photographs` writes the three photographs of the page's gallery.
Needs scikit-learn and scikit-image.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from PIL import Image

from jaxvision.classical import normalized_cuts as cuts
from jaxvision.classical import pixel_features
from jaxvision.classical.gaussian_mixture import gaussian_mixture
from jaxvision.classical.kmeans import kmeans
from jaxvision.classical.mean_shift import estimate_bandwidth, mean_shift
from jaxvision.classical.superpixels import region_means

ROOT = Path(__file__).parents[1]
SIZE = (480, 360)
SMALL = (160, 120)  # of the graph of pixels
K = 6


class Case(NamedTuple):
    """Two sides of a comparison: each returns (an objective, the lower the better, clusters)."""

    ours: Callable[[], tuple[float, int]]
    peer: Callable[[], tuple[float, int]]
    what: str
    objective: str
    tolerance: float  # by which ours may be worse, relatively


def points_of(photo: np.ndarray) -> np.ndarray:
    values = pixel_features.features(photo, ("colour", "position"), {"position": 0.5})
    return np.asarray(values).reshape(-1, values.shape[-1])


def case_kmeans(photo: np.ndarray) -> Case:
    from sklearn.cluster import KMeans

    points = points_of(photo)
    starts = points[np.random.default_rng(0).choice(len(points), K, replace=False)]

    def ours() -> tuple[float, int]:
        found = kmeans(points, K, starts=starts, max_iter=30, tol=0.0)
        return found.inertia, K

    def peer() -> tuple[float, int]:
        found = KMeans(K, init=starts, n_init=1, max_iter=30, tol=0.0).fit(points)
        return found.inertia_, K

    return Case(ours, peer, "`KMeans`, 30 iterations", "inertia", 1e-4)


def case_gmm(photo: np.ndarray) -> Case:
    from sklearn.mixture import GaussianMixture

    points = points_of(photo)
    start = kmeans(points, K)
    parts = [points[np.asarray(start.labels) == k].astype(float) for k in range(K)]
    begin = {
        "weights_init": np.array([len(part) for part in parts]) / len(points),
        "means_init": np.stack([part.mean(0) for part in parts]),
        "precisions_init": np.stack(
            [np.linalg.inv(np.cov(part.T, bias=True) + 1e-6 * np.eye(5)) for part in parts]
        ),
    }

    def ours() -> tuple[float, int]:
        found = gaussian_mixture(points, K, starts=start.centers, max_iter=20, tol=0.0)
        return -found.lower_bound, K

    def peer() -> tuple[float, int]:
        found = GaussianMixture(K, max_iter=20, tol=0.0, **begin).fit(points)
        return -found.lower_bound_, K

    return Case(ours, peer, "`GaussianMixture`, full, 20 iterations", "-log-likelihood", 1e-4)


def case_mean_shift(photo: np.ndarray) -> Case:
    from sklearn.cluster import MeanShift

    points = points_of(photo)
    bandwidth = estimate_bandwidth(points, 0.1)

    def spread(centers: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        away = np.sum((points - np.asarray(centers)[np.asarray(labels)]) ** 2)
        return float(away), len(centers)

    def ours() -> tuple[float, int]:
        found = mean_shift(points, bandwidth)
        return spread(found.centers, found.labels)

    def peer() -> tuple[float, int]:
        found = MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(points)
        return spread(found.cluster_centers_, found.labels_)

    what = f"`MeanShift(bandwidth={bandwidth:.2f}, bin_seeding=True)`"
    return Case(ours, peer, what, "distance to modes", 1e-3)


def case_ncut_superpixels(photo: np.ndarray) -> Case:
    """From the same superpixels and weights: exp(-|RGB_i - RGB_j|²/2500)."""
    from skimage import graph, segmentation

    labels = segmentation.slic(photo, 400, compactness=10, start_label=0)
    count, threshold = int(labels.max()) + 1, 0.05

    def our_graph() -> cuts.Graph:
        means = region_means(photo, labels, count)
        return cuts.region_graph(means, labels, 50.0)

    whole = our_graph()

    def value(of_pixels: np.ndarray) -> tuple[float, int]:
        """The normalised cut of a partition, and its segments."""
        of_regions = np.zeros(count, int)
        of_regions[labels.ravel()] = of_pixels.ravel()
        names, numbers = np.unique(of_regions, return_inverse=True)
        member = np.eye(len(names), dtype=np.float32)[numbers].T
        return float(cuts.ncut_value(whole, jnp.asarray(member))), len(names)

    def ours() -> tuple[float, int]:
        found = cuts.recursive_cut(our_graph(), threshold)
        return value(found.labels[labels])

    def peer() -> tuple[float, int]:
        rag = graph.rag_mean_color(photo, labels, mode="similarity", sigma=2500.0)
        return value(graph.cut_normalized(labels, rag, thresh=threshold, rng=0))

    # Values of partitions with other numbers of segments: those of the first cut are compared.
    assert_first_cut(photo, labels, whole)
    what = f"`rag_mean_color` and `cut_normalized(thresh={threshold})`, {count} superpixels"
    return Case(ours, peer, what, "normalised cut", np.inf)


def assert_first_cut(photo: np.ndarray, labels: np.ndarray, whole: cuts.Graph) -> None:
    """Our first cut in two is as good as scikit-image's, or better."""
    from skimage import graph
    from skimage.graph import _ncut as peer_cut

    rag = graph.rag_mean_color(photo, labels, mode="similarity", sigma=2500.0)
    for node in rag.nodes():
        rag.add_edge(node, node, weight=1.0)
    d, w = peer_cut.DW_matrices(rag)
    np.testing.assert_allclose(w.toarray(), whole.weights, atol=1e-4)
    root = scipy.sparse.diags(1 / np.sqrt(d.diagonal()))
    _, vectors = np.linalg.eigh((root @ (d - w) @ root).toarray())
    candidates = vectors[:, 1]
    thresholds = np.linspace(candidates.min(), candidates.max(), 10, endpoint=False)
    expected = min(peer_cut.ncut_cost(candidates > t, d, w) for t in thresholds)
    found = cuts.recursive_cut(whole, 2.0, k=2).values[0]
    print(f"first cut: ours {found:.6g}, scikit-image's {expected:.6g}")
    assert found <= 1.01 * expected


def case_ncut_pixels(photo: np.ndarray) -> Case:
    """Graph and six eigenvectors; both partitions are made from them by our discretisation."""
    small = np.asarray(Image.fromarray(photo).resize(SMALL, Image.Resampling.BOX))
    values = np.asarray(pixel_features.features(small, ("colour",)))
    everything = jnp.ones(SMALL[0] * SMALL[1], bool)
    graph = cuts.pixel_graph(values)

    def value(vectors: np.ndarray) -> tuple[float, int]:
        found = np.asarray(cuts.discretised(jnp.asarray(vectors, jnp.float32)))
        member = np.eye(K, dtype=np.float32)[found].T
        return float(cuts.ncut_value(graph, jnp.asarray(member))), len(np.unique(found))

    def ours() -> tuple[float, int]:
        _, vectors, _ = cuts.spectrum(cuts.pixel_graph(values), everything, K)
        return value(np.asarray(vectors).T)

    def peer() -> tuple[float, int]:
        weights = sparse_graph(values)
        scale = 1 / np.sqrt(np.asarray(weights.sum(1)).ravel())
        symmetric = scipy.sparse.diags(scale) @ weights @ scipy.sparse.diags(scale)
        begin = np.ones(len(scale))
        _, vectors = scipy.sparse.linalg.eigsh(symmetric, K, which="LA", tol=1e-5, v0=begin)
        return value(vectors[:, ::-1] * scale[:, None])

    what = f"SciPy's `eigsh(k={K}, tol=1e-5)`, {SMALL[0]} x {SMALL[1]} pixels, radius 5"
    return Case(ours, peer, what, "normalised cut", 1e-2)


def sparse_graph(values: np.ndarray, radius: int = 5, sigma: float = 0.3, sigma_x: float = 4.0):
    """The weights of `pixel_graph` as a sparse matrix, with NumPy."""
    height, width, _ = values.shape
    number = np.arange(height * width).reshape(height, width)
    parts = []
    for dy, dx in cuts.offsets(radius):
        here = np.s_[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        there = np.s_[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
        apart = ((values[here].astype(float) - values[there]) ** 2).sum(-1) / sigma**2
        weight = np.exp(-apart - (dy * dy + dx * dx) / sigma_x**2)
        parts.append((weight.ravel(), number[here].ravel(), number[there].ravel()))
    weight, rows, columns = (np.concatenate(part) for part in zip(*parts))
    return scipy.sparse.csr_array((weight, (rows, columns)), shape=(number.size, number.size))


CASES = {
    "kmeans": case_kmeans,
    "gmm": case_gmm,
    "mean-shift": case_mean_shift,
    "ncut-superpixels": case_ncut_superpixels,
    "ncut-pixels": case_ncut_pixels,
}


def seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, photo: np.ndarray, repeats: int) -> dict:
    """Compares what both sides reach, then times them in turns."""
    case = CASES[name](photo)
    (mine, clusters), (theirs, expected) = case.ours(), case.peer()
    assert mine <= theirs + case.tolerance * abs(theirs), (name, mine, theirs)
    if np.isfinite(case.tolerance):
        assert clusters == expected, (name, clusters, expected)
    times = [(seconds(case.ours), seconds(case.peer)) for _ in range(repeats)]
    ours, peer = (median(side) for side in zip(*times))
    return {
        "peer": case.what,
        "objective": case.objective,
        "ours": {"objective": mine, "clusters": clusters, "seconds": round(ours, 4)},
        "theirs": {"objective": theirs, "clusters": expected, "seconds": round(peer, 4)},
        "repeats": repeats,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }


def table(results: dict) -> str:
    lines = [
        "| method | beside | objective | ours | theirs | ours, s | theirs, s | faster by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        if name not in results:
            continue
        row = results[name]
        a, b = row["ours"], row["theirs"]
        sides = [f"{side['objective']:.5g} ({side['clusters']})" for side in (a, b)]
        lines.append(
            f"| {name} | {row['peer']} | {row['objective']} (clusters) | {sides[0]} | {sides[1]} | "
            f"{a['seconds']:.3f} | {b['seconds']:.3f} | {b['seconds'] / a['seconds']:.1f} |"
        )
    return "\n".join(lines)


def write_photographs(folder: Path) -> None:
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("coffee", "chelsea", "astronaut"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", help="default: scikit-image's coffee")
    parser.add_argument("--photographs", metavar="FOLDER", help="write the gallery's, and end")
    parser.add_argument("--methods", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", default=str(ROOT / "benchmarks" / "clustering.json"))
    parser.add_argument("--markdown", default=str(ROOT / "docs" / "clustering.md"))
    options = parser.parse_args()
    if options.photographs:
        write_photographs(Path(options.photographs))
        return
    warnings.filterwarnings("ignore", message=".*did not converge.*")
    if options.photo:
        image = Image.open(options.photo).convert("RGB")
    else:
        from skimage import data

        image = Image.fromarray(data.coffee())
    photo = np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC))
    path, page = Path(options.json), Path(options.markdown)
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in options.methods:
        results[name] = measure(name, photo, options.repeats)
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    if page.is_file():
        head, rest = page.read_text().split("<!-- results -->")
        tail = rest.split("<!-- end -->")[1]
        page.write_text(f"{head}<!-- results -->\n\n{table(results)}\n\n<!-- end -->{tail}")


if __name__ == "__main__":
    main()
