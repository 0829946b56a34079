"""What the registry holds of a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from flax import linen as nn

from jaxvision.layers.positions import Grid
from jaxvision.state_dict import Shapes, StateDict


def _as_it_is(state: StateDict, shapes: Shapes, grid: Grid | None) -> StateDict:
    return state


@dataclass(frozen=True)
class Form:
    """The same network in another library than its reference's.

    Attributes:
      package: the library.
      name: of the network there.
      export: brings a state_dict by the reference's names to those of that library.
    """

    package: str
    name: str
    export: Callable[[StateDict], StateDict]


@dataclass(frozen=True)
class Variant:
    """A named network: its module, the fields that make it this variant, and its reference.

    Attributes:
      reference: the PyTorch class whose state_dict the parameter tree mirrors.
      input_shape: (h, w, c) of the published network, (d, h, w, c) of one for volumes.
      paper: authors and year, and the address.
      role: the folder of `jaxvision.models` that it is in, which the registry fills in.
      inputs: what it is called with beside `train`: parts of a batch, by their names there. Those
        after the first may be left out.
      classifier: the reference's names of the layers whose outputs are the classes: published
        weights of another number of classes leave them as they were initialised.
      first: the reference's name of the layer whose input is the image.
      auxiliary: prefixes of parameters that only training uses; published weights may hold them.
      convert: brings a published state_dict whose names differ from the reference's to the
        reference's names, and leaves others alone.
      resize: fits what depends on the image's size (position embeddings) to the wanted shapes,
        both by the reference's names and in its layout; where the network declares the grid of its
        positions, it is given that, too.
      export: completes a state_dict of ours with what the reference's holds beside it.
      forms: other libraries whose state_dicts `convert` reads and that weights can be written for.
    """

    module: type[nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    input_shape: tuple[int, ...] = (224, 224, 3)
    paper: str = ""
    role: str = "backbones"
    inputs: tuple[str, ...] = ("image",)
    classifier: tuple[str, ...] = ()
    first: str = ""
    auxiliary: tuple[str, ...] = ()
    convert: Callable[[StateDict], StateDict] = dict
    resize: Callable[[StateDict, Shapes, Grid | None], StateDict] = _as_it_is
    export: Callable[[StateDict], StateDict] = dict
    forms: tuple[Form, ...] = ()

    @property
    def finds_objects(self) -> bool:
        """Whether it is a detector: its classifier's outputs are not its classes alone."""
        return self.role in ("detection", "instances")

    @property
    def ends(self) -> tuple[str, ...]:
        """What the network can return, read off the fields of its module.

        - "classes": logits, with `num_classes` above 0;
        - "features": its classifier's input, with `num_classes=0`;
        - "pyramid": feature maps, finest first, with `features_only=True`;
        - "tokens": those of the last block, with `tokens_only=True`.

        A module of which that is not true says so in its class attribute `ENDS`.
        """
        if declared := getattr(self.module, "ENDS", ()):
            return tuple(declared)
        names = {field.name for field in fields(self.module)}
        classes = ("classes", "features") if "num_classes" in names else ()
        maps = ("pyramid",) if "features_only" in names else ()
        return classes + maps + (("tokens",) if "tokens_only" in names else ())
