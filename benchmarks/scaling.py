"""What the training step exchanges over one to eight devices, and what real links would make of it.

    python benchmarks/scaling.py [--models NAME ...] [--devices 1 2 4 8] [--batch 64] [--json FILE]

The step of the training loop is compiled, not run, for a mesh of virtual CPU devices: data parallel
(`data`) and fully sharded (`fsdp`), a fixed batch on each device. Of the compiled program of one
device it counts

- the collectives and their bytes, against the ideal: data parallel, every gradient and every batch
  statistic once; fully sharded, every parameter gathered once and its gradient scattered once.
  Those below 64 KiB are counted apart, since they cost latency, not bandwidth;
- the FLOPs against those of the program for one device: 1.00 computes nothing twice;
- the temporary memory.

The forms of the operations are those for CPUs, and so is the merging of collectives. XLA for CPUs
never makes a reduce-scatter: an all-reduce of which each device keeps a slice is counted as one,
because XLA for GPUs and TPUs makes it one. Everything is float32.

The second table predicts from these counts, by the formulas and published speeds of
benchmarks/links.py, what exchanging takes on real accelerators. None of it was measured there.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from links import ACCELERATORS, UTILISATION, Tpus, predict
from report import machine, save, table

from jaxvision.train.exchanges import exchanges, parse

MODELS = ("resnet50", "vit_base_patch16_224")
LARGEST = 8  # virtual devices
COUNTS = (8, 64, 512)  # accelerators to predict for


def use_virtual_devices() -> None:
    """Gives JAX, which must not have started, `LARGEST` devices on the CPU.

    Programs for them are only read, so machine code is made the quick way.
    """
    flags = [f"--xla_force_host_platform_device_count={LARGEST}"]
    flags += ["--xla_backend_optimization_level=0"]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()
    os.environ["JAX_PLATFORMS"] = "cpu"


def compile_step(model: str, split: str, devices: int, batch: int, size: int) -> dict[str, Any]:
    """A row of the result.

    Args:
      model: trained as ImageNet's recipes do: 1000 classes, flips, SGD with momentum.
      split: "data" or "fsdp", the axis of the mesh that has all devices.
      devices: how many.
      batch: of all devices together.
      size: side of the images.
    """
    import jax
    import jax.numpy as jnp

    from jaxvision import presets, tasks
    from jaxvision.data.facts import Facts
    from jaxvision.tasks.base import image_spec
    from jaxvision.train import mesh, setup

    config = tasks.default_config()
    presets.imagenet(config, size=size)
    config.model.name, config.optimizer.name = model, "sgd"
    task = tasks.create(config, Facts(tuple(map(str, range(1000)))))
    sides = (devices, 1) if split == "data" else (1, devices)
    over = jax.make_mesh(
        sides,
        mesh.AXES,
        devices=jax.devices()[:devices],
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )
    shape = (size, size, 3)
    spec = image_spec(shape)
    prepared = setup.prepare(config, task, over, spec, total=1000, steps_per_epoch=100)
    row = {"image": (shape, jnp.uint8), "label": ((), jnp.int32), "valid": ((), bool)}
    rows = mesh.batch_sharding(over)
    inputs = {
        key: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=rows)
        for key, (shape, dtype) in row.items()
    }
    compiled = prepared.compile_step(inputs)

    def nbytes(tree: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    memory = compiled.call.memory_analysis()
    return {
        "model": model,
        "split": split,
        "devices": devices,
        "batch": batch,
        "size": size,
        "parameter_bytes": nbytes(prepared.state.params),
        "statistic_bytes": nbytes(prepared.state.model_state),
        "exchanges": exchanges(parse(compiled.call.as_text())),
        "flops": compiled.flops,
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": compiled.seconds,
    }


def ideal(row: dict[str, Any]) -> int:
    """Bytes that a step cannot do without: see the top."""
    gathered = row["parameter_bytes"] if row["split"] == "fsdp" else 0
    return row["parameter_bytes"] + row["statistic_bytes"] + gathered


def total(row: dict[str, Any], *keys: str) -> int:
    """The sum of the keys over all kinds of collectives."""
    return sum(found[key] for found in row["exchanges"].values() for key in keys)


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    rows = result["rows"]
    batch, size = rows[0]["batch"] // rows[0]["devices"], rows[0]["size"]
    widest = [row for row in rows if row["devices"] == max(row["devices"] for row in rows)]
    parts = [
        f"The training step over virtual devices, compiled and not run: {batch} images of {size} "
        "px on each, float32. FLOPs: those of the program for one device over those of each "
        "device's; 1.00 computes nothing twice. Ideal bytes: data parallel, gradients and batch "
        "statistics once; fully sharded, parameters gathered once too. Small: below 64 KiB.",
        _counted(rows),
        f"**Predicted, not measured**: the same program on accelerators, by formulas and published "
        f"figures that `benchmarks/links.py` states. Computing at {UTILISATION:.0%} of the "
        "bfloat16 peak; float32 exchanged, none of it hidden behind computing: ms of computing + "
        "of latency + of transfer, and the share of the step that exchanging is.",
        _predicted(widest),
        "Figures: " + "; ".join(f"{name}: {one.source}" for name, one in ACCELERATORS.items()),
    ]
    return "\n\n".join(parts)


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    alone = {row["model"]: row["flops"] / row["batch"] for row in rows if row["devices"] == 1}
    head = ["model", "over", "devices", "FLOPs", "collectives", "MiB", "of ideal", "small", "KiB",
            "state MiB", "temporary MiB"]  # fmt: skip
    lines = []
    for row in rows:
        many = row["devices"] > 1
        kinds = (f"{found['count']} {kind}" for kind, found in row["exchanges"].items()
                 if found["count"])  # fmt: skip
        sent = total(row, "bytes", "small_bytes")
        needed = alone.get(row["model"])
        efficiency = needed and needed * row["batch"] / row["devices"] / row["flops"]
        lines.append([
            row["model"], row["split"] if many else "", row["devices"],
            efficiency and f"{efficiency:.3f}",
            ", ".join(kinds), f"{sent / 2**20:.1f}" if many else "",
            f"{sent / ideal(row):.3f}" if many else "", total(row, "small") if many else "",
            f"{total(row, 'small_bytes') / 2**10:.0f}" if many else "",
            f"{row['state_bytes'] / 2**20:.0f}", f"{row['temporary_bytes'] / 2**20:.0f}",
        ])  # fmt: skip
    return table(head, lines)


def _predicted(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        for name, accelerators in ACCELERATORS.items():
            cells: list[str | None] = []
            for n in COUNTS:
                if isinstance(accelerators, Tpus) and n not in accelerators.slices:
                    cells.append(None)
                    continue
                times = predict(row, accelerators, n)
                exchanged = 1 - times["compute"] / sum(times.values())
                spelled = " + ".join(f"{1e3 * value:.2f}" for value in times.values())
                cells.append(f"{spelled}: {exchanged:.0%}")
            lines.append([f"{row['model']}, {row['split']}", name, *cells])
    return table(["model", "accelerator", *(f"{n} of them" for n in COUNTS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--devices", nargs="+", type=int, default=(1, 2, 4, 8), metavar="N")
    parser.add_argument("--batch", type=int, default=64, help="images on each device")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not set(options.devices) <= set(range(1, LARGEST + 1)):
        parser.error(f"--devices are at most {LARGEST}.")
    use_virtual_devices()
    rows = []
    for model in options.models:
        for devices in options.devices:
            for split in ("data", "fsdp") if devices > 1 else ("data",):
                batch = devices * options.batch
                row = compile_step(model, split, devices, batch, options.size)
                rows.append(row)
                save(options.json, "scaling", rows, machine())
                took = row["compile_seconds"]
                print(f"{model} {split} {devices}: {row['exchanges']} in {took:.0f} s", flush=True)
    print(markdown({"rows": rows}))


if __name__ == "__main__":
    main()
