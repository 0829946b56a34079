"""Write a network's weights as a safetensors file that its PyTorch reference loads."""

import argparse
import math
from typing import TYPE_CHECKING

from jaxvision.commands import source
from jaxvision.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxvision.interop.constructors import Network
    from jaxvision.models.variant import Variant
    from jaxvision.state_dict import Shapes, StateDict

    Export = Callable[[StateDict], StateDict]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", help="file to write, ends in .safetensors")
    parser.add_argument("--workdir", help="folder of a run")
    source.add_checkpoint(parser)
    parser.add_argument("--model", help="name of a network, with --weights")
    parser.add_argument(
        "--weights", default="default", help="file, tag or Hub name (default: default)"
    )
    parser.add_argument(
        "--for",
        dest="package",
        default="",
        help="library whose names the tensors get: torchvision, timm (default: the reference's, or "
        "the one whose name of the network was given)",
    )


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision import models, pretrained
    from jaxvision.interop import torch_weights
    from jaxvision.interop.constructors import constructor, is_known

    if overrides:
        raise UserError("export-torch takes no --config.KEY.")
    if bool(options.workdir) == bool(options.model):
        raise UserError("Give either --workdir, or --model and --weights.")
    if options.workdir:
        chosen = source.open_stored(options.workdir, options.checkpoint)
        name, variables = chosen.config.model.name, chosen.task.of_network(chosen.variables)
    else:
        name = options.model
        _, variables = pretrained.create(name, options.weights)
    entry = models.variant(name)
    reference, export = target(name, entry, options.package)
    shapes = torch_weights.torch_shapes(variables)
    torch_weights.save(options.output, variables, export)
    print(f"Wrote {len(shapes)} tensors of {name} to {options.output}. In PyTorch:")
    # The last layer of a detector does not tell its classes: it counts boxes and a background, too.
    tells = is_known(reference) and not entry.finds_objects
    network, differing = describe(name, entry, shapes) if tells else (None, [])
    if network and (call := constructor(reference, network)):
        print(f"  network = {call}")
    else:
        print(f"  network = ...  # {reference or 'with modules named as in ours'}")
    if differing:
        print(
            f"  # with this one's options: {len(differing)} tensors are not as in the published "
            f"{name}, e.g. {differing[0]}"
        )
    print(
        f'  network.load_state_dict(safetensors.torch.load_file("{options.output}"), strict=True)'
    )


def target(name: str, entry: "Variant", package: str) -> tuple[str, "Export"]:
    """The package and the network's name there, and what gives the tensors their names there."""
    forms = {form.package: form for form in entry.forms}
    own = entry.reference.partition(" ")[0]
    if not package:
        package = next((form.package for form in entry.forms if form.name == name), own)
    if package == own:
        return entry.reference, entry.export
    if package not in forms:
        raise unknown(f"library with a {name}", package, [own, *forms])
    form = forms[package]
    return f"{package} {form.name}", form.export


def describe(name: str, entry: "Variant", shapes: "Shapes") -> "tuple[Network, list[str]]":
    """What a constructor of another library must be told about a network.

    Args:
      name: of the registered network.
      entry: of the registry.
      shapes: of its tensors, by the reference's names.

    Returns:
      It, and the tensors that differ from the published network's all the same.
    """
    import jax
    import jax.numpy as jnp

    from jaxvision import models
    from jaxvision.interop.constructors import Network
    from jaxvision.interop.torch_weights import torch_shapes

    last, first = (f"{layer}.weight" for layer in ((*entry.classifier, "")[0], entry.first))
    classes = shapes[last][0] if last in shapes else 0
    *usual_size, usual_channels = entry.input_shape
    channels = shapes[first][1] if first in shapes else usual_channels
    auxiliary, options = None, {}
    if heads := [o for o in ("aux_logits", "auxiliary") if o in models.options(name)]:
        auxiliary = any(n.startswith(entry.auxiliary) for n in shapes)
        options = {heads[0]: auxiliary}
    model = models.create(name, classes if "classes" in entry.ends else None, **options)
    image = jnp.zeros((1, *usual_size, channels))
    usual = torch_shapes(jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False)))
    differing = [n for n in {**usual, **shapes} if usual.get(n) != shapes.get(n)]
    side = _side(usual, shapes, usual_size[0])
    if side:
        differing.remove("pos_embed")
    network = Network(
        classes,
        channels if channels != usual_channels else None,
        side,
        auxiliary,
        entry.role == "segmentation",
    )
    return network, differing


def _side(usual: "Shapes", found: "Shapes", side: int) -> int | None:
    """The side of square images that positions were resampled for; None if they were not."""
    old, new = usual.get("pos_embed"), found.get("pos_embed")
    if not old or not new or old == new:
        return None
    grid = math.isqrt(old[1])
    prefix = old[1] - grid**2
    now = math.isqrt(new[1] - prefix)
    return side * now // grid if now**2 + prefix == new[1] else None
