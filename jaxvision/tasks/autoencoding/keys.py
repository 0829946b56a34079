"""Configuration keys of autoencoding, the group `autoencoding`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import Key
from jaxvision.errors import UserError
from jaxvision.tasks import judging_keys

KEYS = {
    "likelihood": Key(
        "gaussian",
        "what a decoder says of pixels: gaussian, laplace, bernoulli (each is white with a "
        "probability), or logit_laplace (a scale for each value, of networks that give it: dvae)",
        choices=("gaussian", "laplace", "bernoulli", "logit_laplace"),
    ),
    "scale": Key(
        0.1,
        "gaussian: standard deviation of pixels from 0 to 1, laplace: mean absolute deviation; "
        "where it is learnt, the first",
        above=0,
    ),
    "learn_scale": Key(False, "gaussian, laplace: whether the scale is learnt"),
    "beta": Key(
        1.0, "networks with a posterior or tokens: weight of its divergence from the prior", least=0
    ),
    "beta_warmup": Key(
        0.0, "tokens: share of the training in which beta rises from 0", least=0, below=1
    ),
    "temperature": Key(1.0, "tokens: of the draws that are decoded in training, at first", above=0),
    "final_temperature": Key(0.0625, "tokens: of these draws, after `annealing`", above=0),
    "annealing": Key(
        1.0,
        "tokens: share of the training in which the temperature falls by half a cosine",
        above=0,
    ),
    "free_bits": Key(
        0.0, "networks with a posterior: nats a latent variable may say for nothing", least=0
    ),
    "commitment": Key(
        0.25, "networks with a codebook: what keeps the encoder near its entries", least=0
    ),
    "compared": Key(
        "",
        "what is compared with real images: samples, or reconstructions; empty: samples where "
        "codes are vectors with a prior",
        choices=("", "samples", "reconstructions"),
    ),
    **judging_keys.KEYS,
}


def check(values: Mapping[str, Any]) -> None:
    """Raises:
    UserError: a scale is to be learnt that there is not.
    """
    if values["learn_scale"] and values["likelihood"] not in ("gaussian", "laplace"):
        raise UserError(
            f"autoencoding.learn_scale is for gaussian and laplace; {values['likelihood']} has no "
            "scale that is alike for all pixels."
        )
