"""Images per second of the input pipeline, wall and per CPU second, beside others doing its work.

    python benchmarks/loader.py [--images DIR] [--seconds 3] [--rounds 10] [--json FILE]
        [--torch-python PYTHON] [--tf-python PYTHON]

The work: read a JPEG photograph of about 500x375, random-resized crop to 224 by bilinear
interpolation, flip, batches of 64. Ours is `jaxvision.data.loader.Loader`, batches on the device,
nothing consuming them, from a folder of files and from the same files in a TFDS data set prepared
as ArrayRecord. It gives uint8: flips and normalising are part of the training step, on the device;
`with flips, float32` computes them too, on this machine's default device.

The others read the same files: Grain with a hand-written record function of the same decoder;
torchvision and PyTorch's DataLoader with two workers, as commonly written (Pillow, normalised
float32); DataLoader with our decoder (uint8); tf.data. `no loader` is the decoder and the resizing
alone, in a thread a core: what no loader around them exceeds. `idx 28x28` is ours over arrays in
memory; `2 + 8 views` are the crops of multi-crop, two of 224 and eight of 96 pixels, of each image
(what is done to their colours is part of our training step, and left out of theirs). Each runs in a
process of its own; rounds are interleaved and their median is shown. PyTorch and TensorFlow may
live in other interpreters. Without --images, 256 photographs are made from those of scikit-learn
and scikit-image.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # parity.references

from loader_data import RECORDS, files_of, make_arrays, make_photographs, make_records
from report import machine, save, table

BATCH, SIZE = 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of multi-crop: how many, their side, and bounds of their area.
CROPS = {"global": (2, 224, (0.25, 1.0)), "local": (8, 96, (0.05, 0.25))}


# -- pipelines: (folder of files, folder with what was made of them) -> batches -------------------


def ours(folder: Path, scratch: Path) -> Iterator[Any]:
    data = _config("folder", folder)
    data.train_transforms = ({"name": "random_resized_crop", "size": SIZE},)
    return (batch["image"] for batch in _batches(data))


def ours_records(folder: Path, scratch: Path) -> Iterator[Any]:
    data = _config("tfds", scratch / "tfds")
    data.name = RECORDS
    data.train_transforms = ({"name": "random_resized_crop", "size": SIZE},)
    return (batch["image"] for batch in _batches(data))


def ours_augmented(folder: Path, scratch: Path) -> Iterator[Any]:
    """With what the training step does to a batch first."""
    import jax

    from jaxvision.tasks.inputs import Inputs

    data = _config("folder", folder)
    data.train_transforms = ({"name": "random_resized_crop", "size": SIZE},)
    augment = jax.jit(Inputs(MEAN, STD, ({"name": "flip_horizontal"},)).train)
    for index, batch in enumerate(_batches(data)):
        yield jax.block_until_ready(augment(batch, jax.random.key(index)))["image"]


def ours_views(folder: Path, scratch: Path) -> Iterator[Any]:
    """DINO's: two crops of 224 and eight of 96 of each photograph."""

    def crops(count: int, size: int, scale: tuple[float, float]) -> dict[str, Any]:
        crop = {"name": "random_resized_crop", "size": size, "scale": scale}
        return {"count": count, "transforms": [crop]}

    data = _config("folder", folder)
    views = {kind: crops(*crop) for kind, crop in CROPS.items()}
    data.train_transforms = ({"name": "views", "views": views},)
    return (batch["views_global"] for batch in _batches(data))


def ours_arrays(folder: Path, scratch: Path) -> Iterator[Any]:
    data = _config("idx", scratch / "idx")
    data.channels = 1
    return (batch["image"] for batch in _batches(data))


def _config(source: str, folder: Path) -> Any:
    from jaxvision.tasks import default_config

    data = default_config().data
    data.source, data.dir = source, str(folder)
    return data


def _batches(data: Any) -> Iterator[dict[str, Any]]:
    import jax

    from jaxvision.data.loader import Loader, open_stream
    from jaxvision.train.memory import keep_freed_memory

    keep_freed_memory()

    stream = open_stream(data, "train", seed=0, train=True)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for batch in Loader(stream, BATCH, device).batches(0, 10**6):
        yield jax.block_until_ready(batch)


