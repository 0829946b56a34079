"""What single layers and units of a network see: filters, maps, gradients with respect to images.

Every function takes one normalised image [h, w, c], and can be jitted over variables and image.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from jaxvision.errors import UserError, unknown
from jaxvision.inspect import draw
from jaxvision.ops.resize import resize

Variables = Mapping[str, Any]
RULES = ("gradient", "deconvnet", "guided")


def plain(module: nn.Module) -> nn.Module:
    """The same network, compiled layer by layer: without `scan` and `remat`."""
    changed: dict[str, Any] = {n: False for n in ("scan", "remat") if getattr(module, n, False)}
    return module.clone(**changed)


def outputs(module: nn.Module, variables: Variables, image_shape: Sequence[int]) -> dict[str, Any]:
    """Shapes of what the modules put out for one image, by path, in the order of computation.

    Args:
      module: called as `module(image, train=False)`.
      variables: of it.
      image_shape: [h, w, c].
    """
    found: dict[str, tuple[int, ...]] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        value = call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(value, "shape"):
            found.setdefault("/".join(context.module.path), value.shape[1:])
        return value

    def apply(variables: Variables, image: Array) -> Any:
        with nn.intercept_methods(record):
            return plain(module).apply(variables, image, train=False)

    jax.eval_shape(apply, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


def default_layer(shapes: Mapping[str, Sequence[int]], first: bool = False) -> str:
    """The path of the first or last module that puts out a map of more than one place.

    Args:
      shapes: what `outputs` gives.
      first: which.

    Raises:
      UserError: there is none.
    """
    maps = [p for p, shape in shapes.items() if p and len(shape) == 3 and shape[0] * shape[1] > 1]
    if not maps:
        raise UserError("The network has no maps.")
    return maps[0] if first else maps[-1]


def taps(
    module: nn.Module, variables: Variables, images: Float[Array, "b h w c"], layers: Sequence[str]
) -> dict[str, Array]:
    """What layers put out when they are first called, by path.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      images: normalised.
      layers: paths of modules, e.g. `layer1_0/conv1`.

    Raises:
      UserError: there is no such layer.
    """
    found: dict[str, Array] = {}

    def tap(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        value = call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(value, "shape"):
            found.setdefault("/".join(context.module.path), value)
        return value

    with nn.intercept_methods(tap):
        plain(module).apply(variables, images, train=False)
    for layer in layers:
        if layer not in found:
            raise unknown("layer", layer, [path for path in found if path])
    return {layer: found[layer] for layer in layers}


def tapped(
    module: nn.Module,
    variables: Variables,
    images: Float[Array, "b h w c"],
    layer: str,
    shift: Array | float = 0.0,
) -> tuple[Any, Float[Array, "b *map k"]]:
    """The network's output, and what a layer puts out when it is first called.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      images: normalised.
      layer: path of a module, e.g. `layer1_0/conv1`; "" is the network itself.
      shift: added to what the layer puts out, so that one can differentiate by that.

    Raises:
      UserError: there is no such layer.
    """
    kept: list[Array] = []
    paths: list[str] = []

    def tap(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        value = call(*args, **kwargs)
        if context.method_name != "__call__" or not hasattr(value, "shape"):
            return value
        path = "/".join(context.module.path)
        paths.append(path)
        if path == layer and not kept:
            value = value + jnp.asarray(shift, value.dtype)
            kept.append(value)
        return value

    with nn.intercept_methods(tap):
        output = plain(module).apply(variables, images, train=False)
    if not kept:
        raise unknown("layer", layer, {path for path in paths if path})
    return output, kept[0]


def convolutions(variables: Variables) -> dict[str, Any]:
    """The kernels [h, w, c, k] of a network by the paths of their layers."""
    return {
        "/".join(part.key for part in path[:-1]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables["params"]))
        if path[-1].key == "kernel" and leaf.ndim == 4
    }


def filters(variables: Variables, layer: str) -> UInt8[np.ndarray, "n h w 3"]:
    """The kernels of a convolution on grey or colour images as tiles, each from black to white.

    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012,
    figure 3.

    Args:
      variables: of the network.
      layer: path of the convolution.

    Raises:
      UserError: there is no such layer, it is no convolution, or one on other channels.
    """
    kernels = convolutions(variables)
    if layer not in kernels:
        raise unknown("convolution", layer, kernels)
    kernel = np.asarray(kernels[layer], np.float32).transpose(3, 0, 1, 2)
    if kernel.shape[-1] not in (1, 3):
        raise UserError(
            f"Filters of {layer!r} are on {kernel.shape[-1]} channels; only those on 1 or 3 have "
            "colours."
        )
    low = kernel.min((1, 2, 3), keepdims=True)
    span = np.maximum(kernel.max((1, 2, 3), keepdims=True) - low, 1e-12)
    tiles = np.round(255 * (kernel - low) / span).astype(np.uint8)
    return np.broadcast_to(tiles, (*tiles.shape[:3], 3)).copy()


def activations(
    module: nn.Module, variables: Variables, image: Float[Array, "h w c"], layer: str
) -> Float[Array, "i j k"]:
    """The map that a layer puts out.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      image: normalised.
      layer: path of a module.

    Raises:
      UserError: there is no such layer, or what it puts out is no map.
    """
    value = tapped(module, variables, image[None], layer)[1]
    if value.ndim != 4:
        raise UserError(f"Layer {layer!r} puts out {value.shape[1:]}, which is no map.")
    return value[0].astype(jnp.float32)


def channel_tiles(
    maps: Float[np.ndarray, "i j k"], channels: Sequence[int]
) -> UInt8[np.ndarray, "n i j 3"]:
    """Channels of a map in colours, each from its least to its greatest value.

    Raises:
      UserError: there is no such channel.
    """
    maps = np.asarray(maps)
    check_channels(channels, maps.shape[-1])
    return np.stack([draw.colours(draw.stretched(maps[..., channel])) for channel in channels])


def check_channels(channels: Sequence[int], count: int) -> None:
    """Checks that a layer of `count` channels has them.

    Raises:
      UserError: it has not.
    """
    if wrong := [channel for channel in channels if not 0 <= channel < count]:
        raise UserError(f"There is no channel {wrong[0]}; the layer has 0 to {count - 1}.")


# -- gradients ------------------------------------------------------------------------------------


def saliency(
    module: nn.Module,
    variables: Variables,
    image: Float[Array, "h w c"],
    layer: str = "",
    channel: int | Array | None = None,
    rule: str = "gradient",
) -> Float[Array, "h w c"]:
    """The gradient of one unit with respect to the image, or what is propagated in its place.

    "gradient": Simonyan et al., Deep Inside Convolutional Networks, 2013,
    https://arxiv.org/abs/1312.6034. "deconvnet", where ReLUs pass back what is positive, whatever
    went in: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013,
    https://arxiv.org/abs/1311.2901. "guided", where what went in must be positive too: Springenberg
    et al., Striving for Simplicity, 2014, https://arxiv.org/abs/1412.6806. The switches of max
    pooling are those of its gradient.

    Args:
      module: called as `module(images, train=False)`.
      variables: of it.
      image: normalised.
      layer: path of a module; "" is the network itself, whose units are the logits.
      channel: whose strongest place is the unit; None is the channel with the strongest one.
      rule: how ReLUs (and ReLU6) propagate backwards. Other activations have their gradient.

    Raises:
      UserError: there is no such layer or rule.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)

    def unit(image: Array) -> Array:
        value = tapped(module, variables, image[None], layer)[1]
        units = value.reshape(-1, value.shape[-1]).astype(jnp.float32)
        which = units.max(0).argmax() if channel is None else channel
        column = units[:, which]
        return column[column.argmax()]

    return jax.grad(unit if rule == "gradient" else with_relu_rule(unit, rule))(image)


