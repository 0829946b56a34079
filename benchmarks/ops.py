"""Forward and backward time of the ops that have a form of their own on CPUs.

    python benchmarks/ops.py [--repeat 10] [--only NAME ...] [--json FILE] [--torch PYTHON]

Ours against the plain XLA form, interleaved, after their results and gradients were found equal;
and against PyTorch (channels last and contiguous, the better) where `PYTHON` can import it.
Needs no accelerator; on one, both columns are the plain form.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# name: shape of x (channels last), of the kernel (HWIO; transposed: kh, kw, out, in), kind, options
CASES = {
    "3x3": ((8, 32, 32, 64), (3, 3, 64, 64), "conv", {"padding": 1}),
    "1x1": ((8, 32, 32, 256), (1, 1, 256, 64), "conv", {}),
    "1x1 s2": ((8, 32, 32, 256), (1, 1, 256, 512), "conv", {"stride": 2}),
    "depthwise 3x3": ((8, 32, 32, 144), (3, 3, 1, 144), "conv", {"padding": 1, "groups": 144}),
    "depthwise 3x3 s2": (
        (8, 32, 32, 144),
        (3, 3, 1, 144),
        "conv",
        {"padding": 1, "stride": 2, "groups": 144},
    ),
    "depthwise 7x7": ((8, 32, 32, 96), (7, 7, 1, 96), "conv", {"padding": 3, "groups": 96}),
    "grouped 3x3, 32": ((8, 16, 16, 128), (3, 3, 4, 128), "conv", {"padding": 1, "groups": 32}),
    "3x3 on 1x1": ((32, 1, 1, 512), (3, 3, 512, 512), "conv", {"padding": 1}),
    "3x3 on 2x2": ((32, 2, 2, 512), (3, 3, 512, 512), "conv", {"padding": 1}),
    "3x3 s2 on 4x4": ((32, 4, 4, 256), (3, 3, 256, 512), "conv", {"padding": 1, "stride": 2}),
    "4x4 p2 (grows)": ((4, 16, 16, 64), (4, 4, 64, 64), "conv", {"padding": 2}),
    "patches 16x16": ((8, 224, 224, 3), (16, 16, 3, 384), "conv", {"stride": 16}),
    "transposed k2 s2": ((8, 16, 16, 128), (2, 2, 64, 128), "transposed", {"stride": 2}),
    "transposed k4 s2": (
        (8, 16, 16, 128),
        (4, 4, 64, 128),
        "transposed",
        {"stride": 2, "padding": 1},
    ),
    "5x5x5": ((1, 16, 32, 32, 16), (5, 5, 5, 16, 16), "conv3d", {"padding": 2}),
    "5x5x5 on 4x4x4": ((1, 4, 4, 4, 128), (5, 5, 5, 128, 128), "conv3d", {"padding": 2}),
    "transposed k2 s2, 3-D": ((1, 8, 8, 8, 128), (2, 2, 2, 64, 128), "transposed3d", {"stride": 2}),
    "max pool 3x3 s2": ((8, 64, 64, 64), None, "max", {"window": 3, "stride": 2, "padding": 1}),
    "max pool 2x2 s2": ((8, 64, 64, 64), None, "max", {"window": 2}),
    "avg pool 3x3 s2": ((8, 64, 64, 64), None, "avg", {"window": 3, "stride": 2, "padding": 1}),
    "batch norm": ((8, 32, 32, 256), (256,), "norm", {}),
    "bilinear x2": ((8, 16, 16, 128), None, "resize", {"size": (32, 32)}),
    "nearest x2": ((8, 32, 32, 64), None, "nearest", {"factor": 2}),
    "bed of nails x2": ((8, 32, 32, 64), None, "nails", {"factor": 2}),
    "max pool, unpool 2x2": ((8, 64, 64, 64), None, "unpool", {"window": 2}),
}


def jax_forms(kind: str, options: dict) -> tuple[Callable, Callable]:
    """Ours and the plain XLA form."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxvision.layers.normalization import batch_norm
    from jaxvision.ops import convolution, convolution3d, pooling, unpooling
    from jaxvision.ops.resize import resize

    def plain_conv(x, kernel, stride=1, padding=0, groups=1):
        pads = convolution.pad_pairs(padding)
        window = convolution.Window(kernel.shape[:2], convolution.pair(stride), padding=pads)
        return convolution._plain(window, x, kernel)

    def plain_transposed(x, kernel, stride, padding=0):
        pads = convolution.pad_pairs(padding)
        window = convolution.Window(kernel.shape[:2], convolution.pair(stride), padding=pads)
        return convolution._transpose_plain(window, x, kernel)

    def plain_volumes(form, stride=1, padding=0):
        lie = convolution3d.Form(convolution3d.triple(stride), convolution3d.triple(padding))
        return lambda x, k: form(lie, x, k)

    def plain_pool(form, window, stride=None, padding=0):
        return lambda x: form(pooling._window(x.shape, window, stride, padding, False), x)

    def plain_norm(x, scale):
        mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        return (x - mean) * lax.rsqrt(variance + 1e-5) * scale

    def unpool(x, window):
        y, switches = unpooling.max_pool2d_with_switches(x, window)
        return unpooling.max_unpool2d_by_switches(y, switches, x.shape[1:3], window)

    def plain_unpool(x, window):
        y, indices = pooling.max_pool2d_with_indices(x, window)
        return pooling.max_unpool2d(y, indices, x.shape[1:3])

    def plain_nearest(x, factor):
        size = (x.shape[0], x.shape[1] * factor, x.shape[2] * factor, x.shape[3])
        return jax.image.resize(x, size, "nearest")

    def plain_nails(x, factor):
        out = jnp.zeros((x.shape[0], x.shape[1] * factor, x.shape[2] * factor, x.shape[3]))
        return out.at[:, ::factor, ::factor].set(x)

    match kind:
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
        case "norm":
            return lambda x, k: batch_norm(x, k, jnp.zeros_like(k), 1e-5)[0], plain_norm
        case "resize":
            return lambda x: resize(x, **options), lambda x: jax.image.resize(
                x, (x.shape[0], *options["size"], x.shape[3]), "bilinear"
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


def interleaved(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """The median time of each run in milliseconds; one round runs each of them once."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def time_jax(name: str, repeat: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    shape, kernel_shape, kind, options = CASES[name]
    draw = np.random.default_rng(0).normal
    arrays = [jnp.asarray(draw(size=s), jnp.float32) for s in (shape, kernel_shape) if s]
    forms = dict(zip(("ours", "plain"), jax_forms(kind, options), strict=True))
    g = jnp.asarray(draw(size=jax.eval_shape(forms["ours"], *arrays).shape), jnp.float32)

    def passes(form):
        @jax.jit
        def run(g, *arrays):
            y, pull = jax.vjp(form, *arrays)
            return y, pull(g)

        return lambda: jax.block_until_ready(run(g, *arrays))

    runs = {label: passes(form) for label, form in forms.items()}
    first, second = (jax.tree.leaves(run()) for run in runs.values())
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))
    return interleaved(runs, repeat)


def time_torch(name: str, repeat: int) -> float:
    import torch
    import torch.nn.functional as F

    shape, kernel_shape, kind, options = CASES[name]

    def nails(x, factor):
        out = x.new_zeros(*x.shape[:2], *(factor * n for n in x.shape[2:]))
        out[:, :, ::factor, ::factor] = x
        return out

    runs = {}
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    for layout in (last, torch.contiguous_format):
        batch, *size, channels = shape
        x = torch.randn(batch, channels, *size).contiguous(memory_format=layout)
        arrays = [x.requires_grad_()]
        if kind == "norm":
            arrays.append(torch.ones(channels, requires_grad=True))
        elif kernel_shape:
            *taps, i, o = kernel_shape
            kernel = torch.randn(o, i, *taps).contiguous(memory_format=layout)
            arrays.append(kernel.requires_grad_())
        form = {
            "conv": lambda x, k: F.conv2d(x, k, **options),
            "transposed": lambda x, k: F.conv_transpose2d(x, k, **options),
            "conv3d": lambda x, k: F.conv3d(x, k, **options),
            "transposed3d": lambda x, k: F.conv_transpose3d(x, k, **options),
            "max": lambda x: F.max_pool2d(x, *options.values()),
            "avg": lambda x: F.avg_pool2d(x, *options.values()),
            "norm": lambda x, k: F.batch_norm(x, None, None, k, torch.zeros(len(k)), True),
            "resize": lambda x: F.interpolate(x, **options, mode="bilinear"),
            "unpool": lambda x: F.max_unpool2d(
                *F.max_pool2d(x, *options.values(), return_indices=True), *options.values()
            ),
            "nearest": lambda x: F.interpolate(x, scale_factor=options["factor"]),
            "nails": lambda x: nails(x, **options),
        }[kind]
        g = torch.randn_like(form(*arrays))
        runs[str(layout)] = lambda form=form, arrays=arrays, g=g: torch.autograd.grad(
            form(*arrays), arrays, g
        )
    interleaved(runs, 2)
    return min(interleaved(runs, repeat).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=10, help="rounds to take the median of")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write the milliseconds to this file")
    parser.add_argument("--torch", help="a Python that can import torch; this one by default")
    parser.add_argument("--torch-case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch_case:
        print(time_torch(args.torch_case, args.repeat))
        return
    python = args.torch or (importlib.util.find_spec("torch") and sys.executable)
    table = {}
    print(f"{'ms, forward + backward':24}{'ours':>9}{'plain':>9}{'plain/ours':>12}", end="")
    print(f"{'torch':>9}{'ours/torch':>12}" if python else "")
    for name in args.only:
        row = table[name] = time_jax(name, args.repeat)
        line = f"{name:24}{row['ours']:9.2f}{row['plain']:9.2f}{row['plain'] / row['ours']:12.1f}"
        if python:
            command = [python, __file__, "--repeat", str(args.repeat), "--torch-case", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row["torch"] = float(done.stdout)
            line += f"{row['torch']:9.2f}{row['ours'] / row['torch']:12.2f}"
        print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