def crop_window(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """x, y, width and height as torchvision draws them."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, width - w + 1), rng.integers(0, height - h + 1), w, h
    return 0, 0, width, height


def by_hand(path: Path, rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIZE, SIZE, 3] by the decoder and the resizing that ours uses."""
    import cv2
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(path.read_bytes())
    x, y, w, h = crop_window(rng, pixels.shape[1], pixels.shape[0])
    window = cv2.resize(pixels[y : y + h, x : x + w], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(window, 1) if rng.random() < 0.5 else window


def no_loader(folder: Path, scratch: Path) -> Iterator[Any]:
    import cv2

    cv2.setNumThreads(0)
    files, cores = files_of(folder), len(os.sched_getaffinity(0))

    def some(first: int) -> int:
        rng = np.random.default_rng(first)
        for index in range(first, first + BATCH):
            by_hand(files[index % len(files)], rng)
        return BATCH

    with ThreadPoolExecutor(cores) as threads:
        waiting = [threads.submit(some, BATCH * index) for index in range(cores)]
        for index in itertools.count(cores):
            waiting.append(threads.submit(some, BATCH * index))
            yield range(waiting.pop(0).result())


def hand_written_grain(folder: Path, scratch: Path) -> Iterator[Any]:
    import cv2
    import grain

    cv2.setNumThreads(0)

    class Crop(grain.transforms.RandomMap):
        def random_map(self, path: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": by_hand(path, rng)}

    dataset = grain.MapDataset.source(files_of(folder)).shuffle(seed=0).repeat()
    dataset = dataset.random_map(Crop(), seed=1)
    options = grain.ReadOptions(num_threads=2 * (os.cpu_count() or 1), prefetch_buffer_size=128)
    for batch in dataset.to_iter_dataset(options).batch(BATCH):
        yield batch["image"]


def torchvision_folder(folder: Path, scratch: Path) -> Iterator[Any]:
    data = _image_folder(folder, _torchvision_crop(SIZE))
    return (images for images, labels in _torch_batches(data))


def torchvision_views(folder: Path, scratch: Path) -> Iterator[Any]:
    crops = [
        _torchvision_crop(size, scale)
        for count, size, scale in CROPS.values()
        for _ in range(count)
    ]
    data = _image_folder(folder, lambda image: [crop(image) for crop in crops])
    return (views[0] for views, labels in _torch_batches(data))


def _image_folder(folder: Path, transform: Callable[[Any], Any]) -> Any:
    from parity import references

    return references.torchvision().datasets.ImageFolder(str(folder / "train"), transform)


def _torchvision_crop(size: int, scale: tuple[float, float] = (0.08, 1.0)) -> Callable[[Any], Any]:
    """As commonly written: Pillow, normalised float32."""
    from parity import references

    references.torchvision()
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def torch_uint8(folder: Path, scratch: Path) -> Iterator[Any]:
    import cv2

    cv2.setNumThreads(0)
    return _torch_batches(TorchFiles(folder))


class TorchFiles:
    """A torch data set of what `by_hand` gives."""

    def __init__(self, folder: Path):
        self.files, self.rng = files_of(folder), None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch

        if self.rng is None:  # of a worker
            self.rng = np.random.default_rng(torch.initial_seed())
        return torch.from_numpy(by_hand(self.files[index], self.rng))


def _torch_batches(data: Any) -> Iterator[Any]:
    """Two workers, shuffled, one epoch after another without a pause."""
    import torch

    torch.set_num_threads(1)
    sampler = torch.utils.data.RandomSampler(data, num_samples=10**6)
    return iter(torch.utils.data.DataLoader(data, BATCH, sampler=sampler, num_workers=2))


def tf_data(folder: Path, scratch: Path) -> Iterator[Any]:
    import tensorflow as tf

    def prepare(path: Any, seed: Any) -> Any:
        encoded = tf.io.read_file(path)
        seeds = tf.stack([seed, 0])
        start, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            seeds,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([start[:2], extent[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE), method="bilinear")
        image = tf.image.stateless_random_flip_left_right(image, seeds)
        return tf.cast(tf.round(image), tf.uint8)

    files = [str(path) for path in files_of(folder)]
    paths = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    seeds = tf.data.Dataset.random(seed=0)
    data = tf.data.Dataset.zip(paths, seeds).map(prepare, tf.data.AUTOTUNE, deterministic=False)
    return iter(data.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


OURS, RECORD_FILES = "jaxvision Loader, folder", "jaxvision Loader, ArrayRecord"
AUGMENTED, ARRAYS = "jaxvision Loader, with flips, float32", "jaxvision Loader, idx 28x28"
VIEWS, COMMON_VIEWS = "jaxvision Loader, 2 + 8 views", "torchvision + DataLoader, 2 + 8 views"
COMMON, SAME_DECODER = "torchvision + DataLoader, float32", "DataLoader, our decoder, uint8"
GRAIN, TF_DATA, NO_LOADER = "Grain by hand", "tf.data", "no loader"
PIPELINES: dict[str, Callable[[Path, Path], Iterator[Any]]] = {
    OURS: ours,
    RECORD_FILES: ours_records,
    AUGMENTED: ours_augmented,
    COMMON: torchvision_folder,
    SAME_DECODER: torch_uint8,
    TF_DATA: tf_data,
    GRAIN: hand_written_grain,
    NO_LOADER: no_loader,
    ARRAYS: ours_arrays,
    VIEWS: ours_views,
    COMMON_VIEWS: torchvision_views,
}
# Ours, beside which a pipeline is put.
BESIDE = {COMMON_VIEWS: VIEWS}
# What each needs beside jaxvision; it may live in another interpreter.
PACKAGE = {
    COMMON: "torchvision",
    COMMON_VIEWS: "torchvision",
    SAME_DECODER: "torch",
    TF_DATA: "tensorflow",
}


# -- measuring ------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process and those it started, which still run."""
    import psutil

    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure(batches: Iterator[Any], seconds: float) -> dict[str, float]:
    """Images a second and a CPU second, after a third of the time for warming up."""
    begin, warm = time.perf_counter(), 0
    while warm < 4 or time.perf_counter() - begin < seconds / 3:
        next(batches)
        warm += 1
    cpu, begin, count = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        count += len(next(batches))
    wall = time.perf_counter() - begin
    return {"wall": count / wall, "cpu": count / (cpu_seconds() - cpu)}


def in_process(python: str, *arguments: str) -> Any:
    """What this script prints as JSON for the arguments, in an interpreter of its own.

    Packages that another interpreter lacks are taken from this one's.

    Raises:
      RuntimeError: the last line of its errors.
    """
    here = [str(Path(__file__).parent), *(p for p in sys.path if p.endswith("site-packages"))]
    code = (
        f"import sys, runpy; sys.path += {here!r}; sys.argv = {[__file__, *arguments]!r}; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(lines[-1])


def version(package: str, python: str) -> str:
    """Of a package in another interpreter."""
    code = (
        "import importlib.metadata as m; "
        f"print(m.version(m.packages_distributions()[{package!r}][0]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "not installed"


def interpreters(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """({pipeline: interpreter}, {package: version, or "not installed"})."""
    chosen, versions = {}, {}
    for name in options.pipelines:
        package = PACKAGE.get(name)
        other = options.tf_python if package == "tensorflow" else options.torch_python
        chosen[name] = (other if package else None) or sys.executable
        if package and package not in versions:
            versions[package] = version(package, chosen[name])
        if package and versions[package] == "not installed":
            print(f"{name}: {package} is not installed in {chosen.pop(name)}", file=sys.stderr)
    return chosen, versions


def rounds(python: dict[str, str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{pipeline: medians}, after interleaved rounds."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in python}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = options.images or scratch / "images"
        if not options.images:
            make_photographs(folder)
        if RECORD_FILES in python:
            make_records(folder, scratch)
        if ARRAYS in python:
            make_arrays(scratch)
        common = ["--images", str(folder), "--scratch", str(scratch)]
        common += ["--seconds", str(options.seconds)]
        for _, name in itertools.product(range(options.rounds), python):
            found[name].append(in_process(python[name], *common, "--only", name))
    return {
        name: {key: statistics.median(r[key] for r in runs) for key in ("wall", "cpu")}
        for name, runs in found.items()
    }


# -- reporting ------------------------------------------------------------------------------------


def rows_of(medians: dict[str, dict[str, float]], wanted: Iterable[str]) -> list[dict[str, Any]]:
    """The medians of those that were wanted, with ours over theirs where they do the same work."""
    rows = []
    for name in wanted:
        row = {"pipeline": name, **medians.get(name, {})}
        ours = BESIDE.get(name, OURS)
        if name in medians and not name.startswith("jaxvision") and ours in medians:
            row |= {f"{key}_ratio": medians[ours][key] / row[key] for key in ("wall", "cpu")}
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    cells = [
        (
            row["pipeline"],
            f"{row['wall']:,.0f}" if "wall" in row else "not measured",
            f"{row['cpu']:,.0f}" if "cpu" in row else "",
            f"{row['wall_ratio']:.2f}" if "wall_ratio" in row else "",
            f"{row['cpu_ratio']:.2f}" if "cpu_ratio" in row else "",
        )
        for row in result["rows"]
    ]
    head = ("", "images/s", "images per CPU second", "ours / theirs, wall", "ours / theirs, CPU")
    return (
        f"JPEG photographs of about 500x375, random-resized crop to {SIZE}, flip, batches of "
        f"{BATCH}; medians of {result['rounds']} rounds of {result['seconds']:g} s. Ours is "
        f"`{OURS}`, uint8 on the device; its flips and normalising belong to the training step and "
        f"are measured in `{AUGMENTED}`, where the device is this machine's CPU. `{NO_LOADER}` is "
        "the decoder and the resizing alone, in a thread a core. Beside each other, too: two crops "
        "of 224 and eight of 96 pixels of each image.\n\n" + table(head, cells)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/<class>/*.jpg")
    parser.add_argument("--seconds", type=float, default=3, help="of a round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=list(PIPELINES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--torch-python", help="another interpreter that has torch")
    parser.add_argument("--tf-python", help="another interpreter that has tensorflow and psutil")
    parser.add_argument("--only", choices=PIPELINES, help="one round of one pipeline, as JSON")
    parser.add_argument("--scratch", type=Path, help="with --only: what was made for it")
    options = parser.parse_args()
    if options.only:
        batches = PIPELINES[options.only](options.images, options.scratch)
        print(json.dumps(measure(batches, options.seconds)))
        sys.stdout.flush()
        os._exit(0)  # whatever runs ahead in threads is of no interest any more

    python, versions = interpreters(options)
    result = {
        "rows": rows_of(rounds(python, options), options.pipelines),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    print(markdown(result))
    save(options.json, "loader", about=machine(**versions), **result)


if __name__ == "__main__":
    main()
