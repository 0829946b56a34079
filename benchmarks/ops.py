"""Operations alone: ours beside the plain XLA form and beside PyTorch; forward, and with backward.

    python benchmarks/ops.py [--only NAME ...] [--torch PYTHON] [--repeat 10] [--json FILE]

Ours is compiled with the options that training has, the plain form with those of `jax.jit`; their
results and gradients must be equal. PyTorch (channels last and contiguous, the better) runs in a
process of its own, under `PYTHON`, this one by default if it can import torch. Rounds of all sides
are interleaved; each is the mean of calls for 20 ms, after one that is not counted; medians over
the rounds are shown. Needs no accelerator; on one, both forms are the plain one.

Suppression has no gradient. The peers of detection's operations are torchvision's compiled ones,
image after image. Where they do not load (a CUDA build beside a CPU torch) a message says so, and
their column is empty.
"""

import argparse
import importlib.util
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this project, where it is not installed

from report import machine, save, table
from workers import Worker, interleaved, serve

SECONDS = 0.02  # of a round of one side
PASSES = {"forward": "forward", "both": "forward and backward"}
# A worker whose threads wait actively would take the cores from the other one.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}

# name: kind, options, shapes of the arrays: x (channels last), the kernel (HWIO; transposed: kh,
# kw, out, in), or whatever else the kind has
CASES: dict[str, tuple[str, dict[str, Any], list[tuple[int, ...]]]] = {
    "3x3": ("conv", {"padding": 1}, [(8, 32, 32, 64), (3, 3, 64, 64)]),
    "1x1": ("conv", {}, [(8, 32, 32, 256), (1, 1, 256, 64)]),
    "1x1 s2": ("conv", {"stride": 2}, [(8, 32, 32, 256), (1, 1, 256, 512)]),
    "depthwise 3x3": (
        "conv",
        {"padding": 1, "groups": 144},
        [(8, 32, 32, 144), (3, 3, 1, 144)],
    ),
    "depthwise 3x3 s2": (
        "conv",
        {"padding": 1, "stride": 2, "groups": 144},
        [(8, 32, 32, 144), (3, 3, 1, 144)],
    ),
    "depthwise 7x7": ("conv", {"padding": 3, "groups": 96}, [(8, 32, 32, 96), (7, 7, 1, 96)]),
    "grouped 3x3, 32": ("conv", {"padding": 1, "groups": 32}, [(8, 16, 16, 128), (3, 3, 4, 128)]),
    "3x3 on 1x1": ("conv", {"padding": 1}, [(32, 1, 1, 512), (3, 3, 512, 512)]),
    "3x3 on 2x2": ("conv", {"padding": 1}, [(32, 2, 2, 512), (3, 3, 512, 512)]),
    "3x3 s2 on 4x4": ("conv", {"padding": 1, "stride": 2}, [(32, 4, 4, 256), (3, 3, 256, 512)]),
    "4x4 p2 (grows)": ("conv", {"padding": 2}, [(4, 16, 16, 64), (4, 4, 64, 64)]),
    "patches 16x16": ("conv", {"stride": 16}, [(8, 224, 224, 3), (16, 16, 3, 384)]),
    "transposed k2 s2": ("transposed", {"stride": 2}, [(8, 16, 16, 128), (2, 2, 64, 128)]),
    "transposed k4 s2": (
        "transposed",
        {"stride": 2, "padding": 1},
        [(8, 16, 16, 128), (4, 4, 64, 128)],
    ),
    "5x5x5": ("conv3d", {"padding": 2}, [(1, 16, 32, 32, 16), (5, 5, 5, 16, 16)]),
    "5x5x5 on 4x4x4": ("conv3d", {"padding": 2}, [(1, 4, 4, 4, 128), (5, 5, 5, 128, 128)]),
    "transposed k2 s2, 3-D": (
        "transposed3d",
        {"stride": 2},
        [(1, 8, 8, 8, 128), (2, 2, 2, 64, 128)],
    ),
    "max pool 3x3 s2": ("max", {"window": 3, "stride": 2, "padding": 1}, [(8, 64, 64, 64)]),
    "max pool 2x2 s2": ("max", {"window": 2}, [(8, 64, 64, 64)]),
    "avg pool 3x3 s2": ("avg", {"window": 3, "stride": 2, "padding": 1}, [(8, 64, 64, 64)]),
    "batch norm": ("batch norm", {}, [(8, 32, 32, 256), (256,), (256,)]),
    "layer norm": ("layer norm", {}, [(8 * 197, 384), (384,), (384,)]),
    "attention, 65 tokens": ("attention", {}, [(8, 65, 6, 64)] * 3),
    "attention, 197 tokens": ("attention", {}, [(8, 197, 6, 64)] * 3),
    "GELU": ("gelu", {}, [(8, 197, 1536)]),
    "bilinear x2": ("resize", {"size": (32, 32)}, [(8, 16, 16, 128)]),
    "dropout": ("dropout", {"rate": 0.1}, [(8, 14, 14, 1536)]),
    "nearest x2": ("nearest", {"factor": 2}, [(8, 32, 32, 64)]),
    "bed of nails x2": ("nails", {"factor": 2}, [(8, 32, 32, 64)]),
    "max pool, unpool 2x2": ("unpool", {"window": 2}, [(8, 64, 64, 64)]),
    "RoIAlign, 512 boxes": (
        "roi align",
        {"output_size": 7, "spatial_scale": 1 / 16, "sampling_ratio": 2},
        [(1, 50, 68, 256)],
    ),
    "NMS, 1000 boxes": ("nms", {"threshold": 0.5}, [(1, 1000, 4), (1, 1000)]),
    "NMS, 8 images": ("nms", {"threshold": 0.5}, [(8, 1000, 4), (8, 1000)]),
}
OF_TORCHVISION = ("roi align", "nms")
WITHOUT_GRADIENT = ("nms",)


