"""A diffusion network's training step or its sampler in one process: the worker of diffusion.py.

    python benchmarks/diffusion_steps.py SIDE [--keep-memory]

As benchmarks/steps.py. PyTorch's sides are diffusers' UNet2DModel and DDIMScheduler, called in a
loop as its pipelines do. Noise is given, and so are timesteps of the training step. Weights are
random: what they say is taken for v, since noise that nobody has learnt to find would make
differences of rounding 150 times as large.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from steps import COMPILE, EAGER, TORCH, Side, work

RATE = 2e-4
SAMPLER_STEPS = 50


@dataclass(frozen=True)
class Unet:
    """One row.

    Attributes:
      title: as it is called in tables.
      widths: of the network in the form for CIFAR-10.
      size: side of the images.
    """

    title: str
    widths: tuple[int, ...]
    size: int = 32


UNETS = {
    "half": Unet("DDPM's U-Net of half the width", (64, 128, 128, 128)),
    "full": Unet("DDPM's U-Net", (128, 256, 256, 256)),
}


def images(batch: int, size: int) -> np.ndarray:
    """Uint8 [b, h, w, 3], the same on all sides."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)


def noise(batch: int, size: int) -> np.ndarray:
    """What images are made of, or is added to them, float32 [b, h, w, 3]."""
    return np.random.default_rng(1).standard_normal((batch, size, size, 3)).astype(np.float32)


def timesteps(batch: int) -> np.ndarray:
    """Of a training step, int32 [b]."""
    return np.random.default_rng(2).integers(0, 1000, batch, np.int32)


# -- JAX ------------------------------------------------------------------------------------------


def jax_side(
    unet: Unet, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step that returns its loss, or images, on the device; what compiling told)."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxvision import models
    from jaxvision.interop import torch_weights
    from jaxvision.losses import diffusion as losses
    from jaxvision.metrics import Mean
    from jaxvision.ops import diffusion
    from jaxvision.tasks import base
    from jaxvision.tasks.diffusion.task import Diffusion, Sampler
    from jaxvision.tasks.sampling import row_keys
    from jaxvision.train.compilation import compiler_options
    from jaxvision.train.step import Group, init_state, make_train_step

    class Given(Diffusion):
        """Timesteps and noise are of the batch."""

        def loss(self, params: Any, model_state: Any, batch: Any, key: Any) -> Any:
            x0, noise = self.inputs.evaluate(batch["image"]), batch["noise"]
            kept = jnp.asarray(self.schedule.alpha_bars)[batch["timestep"]]
            output, _ = base.apply_train(
                self.model,
                params,
                model_state,
                diffusion.add_noise(x0, noise, kept),
                key,
                timestep=batch["timestep"],
            )
            error = losses.denoising_loss(self.prediction, output, x0, noise, kept)
            return error.mean(), (model_state, {"loss": Mean.of(error, batch["valid"])})

    more: dict[str, Any] = {} if dtype == "float32" else {"dtype": jnp.dtype(dtype)}
    task = Given(
        models.create("ddpm_cifar10", widths=unet.widths, **more),
        size=(size, size),
        prediction="v",
        sampler=Sampler("ddim", SAMPLER_STEPS),
    )
    data = {
        "image": jnp.asarray(images(batch, size)),
        "noise": jnp.asarray(noise(batch, size)),
        "timestep": jnp.asarray(timesteps(batch)),
        "valid": jnp.ones(batch, bool),
    }
    like = jax.eval_shape(lambda: task.init(jax.random.key(0), data))
    variables = jax.tree.map(jnp.asarray, torch_weights.load(weights, like))
    if not train:
        given, keys = jnp.asarray(noise(batch, size)), row_keys(jax.random.key(0), batch)
        make = jax.jit(task.generate, compiler_options=compiler_options())
        program = make.lower(variables, given, keys).compile()
        return lambda: program(variables, given, keys), {}
    groups = {"main": Group(optax.adam(RATE))}
    step = jax.jit(
        make_train_step(task, groups, seed=0),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    holder = [jax.device_put(init_state(variables, groups))]
    program = step.lower(holder[0], data).compile()

    def run() -> Any:
        holder[0], sums = program(holder[0], data)
        return sums["loss"].total

    return run, {}


# -- PyTorch --------------------------------------------------------------------------------------


def torch_side(
    side: str, unet: Unet, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """As `jax_side`, by diffusers."""
    import torch
    from safetensors.torch import load_file, save_file

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from parity.diffusion import unet as build

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build(widths=unet.widths)
    from diffusers import DDIMScheduler, DDPMScheduler

    if not weights.exists():
        save_file({name: v.contiguous() for name, v in network.state_dict().items()}, weights)
    network.load_state_dict(load_file(weights), strict=True)
    form = torch.contiguous_format if side == EAGER else torch.channels_last
    network = network.to(device, memory_format=form).train(train)
    call = torch.compile(network) if side == COMPILE else network
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def prepared(array: np.ndarray) -> Any:
        x = torch.from_numpy(array).float().permute(0, 3, 1, 2)
        return x.to(device).contiguous(memory_format=form)

    if not train:
        scheduler = DDIMScheduler(prediction_type="v_prediction")
        given = prepared(noise(batch, size))
        scheduler.set_timesteps(SAMPLER_STEPS)

        def infer() -> Any:
            x = given
            with torch.inference_mode(), precision:
                for timestep in scheduler.timesteps:
                    x = scheduler.step(call(x, timestep).sample, timestep, x).prev_sample
                return ((x / 2 + 0.5).clamp(0, 1) * 255).round()

        return infer, {"versions": _versions()}

    real, adding = prepared(images(batch, size) / 127.5 - 1), DDPMScheduler()
    fresh = prepared(noise(batch, size))
    timestep = torch.from_numpy(timesteps(batch)).long().to(device)
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            output = call(adding.add_noise(real, fresh, timestep), timestep).sample
            wanted = adding.get_velocity(real, fresh, timestep)
            loss = torch.nn.functional.mse_loss(output, wanted)
        loss.backward()
        optimizer.step()
        return loss.detach() * batch

    return step, {"versions": _versions()}


def _versions() -> dict[str, str]:
    import diffusers
    import torch

    return {"torch": torch.__version__, "diffusers": diffusers.__version__}


class UnetSide(Side):
    """What the worker answers with."""

    def make(self, network: str, *setting: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
        unet = UNETS[network]
        if self.side in TORCH:
            return torch_side(self.side, unet, *setting)
        return jax_side(unet, *setting)


if __name__ == "__main__":
    work(UnetSide)
