"""Configuration keys of autoencoding, the group `autoencoding`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import Key
from jaxvision.errors import UserError
from jaxvision.tasks import judging_keys

KEYS = {
    "likelihood": Key(
        "gaussian",
        "what a decoder says of pixels: gaussian, or bernoulli: each is white with a probability",
        choices=("gaussian", "bernoulli"),
    ),
    "scale": Key(
        0.1,
        "gaussian: standard deviation of pixels from 0 to 1; where it is learnt, the first",
        above=0,
    ),
    "learn_scale": Key(False, "gaussian: whether the standard deviation is learnt"),
    "beta": Key(1.0, "networks with a posterior: weight of its divergence from the prior", least=0),
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
    if values["learn_scale"] and values["likelihood"] != "gaussian":
        raise UserError(
            f"autoencoding.learn_scale is for gaussian; {values['likelihood']} has no scale."
        )