def boxes_of(normal: Any) -> list[Any]:
    """(x0, y0, x1, y1) of normal numbers [..., 4]: boxes of 20 to 100 pixels."""
    x, y = 200 * normal[..., 0], 200 * normal[..., 1]
    width, height = (20 + 80 * (normal[..., axis] % 1) for axis in (2, 3))
    return [x, y, x + width, y + height]


def boxes(shape: tuple[int, ...], spatial_scale: float, count: int = 512) -> Any:
    """Boxes drawn inside a map of a shape, in pixels of the image, float32 [1, count, 4]."""
    import numpy as np

    sides = np.array(shape[2:0:-1]) / spatial_scale
    corners = np.random.default_rng(1).uniform(0, sides, (1, count, 2, 2))
    return np.concatenate([corners.min(2), corners.max(2)], -1, dtype=np.float32)


def jax_forms(kind: str, options: dict, shapes: list) -> tuple[Callable, Callable]:
    """Ours and the plain XLA form."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxvision.layers import transformer
    from jaxvision.layers.normalization import LayerNorm, batch_norm
    from jaxvision.ops import (
        convolution,
        convolution3d,
        pooling,
        random,
        roi,
        suppression,
        unpooling,
        windows,
    )
    from jaxvision.ops.attention import dot_product_attention
    from jaxvision.ops.resize import resize

    def plain_conv(x, kernel, stride=1, padding=0, groups=1):
        pads = windows.pad_pairs(padding)
        window = windows.Window(kernel.shape[:2], windows.pair(stride), padding=pads)
        return convolution._plain(window, x, kernel)

    def plain_transposed(x, kernel, stride, padding=0):
        pads = windows.pad_pairs(padding)
        window = windows.Window(kernel.shape[:2], windows.pair(stride), padding=pads)
        return convolution._transpose_plain(window, x, kernel)

    def plain_volumes(form, stride=1, padding=0):
        lie = convolution3d.Form(convolution3d.triple(stride), convolution3d.triple(padding))
        return lambda x, k: form(lie, x, k)

    def plain_pool(form, window, stride=None, padding=0):
        return lambda x: form(pooling._window(x.shape[1:3], window, stride, padding, False), x)

    def plain_norm(axes, x, scale, bias):
        mean, variance = jnp.mean(x, axes, keepdims=True), jnp.var(x, axes, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias

    def layer_norm(x, scale, bias):
        return LayerNorm(epsilon=1e-5).apply({"params": {"scale": scale, "bias": bias}}, x)

    def unpool(x, window):
        y, switches = unpooling.max_pool2d_with_switches(x, window)
        return unpooling.max_unpool2d_by_switches(y, switches, x.shape[1:3], window)

    def plain_unpool(x, window):
        y, indices = pooling.max_pool2d_with_indices(x, window)
        return pooling.max_unpool2d(y, indices, x.shape[1:3])

    def dropout(key, x, rate):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

    def plain_nearest(x, factor):
        size = (x.shape[0], x.shape[1] * factor, x.shape[2] * factor, x.shape[3])
        return jax.image.resize(x, size, "nearest")

    def plain_nails(x, factor):
        out = jnp.zeros((x.shape[0], x.shape[1] * factor, x.shape[2] * factor, x.shape[3]))
        return out.at[:, ::factor, ::factor].set(x)

    def plain_roi_align(x, at, output_size, spatial_scale, sampling_ratio):
        size = (output_size, output_size)
        grids = roi.align.grids_of(at * spatial_scale, size, sampling_ratio, 1.0)
        places = (grid.places(sampling_ratio) for grid in grids)
        return roi.align._gathers((x.shape[1:3],), jnp.zeros(at.shape[:2]), *places, x)

    def nms(normal, scores, threshold):
        def of_image(boxes, scores):
            return suppression.nms(boxes, scores, threshold, len(scores))[0]

        return jax.vmap(of_image)(jnp.stack(boxes_of(normal), -1), scores)

    def plain_nms(normal, scores, threshold):
        def of_image(boxes, scores):
            order = jnp.argsort(-scores)
            all_valid = jnp.ones(len(scores), bool)
            static = len(scores), jnp.float32(threshold)
            found, kept = suppression._all_at_once(*static, boxes[order], None, all_valid)
            return jnp.where(kept, order[found], 0)

        return jax.vmap(of_image)(jnp.stack(boxes_of(normal), -1), scores)

    match kind:
        case "roi align":
            at = jnp.asarray(boxes(shapes[0], options["spatial_scale"]))
            return lambda x: roi.roi_align(x, at, **options), lambda x: plain_roi_align(
                x, at, **options
            )
        case "nms":
            ours, plain = nms, plain_nms
        case "conv":
            ours, plain = convolution.conv2d, plain_conv
        case "transposed":
            ours, plain = convolution.conv_transpose2d, plain_transposed
        case "conv3d":
            plain = plain_volumes(convolution3d._conv_plain, **options)
            return lambda x, k: convolution3d.conv3d(x, k, **options), plain
        case "transposed3d":
            plain = plain_volumes(convolution3d._transpose_plain, **options)
            return lambda x, k: convolution3d.conv_transpose3d(x, k, **options), plain
        case "max":
            return lambda x: pooling.max_pool2d(x, **options), plain_pool(
                pooling._max_plain, **options
            )
        case "avg":
            total, area = plain_pool(pooling._sum_plain, **options), options["window"] ** 2
            return lambda x: pooling.avg_pool2d(x, **options), lambda x: total(x) / area
        case "batch norm":
            return lambda *arrays: batch_norm(*arrays, 1e-5)[0], partial(plain_norm, (0, 1, 2))
        case "layer norm":
            return layer_norm, partial(plain_norm, (-1,))
        case "attention":
            return dot_product_attention, jax.nn.dot_product_attention
        case "gelu":
            return transformer.gelu, partial(jax.nn.gelu, approximate=False)
        case "resize":
            return lambda x: resize(x, **options), lambda x: jax.image.resize(
                x, (x.shape[0], *options["size"], x.shape[3]), "bilinear"
            )
        case "dropout":
            return partial(dropout, random.key(0), **options), partial(
                dropout, jax.random.key(0), **options
            )
        case "unpool":
            return lambda x: unpool(x, **options), lambda x: plain_unpool(x, **options)
        case "nearest":
            ours = unpooling.nearest_unpool2d
            return lambda x: ours(x, **options), lambda x: plain_nearest(x, **options)
        case "nails":
            ours = unpooling.bed_of_nails2d
            return lambda x: ours(x, **options), lambda x: plain_nails(x, **options)
    return lambda x, k: ours(x, k, **options), lambda x, k: plain(x, k, **options)


def jax_runs(name: str) -> dict[str, Callable[[], object]]:
    """`{"ours forward": ..., "plain both": ...}`, compiled.

    Raises:
      AssertionError: ours and the plain form have other results or gradients.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxvision.train.compilation import compiler_options

    kind, options, shapes = CASES[name]
    draw = np.random.default_rng(0).normal
    arrays = [jnp.asarray(draw(size=shape), jnp.float32) for shape in shapes]
    ours, plain = jax_forms(kind, options, shapes)
    g = jnp.asarray(draw(size=jax.eval_shape(ours, *arrays).shape), jnp.float32)
    runs, found = {}, {}
    for label, form, flags in (("ours", ours, compiler_options()), ("plain", plain, None)):

        def both(g: Any, *arrays: Any, form: Callable = form) -> Any:
            y, pull = jax.vjp(form, *arrays)
            return y, pull(g)

        alone = jax.jit(form, compiler_options=flags)
        runs[f"{label} forward"] = lambda alone=alone: jax.block_until_ready(alone(*arrays))
        if kind in WITHOUT_GRADIENT:
            found[label] = [runs[f"{label} forward"]()]
            continue
        pair = jax.jit(both, compiler_options=flags)
        runs[f"{label} both"] = lambda pair=pair: jax.block_until_ready(pair(g, *arrays))
        y, gradients = runs[f"{label} both"]()
        found[label] = [runs[f"{label} forward"](), y, *gradients]
    for a, b in zip(found["ours"], found["plain"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))
    return runs


