"""PyTorch weights in and out, by one naming rule and without PyTorch.

The rule: a parameter tree is its reference's state_dict, path for path.

| ours                              | PyTorch                    | array                     |
|-----------------------------------|----------------------------|---------------------------|
| `layer1_0/conv1/kernel`, 4-d      | `layer1.0.conv1.weight`    | HWIO, there OIHW          |
| the same of a transposed one      | `up.weight`                | HWOI, there IOHW          |
| `fc/kernel`, 2-d                  | `fc.weight`                | IO, there OI              |
| `bn1/scale`, `bn1/bias`           | `bn1.weight`, `bn1.bias`   | same                      |
| `bn1/mean`, `bn1/var` (statistics)| `bn1.running_mean`, `_var` | same                      |
| anything else, e.g. `cls_token`   | the same name              | same                      |

A number at the end of a module's name is an index in the reference: `blocks_0` ↔ `blocks.0`; if it
is none there, an underscore follows it: `linear_1_` ↔ `linear_1`. A name may hold dots, where a
module of ours is several levels deep there: `layer0.conv1`.
"""

import re
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError, nearest
from jaxvision.interop.weight_files import read_state_dict
from jaxvision.state_dict import StateDict

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}
_UNUSED = ("num_batches_tracked",)


def torch_name(path: str) -> str:
    """`"params/layer1_0/conv1/kernel"` to `"layer1.0.conv1.weight"`."""
    collection, *modules, leaf = path.split("/")
    table = _STATISTICS if collection == "batch_stats" else _LEAVES
    indexed = (re.sub(r"_(?=\d+(_\d+)*$)", ".", module) for module in modules)
    parts = [re.sub(r"(?<=\d)_$", "", module) for module in indexed]
    return ".".join([*parts, table.get(leaf, leaf)])


def to_torch_layout(path: str, value: np.ndarray) -> np.ndarray:
    """A leaf of ours as PyTorch lays it out."""
    if path.endswith("/kernel") and value.ndim >= 2:
        # Convolutions are [..., in, out]; transposed ones store the kernel of the convolution that
        # they transpose, so that one rule serves both.
        spatial = range(value.ndim - 2)
        return value.transpose(value.ndim - 1, value.ndim - 2, *spatial)
    return value


def from_torch_layout(path: str, value: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch_layout`."""
    if path.endswith("/kernel") and value.ndim >= 2:
        return value.transpose(*range(2, value.ndim), 1, 0)
    return value


def torch_shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of variables, by PyTorch name and in PyTorch's layout."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        ours = "/".join(str(part.key) for part in path)
        layout = to_torch_layout(ours, np.broadcast_to(np.float32(0), leaf.shape))
        found[torch_name(ours)] = layout.shape
    return found


def to_variables(
    state: Mapping[str, np.ndarray],
    like: Any,
    where: str = "the weights",
    keep: Set[str] = frozenset(),
    ignore: tuple[str, ...] = (),
) -> Any:
    """Variables shaped like `like`, filled from a state_dict.

    Args:
      state: tensors by PyTorch name.
      like: variables (arrays or shapes) of the model, `{"params": ..., "batch_stats": ...}`.
      where: named in errors.
      keep: names that the state_dict may lack; they are then as in `like`.
      ignore: how names begin that it may have although the model does not.

    Raises:
      UserError: lists the missing, unexpected and mis-shaped names.
    """
    used: set[str] = set()
    missing: list[str] = []
    misshaped: list[str] = []

    def fill(path: Any, leaf: Any) -> Any:
        ours = "/".join(str(part.key) for part in path)
        name = torch_name(ours)
        used.add(name)
        if name not in state:
            if name not in keep:
                missing.append(name)
            return leaf
        value = from_torch_layout(ours, np.asarray(state[name]))
        if value.shape != leaf.shape:
            wanted = list(to_torch_layout(ours, np.empty(leaf.shape)).shape)
            misshaped.append(f"{name} is {list(state[name].shape)}, the model's is {wanted}")
            return leaf
        return value.astype(leaf.dtype)

    filled = jax.tree_util.tree_map_with_path(fill, like)
    unexpected = [
        n for n in state if n not in used and not n.endswith(_UNUSED) and not n.startswith(ignore)
    ]
    if missing or misshaped or unexpected:
        raise UserError(_mismatch(where, missing, misshaped, unexpected))
    return filled


def _mismatch(
    where: str, missing: list[str], misshaped: list[str], unexpected: list[str], shown: int = 8
) -> str:
    lines = [f"{where} do not fit the model."]
    for title, names in (
        ("Missing", missing),
        ("Mis-shaped", misshaped),
        ("Unexpected", unexpected),
    ):
        if names:
            more = f", ... ({len(names) - shown} more)" if len(names) > shown else ""
            lines.append(f"  {title} ({len(names)}): {', '.join(names[:shown])}{more}")
    if missing and unexpected and (close := nearest(missing[0], unexpected, count=1)):
        lines.append(f"  {missing[0]!r} may be {close[0]!r} there.")
    if begin := next((n.removesuffix(missing[0]) for n in unexpected if _under(n, missing)), ""):
        lines.append(f"  The file has it under {begin!r}: write #{begin[:-1]} after its name.")
    if unexpected and not missing and not misshaped:
        lines.append(
            "  If these are of no use, write after the file's name: "
            f"#ignore={unexpected[0]} (a shell pattern; more of them after commas)."
        )
    return "\n".join(lines)


def _under(name: str, missing: list[str]) -> bool:
    """Whether it is the first missing name with something before."""
    return bool(missing) and name.endswith(f".{missing[0]}")


def load(path: str | Path, like: Any, convert: Callable[[StateDict], StateDict] = dict) -> Any:
    """Variables of a model from a weights file.

    Args:
      path: see `read_state_dict`.
      like: variables of the model, for names and shapes.
      convert: renames a published state_dict to the reference's names (`Variant.convert`).

    Raises:
      UserError: the file cannot be read, or its names or shapes do not fit.
    """
    return to_variables(convert(read_state_dict(path)), like, str(path))


def to_state_dict(variables: Any) -> StateDict:
    """Variables as a PyTorch state_dict; batch norms get `num_batches_tracked` = 0."""
    state: StateDict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        ours = "/".join(str(part.key) for part in path)
        value = to_torch_layout(ours, np.asarray(leaf))
        state[torch_name(ours)] = np.ascontiguousarray(value)
        if ours.startswith("batch_stats/") and ours.endswith("/mean"):
            tracked = torch_name(ours).removesuffix("running_mean") + "num_batches_tracked"
            state[tracked] = np.zeros((), np.int64)
    return state


def save(path: str | Path, variables: Any, export: Callable[[StateDict], StateDict] = dict) -> None:
    """Writes variables as a safetensors file that the PyTorch reference loads.

    Written under a temporary name first, so that an existing file is replaced whole or not at all.

    Args:
      path: ends in `.safetensors`.
      variables: of the model.
      export: completes the state_dict for the reference (`Variant.export`).

    Raises:
      UserError: another suffix, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(f"Weights are written as .safetensors; {path} ends in {path.suffix!r}.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        state = export(to_state_dict(variables))
        # Of a view safetensors writes the memory, in whatever order it lies.
        save_file({n: np.asarray(value, order="C") for n, value in state.items()}, temporary)
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"Cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
