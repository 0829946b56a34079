"""A GAN's training step or its generator's images in one process: the worker of adversarial.py.

    python benchmarks/adversarial_steps.py SIDE [--keep-memory]

As benchmarks/steps.py. In a training step the discriminator is updated, then the generator; latents
are drawn by each side's own generator of random numbers, so losses agree as means of a batch do.
Images are made of the same latents and the same noise. StyleGAN2 in PyTorch is basicsr's, whose
folder must be on PYTHONPATH; it then runs on PyTorch's own operations, which is all it has on CPUs.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from steps import COMPILE, EAGER, TORCH, Side, work

RATE, B1, B2 = 2e-4, 0.5, 0.999


@dataclass(frozen=True)
class Pair:
    """One row.

    Attributes:
      title: as it is called in tables.
      generator, discriminator: the registry's names.
      latent: length of the latents.
      size: side of the images.
      channels: of the images.
    """

    title: str
    generator: str
    discriminator: str
    latent: int
    size: int
    channels: int = 3


PAIRS = {
    "dcgan": Pair("DCGAN", "dcgan_generator", "dcgan_discriminator", 100, 64),
    "stylegan2": Pair(
        "StyleGAN2, configuration F", "stylegan2_generator", "stylegan2_discriminator", 512, 64
    ),
}


def images(pair: Pair, batch: int, size: int) -> np.ndarray:
    """Uint8 [b, h, w, c], the same on all sides."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, pair.channels), np.uint8)


def latents(pair: Pair, batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, pair.latent)).astype(np.float32)


# -- JAX ------------------------------------------------------------------------------------------


def jax_side(
    pair: Pair, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step that returns its loss, or images, on the device; what compiling told)."""
    import jax
    import jax.numpy as jnp
    import optax
    from safetensors.numpy import load_file

    from jaxvision import models
    from jaxvision.interop import torch_weights
    from jaxvision.tasks.generation.task import Adversarial
    from jaxvision.tasks.inputs import Inputs
    from jaxvision.train.compilation import compiler_options
    from jaxvision.train.step import Group, init_state, make_train_step

    more: dict[str, Any] = {} if dtype == "float32" else {"dtype": jnp.dtype(dtype)}
    task = Adversarial(
        models.create(pair.generator, size=size, channels=pair.channels, **more),
        models.create(pair.discriminator, **more),
        Inputs((0.5,), (0.5,)),
    )
    data = {"image": jnp.asarray(images(pair, batch, size)), "valid": jnp.ones(batch, bool)}
    stored = load_file(weights)
    fresh = jax.eval_shape(lambda: task.init(jax.random.key(0), data))
    variables: dict[str, Any] = {kind: {} for kind in fresh}
    for part, name in (("generator", pair.generator), ("discriminator", pair.discriminator)):
        begin = f"{part}."
        state = {k.removeprefix(begin): v for k, v in stored.items() if k.startswith(begin)}
        like = {kind: tree[part] for kind, tree in fresh.items()}
        filled = torch_weights.to_variables(models.variant(name).convert(state), like)
        for kind, tree in filled.items():
            variables[kind][part] = tree
    if not train:
        own = {kind: tree["generator"] for kind, tree in variables.items()}
        latent = jnp.asarray(latents(pair, batch))
        make = jax.jit(
            lambda own, latent: task.model.apply(own, latent), compiler_options=compiler_options()
        )
        program = make.lower(own, latent).compile()
        return lambda: program(own, latent), {}
    rule = optax.adam(RATE, B1, B2)
    groups = {name: Group(rule, owns) for name, owns in task.groups.items()}
    step = jax.jit(
        make_train_step(task, groups, seed=0),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    holder = [jax.device_put(init_state(variables, groups))]
    program = step.lower(holder[0], data).compile()

    def run() -> Any:
        holder[0], sums = program(holder[0], data)
        return sums["discriminator_loss"].total

    return run, {}


# -- PyTorch --------------------------------------------------------------------------------------


def references(pair: Pair, size: int) -> tuple[Any, Any]:
    """(generator, discriminator)."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    if pair.generator.startswith("dcgan"):
        from parity.networks.dcgan import Discriminator, Generator

        return Generator(size, pair.channels, pair.latent), Discriminator(size, pair.channels)
    from parity.references import stylegan2

    module = stylegan2()
    return module.StyleGAN2Generator(size, pair.latent), module.StyleGAN2Discriminator(size)


def torch_side(
    side: str, pair: Pair, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """As `jax_side`, in PyTorch."""
    import torch
    from safetensors.torch import load_file, save_file
    from torch.nn.functional import softplus

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    both = torch.nn.ModuleDict(
        dict(zip(("generator", "discriminator"), references(pair, size), strict=True))
    )
    if not weights.exists():
        save_file({name: value.contiguous() for name, value in both.state_dict().items()}, weights)
    both.load_state_dict(load_file(weights), strict=True)
    form = torch.contiguous_format if side == EAGER else torch.channels_last
    both = both.to(device).train(train)
    for module in both.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.to(memory_format=form)
    generator, discriminator = both["generator"], both["discriminator"]
    real = torch.from_numpy(images(pair, batch, size) / 127.5 - 1).float().permute(0, 3, 1, 2)
    real = real.to(device).contiguous(memory_format=form)
    given = torch.from_numpy(latents(pair, batch)).to(device)
    styled = pair.generator.startswith("stylegan2")

    def fake(latent: Any) -> Any:
        return generator([latent], randomize_noise=train)[0] if styled else generator(latent)

    def judge(x: Any) -> Any:
        return discriminator(x)

    make, judge = (torch.compile(f) if side == COMPILE else f for f in (fake, judge))
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    adam = {"lr": RATE, "betas": (B1, B2)}
    of_judge = torch.optim.Adam(discriminator.parameters(), **adam)
    of_maker = torch.optim.Adam(generator.parameters(), **adam)

    def step() -> Any:
        discriminator.requires_grad_(True)
        of_judge.zero_grad(set_to_none=True)
        with precision:
            with torch.no_grad():
                images = make(torch.randn(batch, pair.latent, device=device))
            loss = softplus(-judge(real)).mean() + softplus(judge(images)).mean()
        loss.backward()
        of_judge.step()
        discriminator.requires_grad_(False)
        of_maker.zero_grad(set_to_none=True)
        with precision:
            cost = softplus(-judge(make(torch.randn(batch, pair.latent, device=device)))).mean()
        cost.backward()
        of_maker.step()
        return loss.detach()

    def infer() -> Any:
        with torch.inference_mode(), precision:
            return make(given)

    return step if train else infer, {"versions": {"torch": torch.__version__}}


class PairSide(Side):
    """What the worker answers with."""

    def make(self, network: str, *setting: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
        pair = PAIRS[network]
        if self.side in TORCH:
            return torch_side(self.side, pair, *setting)
        return jax_side(pair, *setting)


if __name__ == "__main__":
    work(PairSide)