def with_relu_rule(function: Callable[[Array], Array], rule: str) -> Callable[[Array], Array]:
    """A function of one array with another gradient of `jax.nn.relu` and `relu6` in it.

    The function is traced, and the traced program run with other ReLUs: so it makes no difference
    how it came by them. Those inside of loops are not found.

    Args:
      function: of an array, and differentiable.
      rule: "deconvnet" or "guided", see `saliency`.
    """

    def changed(x: Array) -> Array:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(x)
        found = _run(closed.jaxpr, closed.consts, [x], rule)
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return changed


_LIMITS = {"relu": np.inf, "relu6": 6.0}
_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")


def _run(program: Any, consts: Sequence[Any], arguments: Sequence[Any], rule: str) -> list[Any]:
    """Runs an open jaxpr with other ReLUs."""
    environment: dict[Any, Any] = dict(zip(program.constvars, consts))
    environment.update(zip(program.invars, arguments))

    def read(variable: Any) -> Any:
        literal = isinstance(variable, jax.extend.core.Literal)
        return variable.val if literal else environment[variable]

    for equation in program.eqns:
        values = [read(variable) for variable in equation.invars]
        limit = _limit(equation)
        if limit is not None:
            results = [_relu(rule, limit, values[0])]
        elif equation.primitive.name in _CALLS:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            inner, more = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            results = _run(inner, more, values, rule)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            if isinstance(params, tuple):  # of JAX before 0.10: functions, then parameters
                values, params = [*params[0], *values], params[1]
            found = equation.primitive.bind(*values, **params)
            results = found if equation.primitive.multiple_results else [found]
        environment.update(zip(equation.outvars, results))
    return [read(variable) for variable in program.outvars]


