"""Configuration keys of diffusion, the group `diffusion`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import Key
from jaxvision.errors import UserError
from jaxvision.tasks import judging_keys

KEYS = {
    "size": Key(32, "side of the images, or (height, width)", kinds=(int, tuple, list), least=1),
    "schedule": Key("linear", "of the noise: linear or cosine", choices=("linear", "cosine")),
    "steps": Key(1000, "in which an image becomes noise", least=2),
    "prediction": Key(
        "epsilon",
        "what the network says: epsilon (the noise), x0 (the image) or v (of both)",
        choices=("epsilon", "x0", "v"),
    ),
    "min_snr": Key(
        0.0,
        "the largest signal-to-noise ratio by which timesteps are weighted (Hang et al. 2023: 5; "
        "0: all alike)",
        least=0,
    ),
    "conditional": Key(False, "whether the network is told the class of an image"),
    "label_dropout": Key(
        0.1,
        "conditional: probability that it is told no class, for guidance (Ho and Salimans 2022)",
        least=0,
    ),
    "guidance": Key(
        1.0,
        "conditional: how far samples go from those of no class towards those of theirs (1: off)",
        least=0,
        resumable=True,
    ),
    "sampler": Key(
        "ddim",
        "how samples are made: ddpm, ddim or dpm++",
        choices=("ddpm", "ddim", "dpm++"),
        resumable=True,
    ),
    "sampler_steps": Key(50, "of the sampler", least=1, resumable=True),
    "eta": Key(0.0, "ddim: how much noise is drawn anew in a step", least=0, resumable=True),
    "large_variance": Key(False, "ddpm: noise of the larger variance, beta", resumable=True),
    "clip": Key(True, "bring what a sampler takes for the image to -1..1", resumable=True),
    "jump": Key(10, "inpainting: steps that are undone at a time", least=1, resumable=True),
    "repeats": Key(10, "inpainting: how often each step is made", least=1, resumable=True),
    "judge_samples": Key(
        0,
        "images made for each evaluation batch, to be judged (-1: as many as it has; 0: none)",
        least=-1,
        resumable=True,
    ),
    "judge_steps": Key(0, "of the sampler, for these (0: sampler_steps)", least=0, resumable=True),
    **judging_keys.KEYS,
}


def check(values: Mapping[str, Any]) -> None:
    """What must agree among the keys.

    Raises:
      UserError: naming them.
    """
    for key in ("label_dropout", "eta"):
        if values[key] > 1:
            raise UserError(f"diffusion.{key} is at most 1; it is {values[key]}.")
    if values["guidance"] != 1 and not values["conditional"]:
        raise UserError(
            "diffusion.guidance leads towards an image's class; set diffusion.conditional=True."
        )
    if isinstance(values["size"], (list, tuple)) and len(values["size"]) != 2:
        raise UserError(f"diffusion.size is a side or (height, width), got {values['size']}.")
    most = values["steps"] - (values["sampler"] == "dpm++")
    for key in ("sampler_steps", "judge_steps"):
        if values[key] > most:
            raise UserError(
                f"diffusion.{key}={values[key]}: the sampler {values['sampler']!r} makes at most "
                f"{most} steps where diffusion.steps is {values['steps']}."
            )