def torch_runs(name: str) -> dict[str, Callable[[], object]]:
    """`{"torch forward channels_last": ...}` and the like; none without compiled operators."""
    import torch
    import torch.nn.functional as F

    kind, options, shapes = CASES[name]
    if kind in OF_TORCHVISION and not compiled_operators():
        return {}
    if kind == "nms":
        return suppression_runs(options, shapes)

    def nails(x: Any, factor: int) -> Any:
        out = x.new_zeros(*x.shape[:2], *(factor * n for n in x.shape[2:]))
        out[:, :, ::factor, ::factor] = x
        return out

    def attention(*arrays: Any) -> Any:
        by_head = (array.transpose(1, 2) for array in arrays)
        return F.scaled_dot_product_attention(*by_head).transpose(1, 2)

    def roi_align(x: Any) -> Any:
        from torchvision import ops

        at = [torch.from_numpy(one) for one in boxes(shapes[0], options["spatial_scale"])]
        return ops.roi_align(x, at, **options)

    form = {
        "roi align": roi_align,
        "conv": lambda x, k: F.conv2d(x, k, **options),
        "transposed": lambda x, k: F.conv_transpose2d(x, k, **options),
        "conv3d": lambda x, k: F.conv3d(x, k, **options),
        "transposed3d": lambda x, k: F.conv_transpose3d(x, k, **options),
        "max": lambda x: F.max_pool2d(x, *options.values()),
        "avg": lambda x: F.avg_pool2d(x, *options.values()),
        "batch norm": lambda x, scale, bias: F.batch_norm(x, None, None, scale, bias, True),
        "layer norm": lambda x, scale, bias: F.layer_norm(x, scale.shape, scale, bias),
        "attention": attention,
        "gelu": F.gelu,
        "resize": lambda x: F.interpolate(x, **options, mode="bilinear"),
        "unpool": lambda x: F.max_unpool2d(
            *F.max_pool2d(x, *options.values(), return_indices=True), *options.values()
        ),
        "dropout": lambda x: F.dropout(x, options["rate"]),
        "nearest": lambda x: F.interpolate(x, scale_factor=options["factor"]),
        "nails": lambda x: nails(x, **options),
    }[kind]

    def drawn(shape: tuple[int, ...], index: int, layout: Any) -> Any:
        if layout is not None and index == 0:
            shape = (shape[0], shape[-1], *shape[1:-1])
        elif layout is not None and len(shape) > 1:
            shape = (*shape[:-3:-1], *shape[:-2])
        array = torch.randn(shape)
        if layout is not None and len(shape) > 1:
            array = array.contiguous(memory_format=layout)
        return array.requires_grad_()

    layouts = {"": None}
    if kind not in ("layer norm", "attention", "gelu"):
        last = torch.channels_last if len(shapes[0]) == 4 else torch.channels_last_3d
        layouts = {"channels last": last, "contiguous": torch.contiguous_format}
    runs = {}
    for label, layout in layouts.items():
        arrays = [drawn(shape, index, layout) for index, shape in enumerate(shapes)]
        g = torch.randn_like(form(*arrays))

        def forward(arrays: list = arrays) -> object:
            with torch.no_grad():
                return form(*arrays)

        def both(arrays: list = arrays, g: Any = g) -> object:
            return torch.autograd.grad(form(*arrays), arrays, g)

        runs[f"torch forward {label}".strip()] = forward
        runs[f"torch both {label}".strip()] = both
    return runs


