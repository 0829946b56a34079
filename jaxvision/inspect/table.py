"""Networks layer by layer: shapes, parameters, multiply-adds, memory, receptive fields.

A network is traced without being run, and the table is read off the traced program. So it counts
what is computed, functional parts like attention included, in any module.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.inspect.fields import Field, after

# Operations for each element, as fvcore counts them.
_NORMS = {"BatchNorm": 2, "LayerNorm": 5, "GroupNorm": 5}
_KINDS = {
    "conv_general_dilated": "convolution",
    "dot_general": "product",
    "reduce_window_max": "max pooling",
    "reduce_window_sum": "average pooling",
    "reduce_window": "pooling",
    "reduce_sum": "mean",
}


@dataclass
class Layer:
    """One line of the table.

    Attributes:
      path: of the module, e.g. `layer1_0/conv1`; "" is the network itself.
      kind: class of the module, or the operation.
      output: shape of what it puts out for one image.
      parameters: its own.
      multiply_adds: for one image. As in fvcore, a convolution or matrix product counts one for
        each multiplication, batch norm two (layer norm five) for each element, a mean over the map
        one for each element, and activations, sums, biases and pooling nothing.
      memory: bytes of its output.
      receptive_field: pixels of the image that an element of the output depends on, by axis; None
        is the whole image.
      stride: pixels between neighbours of the output, by axis; None where it has no place.
    """

    path: str
    kind: str
    output: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0
    memory: int = 0
    receptive_field: tuple[float, ...] | None = None
    stride: tuple[float, ...] | None = None


def layers(module: nn.Module, image_shape: Sequence[int], dtype: Any = jnp.float32) -> list[Layer]:
    """The layers of a network in the order in which they are computed.

    Args:
      module: called as `module(image, train=False)`.
      image_shape: [h, w, c], or [d, h, w, c] of a volume.
      dtype: of the image; of memory too.
    """
    # These change how a network is compiled, not what it computes.
    plain: dict[str, Any] = {n: False for n in ("scan", "remat") if getattr(module, n, False)}
    module = module.clone(**plain)
    image = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    kinds: dict[str, str] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        found = type(context.module)
        ancestors = [base.__name__ for base in found.__mro__]
        kind = next((name for name in ancestors if name in (*_LEAVES, *_NORMS)), found.__name__)
        kinds.setdefault("/".join(context.module.path), kind)
        return call(*args, **kwargs)

    def initialise(x: jax.Array) -> Any:
        with nn.intercept_methods(record):
            return module.init(jax.random.key(0), x, train=False)

    variables = jax.eval_shape(initialise, image)
    parameters: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        owner = "/".join(part.key for part in path[:-1])
        parameters[owner] = parameters.get(owner, 0) + math.prod(leaf.shape)
    program = jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, image).jaxpr
    fields: list[Field | None] = [None] * len(program.invars)
    fields[-1] = Field.of_image(len(image_shape) - 1)
    reader = _Reader(kinds, parameters)
    reader.read(program, fields)
    return list(reader.lines.values())


def totals(lines: Sequence[Layer]) -> Layer:
    """The sums, with the output, receptive field and stride of the last line."""
    last = lines[-1]
    return Layer(
        "",
        "total",
        last.output,
        sum(line.parameters for line in lines),
        sum(line.multiply_adds for line in lines),
        sum(line.memory for line in lines),
        last.receptive_field,
        last.stride,
    )


@dataclass
class _Reader:
    """Reads a traced program from its first operation to its last.

    Attributes:
      kinds: class of the module at each path.
      parameters: counts, of the modules that have some.
      lines: what has been found; keys are paths, with a number for operations outside of modules
        that have parameters.
    """

    kinds: Mapping[str, str]
    parameters: Mapping[str, int]
    lines: dict[tuple[str, int], Layer] = field(default_factory=dict)

    def read(
        self, program: Any, fields: Sequence[Field | None], base: str = "", times: int = 1
    ) -> list[Field | None]:
        """Adds the lines of a program; the fields of what it returns.

        Args:
          program: an open jaxpr.
          fields: of its inputs.
          base: path of the module that it is called in.
          times: how often it runs.
        """
        followed: dict[Any, Field | None] = dict(zip(program.invars, fields, strict=True))

        def field_of(variable: Any) -> Field | None:
            return None if isinstance(variable, jax.extend.core.Literal) else followed.get(variable)

        for equation in program.eqns:
            path = self.resolve(base, str(equation.source_info.name_stack))
            inputs = [field_of(variable) for variable in equation.invars]
            inner = _inner(equation)
            if inner is not None:
                length = equation.params.get("length", 1)
                inputs = inputs[len(inputs) - len(inner.invars) :]
                found = self.read(inner, inputs, path, times * length)
            else:
                output = equation.outvars[0].aval.shape
                shapes = [getattr(v.aval, "shape", ()) for v in equation.invars]
                name, params = equation.primitive.name, equation.params
                seen = after(name, params, shapes, inputs, output)
                found = [seen] * len(equation.outvars)
                self.count(path, name, params, shapes, inputs, output, seen, times)
            followed.update(zip(equation.outvars, found))
        return [field_of(variable) for variable in program.outvars]

    def resolve(self, base: str, stack: str) -> str:
        """The module in which an operation is, from the scopes that Flax has named."""
        path = base
        for part in stack.split("/"):
            longer = f"{path}/{part}" if path else part
            path = longer if longer in self.kinds else path
        return path

    def count(
        self,
        path: str,
        name: str,
        params: Mapping[str, Any],
        shapes: Sequence[tuple[int, ...]],
        inputs: Sequence[Field | None],
        output: tuple[int, ...],
        seen: Field | None,
        times: int,
    ) -> None:
        """Adds an operation to its line."""
        kind, own = self.kinds[path], self.parameters.get(path, 0)
        operations = 0 if seen is None else _operations(name, params, shapes, inputs, output)
        if own and path:
            line = self.lines.setdefault((path, 0), Layer(path, kind, parameters=own))
            if kind not in _NORMS and kind not in _LEAVES and operations == 0:
                return
            if kind in _NORMS:
                line.multiply_adds = _NORMS[kind] * math.prod(output) * times
            if kind in _NORMS or kind in _LEAVES:
                line.multiply_adds += 0 if kind in _NORMS else operations * times
                _describe(line, output, seen)
                return
        elif own and (path, 0) not in self.lines:
            self.lines[path, 0] = Layer(path, kind, parameters=own)
        if seen is not None and (operations or name.startswith("reduce_window")):
            number = 1 + sum(p == path for p, _ in self.lines)
            line = self.lines[path, number] = Layer(path, _KINDS[name])
            line.multiply_adds = operations * times
            _describe(line, output, seen)


_LEAVES = (
    "Conv2d",
    "ConvTranspose2d",
    "Conv3d",
    "ConvTranspose3d",
    "Conv",
    "ConvTranspose",
    "Dense",
)


def _describe(line: Layer, output: tuple[int, ...], seen: Field | None) -> None:
    line.output = output[1:]
    line.memory = 4 * math.prod(output)
    if seen is not None:
        line.receptive_field = None if seen.everywhere else tuple(map(float, seen.size))
        line.stride = tuple(map(float, seen.stride)) if seen.axes and not seen.everywhere else None


def _inner(equation: Any) -> Any:
    """The program that an operation calls, if it calls one; of several, that for accelerators."""
    params = equation.params
    if "branches" in params:
        return params["branches"][-1].jaxpr
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            return getattr(params[key], "jaxpr", params[key])
    return None


def _operations(
    name: str,
    params: Mapping[str, Any],
    shapes: Sequence[tuple[int, ...]],
    inputs: Sequence[Field | None],
    output: tuple[int, ...],
) -> int:
    """Multiply-adds of an operation on what depends on the image."""
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        kernel = shapes[1]
        taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
        features, group = kernel[numbers.rhs_spec[0]], kernel[numbers.rhs_spec[1]]
        if any(f > 1 for f in params["lhs_dilation"]):  # transposed: from each input element
            return math.prod(shapes[0]) * taps * features
        return math.prod(output) * taps * group
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(output) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "reduce_sum":
        field = inputs[0]
        averaged = field is not None and field.mixed_by(params["axes"])
        return math.prod(shapes[0]) if averaged else 0
    return 0
