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

The second table predicts from these counts, by formulas (`Gpus`, `Tpus`) and published speeds, what
exchanging takes on real accelerators. None of it was measured there.
"""

import argparse
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from report import machine, save, table

MODELS = ("resnet50", "vit_base_patch16_224")
SMALL = 2**16  # bytes
LARGEST = 8  # virtual devices


# -- the compiled program -------------------------------------------------------------------------

_COMPUTATION = re.compile(r"^(ENTRY )?(%[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%[\w.\-]+) = (.+?) ([a-z][a-z\d\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=(%[\w.\-]+)"
    r"|\b(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
COLLECTIVES = (
    "all-reduce",
    "reduce-scatter",
    "all-gather",
    "all-to-all",
    "collective-permute",
)


@dataclass
class Instruction:
    """One line of HLO.

    Attributes:
      bytes: of each array of its result.
    """

    name: str
    opcode: str
    bytes: list[int]
    operands: list[str]
    called: list[str]
    trips: int | None
    text: str


@dataclass
class Program:
    """The computations of an HLO module by name, in the order of their instructions."""

    entry: str = ""
    computations: dict[str, list[Instruction]] = field(default_factory=dict)


def parse(text: str) -> Program:
    """Reads what `compiled.as_text()` gives."""
    program, current = Program(), []
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line)
        if found := _COMPUTATION.match(line):
            current = program.computations[found[2]] = []
            program.entry = found[2] if found[1] else program.entry
        elif found := _INSTRUCTION.match(line):
            name, shape, opcode, rest = found.groups()
            called = [one or many for one, many in _CALLED.findall(rest)]
            trips = _TRIPS.search(rest)
            current.append(
                Instruction(
                    name,
                    opcode,
                    [_bytes(*array) for array in _ARRAY.findall(shape)],
                    re.findall(r"%[\w.\-]+", rest.split(")", 1)[0]),
                    re.findall(r"%[\w.\-]+", " ".join(called)),
                    int(trips[1]) if trips else None,
                    rest,
                )
            )
    if not program.entry:
        raise ValueError("This is not the text of a compiled program.")
    return program


def _bytes(kind: str, bits: str, shape: str) -> int:
    size = math.prod(int(n) for n in shape.split(",") if n)
    return size if kind == "pred" else size * max(int(bits), 8) // 8


def executed(program: Program) -> Iterator[tuple[str, int, Instruction]]:
    """(computation, how often it runs, instruction) of all that runs; branches count as taken.

    Raises:
      ValueError: nothing says how often a loop with collectives runs.
    """
    pending = [(program.entry, 1)]
    while pending:
        name, times = pending.pop()
        for instruction in program.computations[name]:
            yield name, times, instruction
            inner = times
            if instruction.opcode == "while":
                if instruction.trips is None and _exchanges(program, instruction):
                    raise ValueError(f"How often does {instruction.name} run? It has collectives.")
                inner = times * (instruction.trips or 1)
            pending += [(called, inner) for called in instruction.called]


def _exchanges(program: Program, instruction: Instruction) -> bool:
    return any(
        inner.opcode.removesuffix("-start") in COLLECTIVES or _exchanges(program, inner)
        for called in instruction.called
        for inner in program.computations[called]
    )


def exchanges(program: Program) -> dict[str, dict[str, int]]:
    """`{kind: {"count", "bytes", "small", "small_bytes"}}` of what one device exchanges.

    Bytes are those of the whole array: what is reduced, what is gathered. An asynchronous pair is
    one. Kinds are those of `COLLECTIVES`; an all-reduce of which only slices are used is a
    reduce-scatter. One that holds arrays of both sorts counts once, as that which has more bytes.
    """
    found: dict[str, Counter] = defaultdict(Counter)
    for name, times, instruction in executed(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        sizes = {one.name: sum(one.bytes) for one in program.computations[name]}
        operands = [sizes[operand] for operand in instruction.operands]
        total = sum(operands)
        if kind == "all-gather":  # the result of a start holds the operands too
            total = sum(instruction.bytes) - total * (instruction.opcode != kind)
        parts = {kind: total}
        if kind == "all-reduce":
            sliced = sum(
                size
                for index, size in enumerate(operands)
                if _only_sliced(program, name, instruction, index)
            )
            parts = {"all-reduce": total - sliced, "reduce-scatter": sliced}
        largest = max(parts, key=lambda kind: parts[kind])
        for part, size in parts.items():
            small = "small_" if total < SMALL else ""
            found[part][f"{small}bytes"] += times * size
        found[largest]["small" if total < SMALL else "count"] += times
    keys = ("count", "bytes", "small", "small_bytes")
    return {
        kind: {key: found[kind][key] for key in keys}
        for kind in COLLECTIVES
        if any(found[kind].values())
    }


def _only_sliced(program: Program, name: str, reduced: Instruction, index: int) -> bool:
    """Whether all that uses an array of an all-reduce takes a slice of it."""
    users = [one for one in program.computations[name] if reduced.name in one.operands]
    if len(reduced.bytes) > 1:
        parts = [one for one in users if re.search(rf"\bindex={index}\b", one.text)]
        return all(_slices(program, name, part.name) for part in parts)
    return _slices(program, name, reduced.name)


def _slices(program: Program, name: str, array: str) -> bool:
    users = [one for one in program.computations[name] if array in one.operands]
    return bool(users) and all(_slice(program, name, user, array) for user in users)


def _slice(program: Program, name: str, user: Instruction, array: str) -> bool:
    if user.opcode == "dynamic-slice":
        return user.operands[0] == array
    if user.opcode in ("bitcast", "copy"):
        return _slices(program, name, user.name)
    if user.opcode not in ("fusion", "call"):
        return False
    (called,) = user.called
    parameters = {
        int(one.text.split(")", 1)[0]): one.name
        for one in program.computations[called]
        if one.opcode == "parameter"
    }
    places = [place for place, operand in enumerate(user.operands) if operand == array]
    return all(_slices(program, called, parameters[place]) for place in places)


# -- compiling the step ---------------------------------------------------------------------------


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
    from jaxvision.config import default_config
    from jaxvision.train import mesh, setup

    config = default_config()
    presets.imagenet(config, size=size)
    config.model.name, config.optimizer.name = model, "sgd"
    task = tasks.create(config, tuple(map(str, range(1000))))
    sides = (devices, 1) if split == "data" else (1, devices)
    over = jax.make_mesh(
        sides,
        mesh.AXES,
        devices=jax.devices()[:devices],
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )
    shape = (size, size, 3)
    prepared = setup.prepare(config, task, over, shape, total=1000, steps_per_epoch=100)
    row = {"image": (shape, jnp.uint8), "label": ((), jnp.int32), "mask": ((), bool)}
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


# -- what links make of it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpus:
    """Hosts of `per_host` GPUs, each with a network port of its own.

    Of n GPUs, h = n / per_host hosts and g = min(n, per_host), an all-reduce of B bytes scatters
    and gathers within the host, 2 (g-1)/g B / link, and between hosts reduces B / g over every
    port, 2 (h-1)/h (B/g) / port. Latency, as NCCL models a tree of its LL protocol:
    base + 2 ((g-1) link + log2(h) port). Reduce-scatter and all-gather take half of either, and
    so is said of what else there is, which is little.

    Attributes:
      peak: dense bfloat16 FLOP/s.
      link, port: bytes/s in one direction, within and between hosts.
      source: where the figures are published.
    """

    peak: float
    link: float
    port: float
    source: str
    per_host: int = 8
    # Seconds; https://github.com/NVIDIA/nccl/blob/01afd20/src/graph/tuning.cc, Tree, LL.
    base_latency: float = 4.4e-6
    link_latency: float = 0.52e-6
    port_latency: float = 5.0e-6

    def seconds(self, ways: int, count: int, size: int, n: int) -> tuple[float, float]:
        """(latency, transfer) of `count` collectives of `size` bytes in all; all-reduce: 2 ways."""
        inside, hosts = min(n, self.per_host), max(1, n // self.per_host)
        transfer = (inside - 1) / inside * size / self.link
        transfer += (hosts - 1) / hosts * size / inside / self.port
        hops = (inside - 1) * self.link_latency + math.log2(hosts) * self.port_latency
        return count * (self.base_latency + ways * hops), ways * transfer


@dataclass(frozen=True)
class Tpus:
    """A slice of a torus, all links busy at once.

    Of n chips an all-reduce of B bytes takes 2 (n-1)/n B / links. An axis that does not close into
    a ring has half the bandwidth; as slowest, it decides. Latency: 2 hops for every step of the
    way across all axes. Reduce-scatter and all-gather take half of either, and so is said of what
    else there is, which is little.

    Attributes:
      peak: dense bfloat16 FLOP/s.
      links: bytes/s in one direction, all links of a chip.
      source: where the figures are published.
      slices: sides of the slices by their number of chips.
      closes: sides that are multiples of this one are rings.
    """

    peak: float
    links: float
    source: str
    slices: dict[int, tuple[int, ...]]
    closes: int
    hop_latency: float = 1e-6  # seconds; https://jax-ml.github.io/scaling-book/sharding

    def seconds(self, ways: int, count: int, size: int, n: int) -> tuple[float, float]:
        """(latency, transfer) of `count` collectives of `size` bytes in all; all-reduce: 2 ways."""
        sides = self.slices[n]
        closed = [side % self.closes == 0 for side in sides]
        links = self.links if all(closed) else self.links / 2
        hops = sum(side // 2 if ring else side - 1 for side, ring in zip(sides, closed))
        return count * ways * hops * self.hop_latency, ways * (n - 1) / n * size / links


_CUBES = {8: (2, 2, 2), 64: (4, 4, 4), 512: (8, 8, 8)}
ACCELERATORS = {
    "DGX A100": Gpus(
        312e12,
        300e9,  # NVLink 3: 600 GB/s in both directions together
        25e9,  # one port of 200 Gb/s for each
        "https://developer.nvidia.com/blog/defining-ai-innovation-with-dgx-a100",
    ),
    "DGX H100": Gpus(
        989e12,  # half of what is given with sparsity
        450e9,  # NVLink 4: 900 GB/s in both directions together
        50e9,  # one port of 400 Gb/s for each
        "https://www.nvidia.com/en-us/data-center/h100, "
        "https://docs.nvidia.com/dgx/dgxh100-user-guide",
    ),
    "TPU v4": Tpus(
        275e12,
        1.1e15 / 4096,  # all-reduce bandwidth of a pod, over its chips
        "https://docs.cloud.google.com/tpu/docs/v4",
        _CUBES,
        4,
    ),
    "TPU v5e": Tpus(
        197e12,
        200e9,  # 400 GB/s in both directions together
        "https://docs.cloud.google.com/tpu/docs/v5e",
        {8: (2, 4), 64: (8, 8)},  # a pod has 256
        16,
    ),
    "TPU v5p": Tpus(
        459e12,
        600e9,  # 1200 GB/s in both directions together
        "https://docs.cloud.google.com/tpu/docs/v5p",
        _CUBES,
        4,
    ),
}
UTILISATION = 0.4  # of the peak, while computing
COUNTS = (8, 64, 512)
_WAYS = {kind: 2 if kind == "all-reduce" else 1 for kind in COLLECTIVES}


def predict(row: dict[str, Any], accelerators: Gpus | Tpus, n: int) -> dict[str, float]:
    """Seconds of a step of `n`: computing, latency and transfer of what is exchanged.

    Counts and bytes are those of the row: whole arrays, which do not depend on n. The program for n
    would split the same arrays n ways, and (n-1)/n is in the formulas.
    """
    latency = transfer = 0.0
    for kind, found in row["exchanges"].items():
        count, size = found["count"] + found["small"], found["bytes"] + found["small_bytes"]
        one = accelerators.seconds(_WAYS[kind], count, size, n)
        latency, transfer = latency + one[0], transfer + one[1]
    compute = row["flops"] / (UTILISATION * accelerators.peak)
    return {"compute": compute, "latency": latency, "transfer": transfer}


# -- the page -------------------------------------------------------------------------------------


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
        f"figures that `benchmarks/scaling.py` states. Computing at {UTILISATION:.0%} of the "
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