def compiled_operators() -> bool:
    """Whether torchvision has compiled operators; a CUDA build's do not load beside a CPU torch."""
    try:
        import torchvision

        return torchvision.extension._has_ops()
    except (ImportError, RuntimeError) as error:
        print(f"No torchvision to compare with: {error}", file=sys.stderr)
        return False


def suppression_runs(options: dict[str, Any], shapes: list) -> dict[str, Callable[[], object]]:
    """As `torch_runs`, of suppression."""
    import torch
    from torchvision.ops import nms

    normal, scores = (torch.randn(shape) for shape in shapes)

    def forward() -> object:
        images = zip(torch.stack(boxes_of(normal), -1), scores, strict=True)
        return [nms(boxes, scores, options["threshold"]) for boxes, scores in images]

    return {"torch forward": forward}


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """A round: runs for about `SECONDS` and gives the seconds of a call."""
    run()  # the first one does what later ones need not
    start = time.perf_counter()
    run()
    calls = max(1, math.ceil(SECONDS / (time.perf_counter() - start)))

    def measured() -> float:
        run()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    return measured


class TorchSide:
    """What the process with PyTorch answers."""

    def __call__(self, command: str, name: str = "") -> Any:
        if command == "version":
            import torch

            return torch.__version__
        if command == "prepare":
            self._rounds = {run: timed(call) for run, call in torch_runs(name).items()}
            return list(self._rounds)
        return self._rounds[name]()


