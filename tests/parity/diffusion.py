"""Diffusion networks and samplers beside diffusers and a DiT of our own (`networks/dit.py`).

    python tests/parity/diffusion.py

writes tests/parity/golden/diffusion.npz. Of each network: some of its outputs, the loss of one
training step, some of every parameter's gradient and its norm, and the names and shapes of its
state_dict. Of each sampler: some of the images after each step, of a network that is a formula. See
README.md for the environment.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, image, labels, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "diffusion.npz"
OUTPUTS, GRADIENTS, PLACES = 60, 3, 8  # values kept of an output, a gradient, an image
TIMESTEPS = (3, 250, 999)


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      model: the registry's name.
      image: its shape in PyTorch's layout.
      options: for `models.create`.
    """

    model: str
    image: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


_SMALL = {"widths": (8, 12, 16), "groups": 4, "blocks": 1, "attention": (1,)}
_DIT = {"width": 24, "depth": 2, "num_heads": 3}
CASES = {
    "unet": Case("ddpm_cifar10", (3, 3, 16, 24), _SMALL),
    "unet_classes": Case(
        "ddpm_cifar10", (3, 1, 8, 8), {**_SMALL, "blocks": 2, "head_dim": 4, "classes": 5}
    ),
    "dit": Case("dit_s", (3, 2, 8, 8), {**_DIT, "classes": 5, "out_channels": 4}),
    "dit_unconditional": Case("dit_s", (3, 3, 12, 12), {**_DIT, "patch_size": 4}),
}
# By name: of diffusers' scheduler, its settings, how many steps, ours.
SAMPLERS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {}, 20, {"name": "ddpm"}),
    "ddpm_large": (
        "DDPMScheduler",
        {"variance_type": "fixed_large"},
        1000,
        {"name": "ddpm", "large_variance": True},
    ),
    "ddpm_uneven": ("DDPMScheduler", {}, 48, {"name": "ddpm"}),
    "ddim": ("DDIMScheduler", {}, 50, {"name": "ddim"}),
    "ddim_eta": ("DDIMScheduler", {}, 13, {"name": "ddim", "eta": 0.7}),
    "dpm": ("DPMSolverMultistepScheduler", {}, 20, {"name": "dpm++"}),
    "dpm_few": ("DPMSolverMultistepScheduler", {}, 7, {"name": "dpm++"}),
    "dpm_two": ("DPMSolverMultistepScheduler", {}, 2, {"name": "dpm++"}),
    "dpm_one": ("DPMSolverMultistepScheduler", {}, 1, {"name": "dpm++"}),
}
# Each sampler by each of these: our names of schedule and prediction, diffusers', whether to clip.
FORMS = {
    "linear_epsilon": ("linear", "epsilon", "linear", "epsilon", True),
    "linear_v": ("linear", "v", "linear", "v_prediction", False),
    "cosine_x0": ("cosine", "x0", "squaredcos_cap_v2", "sample", False),
    "cosine_v": ("cosine", "v", "squaredcos_cap_v2", "v_prediction", True),
}
SHAPE = (2, 3, 4, 2)  # of the images that samplers make, [b, h, w, c]
KEPT_STEPS = 6  # of a trajectory, evenly spaced, the last one among them


def noise(name: str) -> np.ndarray:
    """Float32 of variance 1, decided by the name."""
    return _uniform(f"noise {name}", SHAPE) * np.float32(3**0.5)


def said(x: Any, timestep: Any, sine: Any) -> Any:
    """What a network of one line says of images with noise."""
    return 0.8 * sine(1.3 * x + 0.002 * timestep) + 0.1 * x


def kept_steps(count: int) -> np.ndarray:
    """The steps of which images are kept."""
    return np.unique(np.linspace(0, count - 1, min(count, KEPT_STEPS)).round().astype(int))


def build(name: str) -> Any:
    """The reference, without weights, called with images, timesteps and labels."""
    from torch import nn

    case = CASES[name]
    own, channels = case.options, case.image[1]
    if case.model.startswith("dit"):
        from parity.networks.dit import DiT

        return DiT(
            size=case.image[2],
            patch=own.get("patch_size", 2),
            channels=channels,
            width=own["width"],
            depth=own["depth"],
            heads=own["num_heads"],
            classes=own.get("classes", 0),
            out_channels=own.get("out_channels", channels),
        )

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = unet(
                channels,
                own["widths"],
                own["blocks"],
                own["attention"],
                own.get("head_dim"),
                own["groups"],
                own.get("classes", 0),
            )

        def forward(self, x: Any, timestep: Any, label: Any = None) -> Any:
            return self.network(x, timestep, class_labels=label).sample

    return Unet()