def _limit(equation: Any) -> float | None:
    """Where an operation that is a ReLU ends; None if it is none."""
    if equation.primitive.name != "custom_jvp_call":
        return None
    inner = equation.params["call_jaxpr"].jaxpr.eqns
    name = inner[0].params.get("name", "") if len(inner) == 1 else ""
    return _LIMITS.get(name)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _relu(rule: str, limit: float, x: Array) -> Array:
    return jnp.clip(x, 0, limit)


def _relu_backward(rule: str, limit: float, inside: Array, g: Array) -> tuple[Array]:
    positive = jnp.maximum(g, 0)
    return (positive if rule == "deconvnet" else jnp.where(inside, positive, 0),)


_relu.defvjp(lambda rule, limit, x: (_relu(rule, limit, x), (x > 0) & (x < limit)), _relu_backward)


def grad_cam(
    module: nn.Module,
    variables: Variables,
    image: Float[Array, "h w c"],
    layer: str,
    label: int | Array,
) -> Float[Array, "h w"]:
    """Where in the image a layer sees evidence of a class, from 0 to 1.

    The channels of the layer's map, weighted by the mean gradient of the class's logit, summed,
    cut off below zero and enlarged bilinearly: Selvaraju et al., Grad-CAM, 2016,
    https://arxiv.org/abs/1610.02391. Zero everywhere where no place speaks for the class.

    Args:
      module: a classifier, called as `module(images, train=False)`.
      variables: of it.
      image: normalised.
      layer: path of a module that puts out a map; usual is the last one.
      label: the class.

    Raises:
      UserError: there is no such layer, it puts out no map, or the network is no classifier.
    """
    images = image[None]
    logits, value = jax.eval_shape(lambda: tapped(module, variables, images, layer))
    if value.ndim != 4:
        raise UserError(f"Layer {layer!r} puts out {value.shape[1:]}, which is no map.")
    if getattr(logits, "ndim", 0) != 2:
        raise UserError("Grad-CAM is of classifiers.")

    def score(shift: Array) -> tuple[Array, Array]:
        logits, value = tapped(module, variables, images, layer, shift)
        return logits[0, label].astype(jnp.float32), value

    gradient, value = jax.grad(score, has_aux=True)(jnp.zeros(value.shape, value.dtype))
    weights = gradient.mean((1, 2), keepdims=True, dtype=jnp.float32)
    evidence = jnp.maximum((weights * value).sum(-1, keepdims=True), 0)
    enlarged = resize(evidence, (image.shape[0], image.shape[1]))[0, ..., 0]
    return enlarged / jnp.maximum(enlarged.max(), jnp.finfo(jnp.float32).tiny)