def measure(name: str, repeat: int, torch: Worker | None) -> dict[str, Any]:
    """A row: `{"name", "forward": {"ours": seconds, ...}, "both": ...}`."""
    rounds = {run: timed(call) for run, call in jax_runs(name).items()}
    if torch is not None:
        for run in torch.ask(command="prepare", name=name):
            rounds[run] = partial(torch.ask, command="round", name=run)
    row: dict[str, Any] = {"name": name, **{passes: {} for passes in PASSES}}
    for run, seconds in interleaved(rounds, repeat).items():
        side, passes, *_ = run.split()
        row[passes][side] = min(seconds, row[passes].get(side, math.inf))
    return row


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    rows = result["rows"]
    head, lines = ["operation"], [[row["name"]] for row in rows]
    torch = any("torch" in row["forward"] for row in rows)
    for passes, title in PASSES.items():
        head += [f"{title}: ours, ms", "plain XLA / ours"] + ["PyTorch / ours"] * torch
        for row, line in zip(rows, lines, strict=True):
            times = row[passes]
            line.append(f"{1e3 * times['ours']:.2f}" if times else "")
            for side in ("plain", "torch") if torch else ("plain",):
                line.append(f"{times[side] / times['ours']:.2f}" if side in times else "")
    return table(head, lines) + "\n\nMore than 1: ours is faster."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=10, help="rounds to take the median of")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--torch", help="a Python that can import torch")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_torch:
        serve(TorchSide())
        return
    import jax

    python = options.torch or (importlib.util.find_spec("torch") and sys.executable)
    torch = Worker(python, __file__, "--serve-torch", **PASSIVE) if python else None
    about = machine(device=jax.devices()[0].device_kind)
    if torch is not None:
        about["torch"] = torch.ask(command="version")
    rows: list[dict[str, Any]] = []
    try:
        for name in options.only:
            rows.append(measure(name, options.repeat, torch))
            print(markdown({"rows": rows[-1:]}).splitlines()[2], flush=True)
            save(options.json, "ops", rows, about)
    finally:
        if torch is not None:
            torch.close()
    print(markdown({"rows": rows}))


if __name__ == "__main__":
    main()