def unet(
    channels: int = 3,
    widths: tuple[int, ...] = (128, 256, 256, 256),
    blocks: int = 2,
    attention: tuple[int, ...] = (1,),
    head_dim: int | None = None,
    groups: int = 32,
    classes: int = 0,
) -> Any:
    """diffusers' network, in the configuration of google/ddpm-cifar10-32 but for these."""
    from parity.references import torchvision

    torchvision()  # which diffusers imports
    from diffusers import UNet2DModel

    last = len(widths) - 1
    down = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(last + 1)]
    up = ["AttnUpBlock2D" if last - i in attention else "UpBlock2D" for i in range(last + 1)]
    return UNet2DModel(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=head_dim,
        norm_num_groups=groups,
        num_class_embeds=classes + 1 if classes else None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


def network(name: str) -> dict[str, np.ndarray]:
    """What is compared of a network, computed in float64."""
    import torch

    case, reference = CASES[name], build(name)
    inner = getattr(reference, "network", reference)
    state = inner.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    reference.double()
    x = torch.from_numpy(image(case.image)).double()
    inputs = [x, torch.tensor(TIMESTEPS)]
    if classes := case.options.get("classes", 0):
        inputs.append(torch.from_numpy(labels(case.image[:1], classes + 1)))
    output = reference(*inputs)
    wanted = torch.from_numpy(image(tuple(output.shape), 1)).double()
    loss = torch.nn.functional.mse_loss(output, wanted)
    loss.backward()
    learnt = {
        key: value.grad.numpy() for key, value in inner.named_parameters() if value.requires_grad
    }
    return {
        "output": sample(output.detach().numpy(), OUTPUTS),
        "loss": loss.detach().numpy(),
        "norms": np.array([np.linalg.norm(value) for value in learnt.values()]),
        "gradients": np.concatenate([sample(value, GRADIENTS) for value in learnt.values()]),
        "shapes": np.array(json.dumps({key: list(value.shape) for key, value in state.items()})),
        "learnt": np.array(json.dumps(list(learnt))),
    }


def trajectory(name: str, form: str) -> np.ndarray:
    """Images after the steps of a scheduler of diffusers."""
    import diffusers
    import torch

    kind, settings, count, _ = SAMPLERS[name]
    _, _, schedule, prediction, clip = FORMS[form]
    clipping = {"thresholding": clip} if kind.startswith("DPM") else {"clip_sample": clip}
    scheduler = getattr(diffusers, kind)(
        beta_schedule=schedule, prediction_type=prediction, **clipping, **settings
    )
    scheduler.set_timesteps(count)
    draws: dict[str, Any] = {}
    if kind == "DDIMScheduler":
        draws["eta"] = SAMPLERS[name][3].get("eta", 0.0)
    x, found = torch.from_numpy(noise("first")), []
    for number, timestep in enumerate(scheduler.timesteps):
        fresh = torch.from_numpy(noise(str(number)))
        if kind == "DDIMScheduler" and draws["eta"]:
            draws["variance_noise"] = fresh
        module = diffusers.schedulers.scheduling_ddpm
        real, module.randn_tensor = module.randn_tensor, lambda *_, fresh=fresh, **__: fresh
        x = scheduler.step(said(x, timestep, torch.sin), timestep, x, **draws).prev_sample
        module.randn_tensor = real
        found.append(sample(x.numpy(), PLACES))
    return np.stack(found)[kept_steps(count)]


def repainted() -> np.ndarray:
    """The path of diffusers' RePaint through ten steps, timestep by timestep."""
    from diffusers import RePaintScheduler

    scheduler = RePaintScheduler()
    scheduler.set_timesteps(10, jump_length=3, jump_n_sample=3)
    return scheduler.timesteps.numpy()


def embeddings() -> dict[str, np.ndarray]:
    """Of places and of the time, in the forms of both networks."""
    import torch
    from diffusers.models.embeddings import get_timestep_embedding
    from parity.networks.dit import positions, waves

    times = torch.tensor(TIMESTEPS)
    return {
        "positions": positions(3, 24).numpy(),
        "time/unet": get_timestep_embedding(times, 16).numpy(),
        "time/dit": waves(times, 16, True).float().numpy(),
    }


def schedules() -> dict[str, np.ndarray]:
    """What is left of an image after every 37th step."""
    from diffusers import DDPMScheduler

    return {
        f"schedule/{ours}": DDPMScheduler(beta_schedule=theirs).alphas_cumprod.numpy()[::37]
        for ours, theirs in (("linear", "linear"), ("cosine", "squaredcos_cap_v2"))
    }


def main() -> None:
    import torch

    torch.set_num_threads(1)
    found = {**schedules(), **embeddings(), "repaint": repainted()}
    for name in CASES:
        values = network(name)
        print(f"{name}: loss {float(values['loss']):.4f}")
        for key, value in values.items():
            found[f"{name}/{key}"] = np.float32(value) if value.dtype == np.float64 else value
    for name in SAMPLERS:
        for form in FORMS:
            values = trajectory(name, form)
            print(f"{name}, {form}: largest {np.abs(values).max():.3g}")
            found[f"{name}/{form}"] = values
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
