"""A network's training step or inference in one process: a worker for the benchmarks.

    python benchmarks/steps.py SIDE [--keep-memory]

Sides: `ours`; `flax`, the same network on Flax's own layers (benchmarks/plain_flax.py); and
PyTorch's `eager`, `channels_last` and `compile` (which is channels-last too). All are given the
same weights, images and labels and train by SGD with momentum. Ours keeps freed memory as
`train.py` does; `--keep-memory` is for the others. Imports neither Grain, TensorFlow Datasets nor
ml_collections.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from networks import NETWORKS, Network, reference
from workers import peak_memory, serve

from jaxvision.train.memory import keep_freed_memory, set_malloc

OURS, FLAX, EAGER, CHANNELS_LAST, COMPILE = "ours", "flax", "eager", "channels_last", "compile"
TORCH = (EAGER, CHANNELS_LAST, COMPILE)
MEAN, STD = 0.5, 0.25
LEARNING_RATE, MOMENTUM, CHECKED_STEPS = 1e-5, 0.9, 2


def arrays(network: Network, batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [b, h, w, 3] and labels, the same on all sides."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    shape = (batch, size, size) if network.pixels else (batch,)
    return image, random.integers(0, network.classes, shape)


# -- JAX ------------------------------------------------------------------------------------------


def jax_task(network: Network, dtype: str) -> Any:
    """The network's task; normalising its images is part of the step."""
    import jax.numpy as jnp

    from jaxvision import models
    from jaxvision.tasks.classification.task import Classification
    from jaxvision.tasks.inputs import Inputs
    from jaxvision.tasks.segmentation.task import Segmentation

    more = {} if dtype == "float32" else {"dtype": jnp.dtype(dtype)}
    model = models.create(network.model, network.classes, **network.options, **more)
    names = tuple(map(str, range(network.classes)))
    inputs = Inputs((MEAN,), (STD,), (), network.classes)
    return (Segmentation if network.pixels else Classification)(model, names, inputs)


def jax_variables(network: Any, task: Any, size: int, weights: Path) -> Any:
    """Those of the weights file of a network (its `model`), which is written if it is not there."""
    import jax
    from safetensors.numpy import save_file

    from jaxvision import models
    from jaxvision.interop import torch_weights
    from jaxvision.tasks.base import image_spec

    def init() -> Any:
        return task.init(jax.random.key(0), image_spec((size, size, 3)))

    if not weights.exists():
        save_file(torch_weights.to_state_dict(jax.jit(init)()), weights)
    convert = models.variant(network.model).convert
    loaded = torch_weights.load(weights, jax.eval_shape(init), convert)
    return jax.tree.map(jax.numpy.asarray, loaded)


def jax_side(
    side: str, network: Network, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step that returns its loss or logits on the device, what compiling told)."""
    import jax.numpy as jnp
    from plain_flax import plain_layers

    from jaxvision.train.compilation import compiler_options

    task = jax_task(network, dtype)
    variables = jax_variables(network, task, size, weights)
    image, label = (jnp.asarray(array) for array in arrays(network, batch, size))
    annotation = "segmentation" if network.pixels else "label"
    data = {"image": image, annotation: label.astype(jnp.int32), "valid": jnp.ones(batch, bool)}
    return compiled_run(
        task,
        variables,
        data,
        None if train else lambda variables, data: task.logits(variables, data["image"]),
        options=compiler_options() if side == OURS else None,
        layers=plain_layers() if side == FLAX else None,
    )


def compiled_run(
    task: Any,
    variables: Any,
    data: dict[str, Any],
    infer: Callable[[Any, Any], Any] | None,
    options: dict[str, Any] | None,
    layers: AbstractContextManager[Any] | None = None,
    frozen: Sequence[str] = (),
    frozen_statistics: Sequence[str] = (),
    counted: bool = True,
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step on the device, what compiling told).

    Args:
      task, variables, data: a batch of `data` is learnt or looked at.
      infer: (variables, data) to what a step returns; None: the step trains, and returns its loss.
      options: of the compiler.
      layers: within which it is compiled.
      frozen: regexes of parameters that are not trained.
      frozen_statistics: regexes of batch norms that keep their statistics.
      counted: whether operations are counted, of a network that takes `image`.
    """
    import jax
    import optax

    from jaxvision import inspect
    from jaxvision.train.step import Group, init_state, make_train_step

    start = time.perf_counter()
    if infer is None:
        learns = None
        if frozen:
            from jaxvision.train.optimizer import learning

            learns = learning(frozen, variables["params"])
        groups = {"main": Group(optax.sgd(LEARNING_RATE, MOMENTUM), learns=learns)}
        state = init_state(variables, groups)
        step = jax.jit(
            make_train_step(task, groups, seed=0, freeze_statistics=frozen_statistics),
            donate_argnums=0,
            compiler_options=options,
        )
        with layers or contextlib.nullcontext():
            compiled = step.lower(state, data).compile()
        holder = [state]

        def run() -> Any:
            holder[0], metrics = compiled(holder[0], data)
            return metrics["loss"].total

    else:
        with layers or contextlib.nullcontext():
            program = jax.jit(infer, compiler_options=options).lower(variables, data).compile()

        def run() -> Any:
            return program(variables, data)

    seconds = time.perf_counter() - start
    found = {
        "compile_seconds": seconds,
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
    }
    if counted:
        own = inspect.totals(inspect.layers(task.model, data["image"].shape[1:])).multiply_adds
        passes = 3 if infer is None else 1  # a backward pass is twice the work of a forward pass
        found["flops_per_image"] = 2 * passes * own
    return run, found


