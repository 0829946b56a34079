"""What exchanging takes on real accelerators, by formulas and published speeds."""

import math
from dataclasses import dataclass
from typing import Any

from jaxvision.train.exchanges import COLLECTIVES


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
