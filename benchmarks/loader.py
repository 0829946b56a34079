"""Images per second of the input pipeline, wall and per CPU second, beside others doing its work.

    python benchmarks/loader.py [--images DIR] [--seconds 6] [--json FILE] [--torch-python PATH]

The work: read a JPEG photograph of about 500x375, random-resized crop to 224, batches of 64. Ours
is `jaxvision.data.loader.Loader` over an image folder, batches on the device, nothing consuming
them. The others read the same files: Grain with a hand-written record function of the same
decoder, and PyTorch's DataLoader with two workers, as commonly written (Pillow, normalised
float32) and with our decoder (uint8). Each runs in a process of its own; rounds are interleaved
and their median is shown. Without --images, 256 photographs are made from those of scikit-learn
and scikit-image. `idx 28x28` is ours over arrays in memory, batches of 64.
"""

import argparse
import importlib.util
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH, SIZE, COUNT = 64, 224, 256
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def make_photographs(folder: Path) -> None:
    """COUNT seeded JPEG files of quality 90, in `folder/train/photo`."""
    from PIL import Image
    from skimage.data import astronaut
    from sklearn.datasets import load_sample_images

    photographs = [*load_sample_images().images, astronaut()]
    target = folder / "train" / "photo"
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        photograph = Image.fromarray(photographs[index % len(photographs)])
        width, height = (int(rng.normal(mean, 20)) for mean in (500, 375))
        part = rng.uniform(0.6, 1.0) * min(photograph.width / width, photograph.height / height)
        left = rng.uniform(0, photograph.width - part * width)
        top = rng.uniform(0, photograph.height - part * height)
        box = (left, top, left + part * width, top + part * height)
        pixels = np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC, box=box))
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(target / f"{index:04}.jpg", quality=90)


# -- pipelines ------------------------------------------------------------------------------------


def ours(folder: Path, workers: int = 0) -> Iterator[Any]:
    from jaxvision.config import default_config

    data = default_config().data
    data.source, data.dir = "folder", str(folder)
    data.train_transforms = ({"name": "random_resized_crop", "size": SIZE},)
    return _loader(data, workers)


def ours_arrays(folder: Path) -> Iterator[Any]:
    import struct

    from jaxvision.config import default_config

    rng = np.random.default_rng(0)
    idx = folder / "idx"
    idx.mkdir(exist_ok=True)
    for kind, shape in (("images-idx3", (60_000, 28, 28)), ("labels-idx1", (60_000,))):
        header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        values = rng.integers(0, 10, shape, np.uint8)
        (idx / f"train-{kind}-ubyte").write_bytes(header + values.tobytes())
    data = default_config().data
    data.source, data.dir, data.channels = "idx", str(idx), 1
    return _loader(data, 0)


def _loader(data: Any, workers: int) -> Iterator[Any]:
    import jax

    from jaxvision.data.loader import Loader, open_stream

    stream = open_stream(data, "train", seed=0, train=True)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loader = Loader(stream, BATCH, device, workers=workers)
    for batch in loader.batches(0, 10**6):
        yield jax.block_until_ready(batch)["image"]