def jax_peak(dtype: str) -> float:
    """Operations per second of the fastest of a few matrix products."""
    import jax
    import jax.numpy as jnp

    best = 0.0
    sides = (1024, 2048) if jax.default_backend() == "cpu" else (4096, 8192, 16384)
    for side in sides:
        matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
        product = jax.jit(lambda a, b: a @ b)
        jax.block_until_ready(product(matrix, matrix))
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(product(matrix, matrix))
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


# -- PyTorch --------------------------------------------------------------------------------------


def torch_side(
    side: str, network: Network, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """As `jax_side`, in PyTorch, whose images are normalised beforehand."""
    import torch
    from safetensors.torch import load_file, save_file

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = reference(network, size)
    if not weights.exists():
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    model.load_state_dict(load_file(weights), strict=True)
    form = torch.contiguous_format if side == EAGER else torch.channels_last
    model = model.to(device, memory_format=form).train(train)
    image, label = arrays(network, batch, size)
    image = ((image / 255 - MEAN) / STD).astype(np.float32)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).to(device).contiguous(memory_format=form)
    y = torch.from_numpy(label).to(device)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    call = torch.compile(model) if side == COMPILE else model
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            loss = torch.nn.functional.cross_entropy(call(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer() -> Any:
        with torch.inference_mode(), precision:
            return call(x)

    return step if train else infer, {"versions": {"torch": torch.__version__}}


# -- the worker -----------------------------------------------------------------------------------


class Side:
    """What the worker answers with; it holds one compiled step."""

    def __init__(self, side: str):
        self.side = side

    def __call__(self, command: str, **message: Any) -> Any:
        return getattr(self, command)(**message)

    def setup(
        self, network: str, batch: int, size: int, dtype: str, train: bool, weights: str
    ) -> dict[str, Any]:
        """Compiles, and tells the first numbers: losses, or some of the logits."""
        start = time.perf_counter()
        self.run, found = self.make(network, batch, size, dtype, train, Path(weights))
        if train:
            numbers = [self.fetch(self.run()).item() for _ in range(CHECKED_STEPS)]
        else:
            # One sign for all layouts: the logits of each place are channels in PyTorch.
            logits = self.fetch(self.run())
            if self.side in TORCH:
                logits = np.moveaxis(logits, 1, -1)
            numbers = logits.reshape(-1)[:: max(1, logits.size // 64)].tolist()
        return {"numbers": numbers, "setup_seconds": time.perf_counter() - start, **found}

    def make(self, network: str, *setting: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
        """A step, and what compiling told, of one of the networks."""
        make = torch_side if self.side in TORCH else jax_side
        return make(self.side, NETWORKS[network], *setting)

    def fetch(self, value: Any) -> np.ndarray:
        """A result on the host."""
        if self.side in TORCH:
            return value.float().cpu().numpy()
        return np.asarray(value, np.float32)

    def steps(self, count: int) -> float:
        """Seconds a step, over `count` of them, after one for which others have the caches.

        A single step is one so long that this does not matter.
        """
        if count > 1:
            self.wait(self.run())
        start = time.perf_counter()
        for _ in range(count):
            last = self.run()
        self.wait(last)
        return (time.perf_counter() - start) / count

    def wait(self, value: Any) -> None:
        """Returns when the value is there."""
        self.fetch(value if self.side not in TORCH else value.reshape(-1)[:1])

    def peak(self, dtype: str) -> float:
        """Of the device, operations a second."""
        return jax_peak(dtype)

    def memory(self) -> int:
        """The most bytes in use so far: of the accelerator, or of the process on a CPU."""
        if self.side in TORCH:
            import torch

            if torch.cuda.is_available():
                return torch.cuda.max_memory_allocated()
            return peak_memory()
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use") or peak_memory()


def work(kind: Callable[[str], Side]) -> None:
    """Serves as the worker of the side that the command line names."""
    if sys.argv[1] == OURS or "--keep-memory" in sys.argv:
        (set_malloc if sys.argv[1] in TORCH else keep_freed_memory)()
    serve(kind(sys.argv[1]))


if __name__ == "__main__":
    work(Side)
