"""What networks compute on their way, by name, for whoever asks for it.

- `tokens` [b, n, c]: those of the last block, after the network's last norm (BEiT has none before
  its mean), before they are pooled; the class token, if there is one, is the first.
- `attention` [b, heads, n, n]: the weights of each layer of attention; rows are queries and sum to
  one. Of windows, b counts those of all images; where queries see other tokens than themselves
  (DETR, words of a caption) it is [b, heads, queries, n].
- `self_attention` [b, heads, n, n]: the same of tokens that others attend to (DETR's encoder, maps
  of `cnn_self_attention`), and of words to those before them.

Each is sown in a Flax collection of its own name, so that nobody pays for what only others ask for:
weights of attention need another form of the product, tokens nothing. To have them beside the
output, name their collections in `apply`'s `mutable` and read what comes back with `collected`:

    logits, state = model.apply(variables, image, train=True, mutable=["batch_stats", "tokens"])
    (tokens,) = collected(state, "tokens")
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util
from jaxtyping import Array, Float

from jaxvision.errors import UserError

NAMES = ("tokens", "attention", "self_attention")


def asked(module: nn.Module, name: str) -> bool:
    """Whether the call that `module` is in is to record an intermediate output."""
    return module.is_mutable_collection(name) and not module.is_initializing()


def record(module: nn.Module, name: str, value: Array) -> None:
    """Records an intermediate output of `module`, if somebody asks for it."""
    if asked(module, name):
        module.sow(name, name, value)


def collected(state: Mapping[str, Any], name: str) -> tuple[Array, ...]:
    """The recorded outputs of a name, first layer to last, of what `apply` returned as changed."""
    found = traverse_util.flatten_dict(dict(state.get(name, {})), sep="/")
    return tuple(value for path in sorted(found, key=_by_number) for value in found[path])


def intermediates(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: Float[Array, "b ..."],
    names: Sequence[str],
    **options: Any,
) -> dict[str, tuple[Array, ...]]:
    """What a network computes on its way; may be jitted and differentiated.

    Args:
      model: the network, called as `model(image, train=False)`.
      variables: of it.
      image: normalised images [b, h, w, c].
      names: of `NAMES`, and of what networks of your own `record`.
      options: of the call, in place of `train=False`; `rngs` among them.

    Returns:
      For each name the outputs of all layers that have one, first to last: `tokens` is one.

    Raises:
      UserError: the network has no such output.
    """
    options = {"train": False, **options}

    def recorded(wanted: Sequence[str]) -> dict[str, tuple[Array, ...]]:
        _, state = model.apply(variables, image, mutable=list(wanted), **options)
        return {name: collected(state, name) for name in wanted}

    found = recorded(names)
    if missing := [name for name in names if not found[name]]:
        others = jax.eval_shape(lambda: recorded(NAMES))
        having = " and ".join(name for name in NAMES if others[name]) or "none"
        raise UserError(
            f"{type(model).__name__} has no {missing[0]}; of its intermediate outputs it gives "
            f"{having}."
        )
    return found


def _by_number(path: str) -> list[tuple[str, int]]:
    """Sorts `blocks_10` behind `blocks_2`."""
    return [
        (re.sub(r"\d+$", "", part), int((re.findall(r"\d+$", part) or ["-1"])[0]))
        for part in path.split("/")
    ]