def crop_window(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """x, y, width and height as torchvision draws them."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, width - w + 1), rng.integers(0, height - h + 1), w, h
    return 0, 0, width, height


def crop_uint8(encoded: bytes, rng: np.random.Generator) -> np.ndarray:
    import cv2
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(encoded)
    x, y, w, h = crop_window(rng, pixels.shape[1], pixels.shape[0])
    return cv2.resize(pixels[y : y + h, x : x + w], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def crop_float32(encoded: bytes, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    x, y, w, h = crop_window(rng, *image.size)
    resized = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    pixels = (np.asarray(resized).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "train").rglob("*") if p.is_file())


def hand_written_grain(folder: Path) -> Iterator[Any]:
    import cv2
    import grain

    cv2.setNumThreads(0)

    class Crop(grain.transforms.RandomMap):
        def random_map(self, path: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": crop_uint8(path.read_bytes(), rng)}

    dataset = grain.MapDataset.source(files_of(folder)).shuffle(seed=0).repeat()
    dataset = dataset.random_map(Crop(), seed=1)
    options = grain.ReadOptions(num_threads=2 * (os.cpu_count() or 1), prefetch_buffer_size=128)
    for batch in dataset.to_iter_dataset(options).batch(BATCH):
        yield batch["image"]


class TorchFiles:
    """A torch data set, endless enough."""

    def __init__(self, folder: Path, crop: Callable[[bytes, np.random.Generator], np.ndarray]):
        self.files, self.crop = files_of(folder), crop

    def __len__(self) -> int:
        return 1000 * len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch

        encoded = self.files[index % len(self.files)].read_bytes()
        return torch.from_numpy(self.crop(encoded, np.random.default_rng(index)))


def torch_loader(folder: Path, crop: Callable) -> Iterator[Any]:
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    data = TorchFiles(folder, crop)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=2)
    return iter(loader)


OURS, ARRAYS = "jaxvision Loader", "jaxvision Loader, idx 28x28"
PIPELINES: dict[str, Callable[[Path], Iterator[Any]]] = {
    OURS: ours,
    "Grain by hand": hand_written_grain,
    "torch, Pillow float32": lambda folder: torch_loader(folder, crop_float32),
    "torch, simplejpeg uint8": lambda folder: torch_loader(folder, crop_uint8),
    "jaxvision Loader, 2 workers": lambda folder: ours(folder, workers=2),
    ARRAYS: ours_arrays,
}


# -- measuring ------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process and those it started, which still run."""
    import psutil

    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure(batches: Iterator[Any], seconds: float) -> dict[str, float]:
    for _ in range(4):
        next(batches)
    cpu, begin, count = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        count += len(next(batches))
    wall = time.perf_counter() - begin
    return {"wall": count / wall, "cpu": count / (cpu_seconds() - cpu)}


def in_process(python: str, name: str, folder: Path, seconds: float) -> dict[str, float] | str:
    """One measurement in an interpreter of its own, or what went wrong.

    Packages that the other interpreter lacks are taken from this one's.
    """
    here = [p for p in sys.path if p.endswith("site-packages")]
    code = (
        f"import sys, runpy; sys.path += {here!r}; sys.argv = "
        f"{[__file__, '--images', str(folder), '--seconds', str(seconds), '--only', name]!r}; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    # The main module of spawned workers must be a file, so the program is run as one where it can.
    command = [python, *(sys.argv[:1] if python == sys.executable else ["-c", code])]
    if python == sys.executable:
        command += ["--images", str(folder), "--seconds", str(seconds), "--only", name]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else done.stderr.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/<class>/*.jpg")
    parser.add_argument("--seconds", type=float, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--torch-python", help="another interpreter that has torch")
    parser.add_argument("--only", choices=PIPELINES, help="one round of one pipeline, as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(PIPELINES[options.only](options.images), options.seconds)))
        sys.stdout.flush()
        os._exit(0)  # whatever runs ahead in threads is of no interest any more

    python = dict.fromkeys(PIPELINES, sys.executable)
    has_torch = importlib.util.find_spec("torch") is not None
    for name in [name for name in PIPELINES if name.startswith("torch")]:
        if options.torch_python:
            python[name] = options.torch_python
        elif not has_torch:
            del python[name]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in python}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.images or Path(temporary)
        if not options.images:
            make_photographs(folder)
        for _, name in itertools.product(range(options.rounds), python):
            result = in_process(python[name], name, folder, options.seconds)
            if isinstance(result, str):
                print(f"{name}: {result}", file=sys.stderr)
            else:
                found[name].append(result)
    table = {
        name: {key: statistics.median(r[key] for r in rounds) for key in ("wall", "cpu")}
        for name, rounds in found.items()
        if rounds
    }
    print(f"{os.cpu_count()} cores, medians of {options.rounds} rounds of {options.seconds:g} s")
    print(f"{'':30}{'images/s':>10}{'per CPU s':>11}{'ours/theirs: wall':>20}{'CPU':>7}")
    for name, row in table.items():
        ratios = ""
        if not name.startswith("jaxvision") and OURS in table:
            wall, cpu = (table[OURS][key] / row[key] for key in ("wall", "cpu"))
            ratios = f"{wall:20.2f}{cpu:7.2f}"
        print(f"{name:30}{row['wall']:10,.0f}{row['cpu']:11,.0f}{ratios}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
