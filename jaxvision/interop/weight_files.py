"""State_dicts in files: safetensors, torch.save, in one file or in shards, wrapped or not."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxvision.errors import UserError, unknown
from jaxvision.interop import deep_compression
from jaxvision.interop.file_kind import foreign
from jaxvision.interop.torch_file import REMEDY, read_torch_file
from jaxvision.interop.torch_pickle import Placeholder
from jaxvision.state_dict import StateDict

# The files of a repository on the Hub, by preference; an index lists shards beside it.
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
_INDEX = ".index.json"
_FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
# What training scripts call a network in their files. Where these are, other keys are not looked
# into.
_NETWORKS = {
    *("state_dict", "model_state_dict", "model_state", "model", "model_weights", "weights"),
    *("net", "network", "module", "params", "teacher", "student"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict"),
    *("params_ema", "ema_model"),
}
# What has tensors and is no network.
_OTHERS = re.compile(r"optim|sched|scaler|loss|criterion|callback|rng|amp$", re.IGNORECASE)
# What wraps whole networks: DataParallel, torch.compile, Lightning, and methods that train one
# network inside of another. No network of ours has all its names under one of them.
_PREFIXES = (
    *("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder."),
    *("base_model.", "ema_model.", "model_ema.", "student.", "teacher.", "trunk."),
)


class Choice(NamedTuple):
    """What `FILE#state_dict_ema,ignore=*.total_ops` asks for.

    Attributes:
      place: a file, folder, address or name.
      part: which state_dict of the file, or "".
      ignore: shell patterns of names that the network may lack.
    """

    place: str
    part: str = ""
    ignore: tuple[str, ...] = ()


def split_choice(weights: str) -> Choice:
    """Takes apart what is written after the last `#`; a checksum stays with the address.

    Raises:
      UserError: it names two parts.
    """
    if "#" not in weights or Path(weights).expanduser().exists():
        return Choice(weights)
    place, _, wanted = weights.rpartition("#")
    parts, ignore = [], []
    for item in filter(None, wanted.split(",")):
        if item.startswith("sha256="):
            place += f"#{item}"
        elif item.startswith("ignore="):
            ignore.append(item.removeprefix("ignore="))
        else:
            parts.append(item)
    if len(parts) > 1:
        raise UserError(f"{weights} asks for {len(parts)} parts of a file: {', '.join(parts)}.")
    return Choice(place, "".join(parts), tuple(ignore))


def file_in(folder: Path) -> Path:
    """The weights in a folder like a repository of the Hub, or one of the Hub's cache.

    Raises:
      UserError: it has none.
    """
    snapshots = folder / "snapshots"
    if snapshots.is_dir():
        main = folder / "refs" / "main"
        revisions = sorted(p for p in snapshots.iterdir() if p.is_dir())
        if main.is_file():
            revisions = [p for p in revisions if p.name == main.read_text().strip()]
        if len(revisions) != 1:
            raise UserError(f"{folder} has {len(revisions) or 'no'} revisions; give one's folder.")
        folder = revisions[0]
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    hint = f" Another run's weights are run:{folder}." if (folder / "checkpoints").is_dir() else ""
    raise UserError(f"No weights in the folder {folder}: it has none of {', '.join(FILES)}.{hint}")


def shards(index: Path) -> dict[str, list[str]]:
    """The names of tensors by the file beside the index that holds them.

    Raises:
      UserError: it is no index, or names files elsewhere.
    """
    try:
        where = json.loads(index.read_text())["weight_map"]
        files: dict[str, list[str]] = {}
        for name, file in where.items():
            files.setdefault(file, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"Cannot read {index}: it is no index of shards ({error!r}).") from error
    for file in files:
        plain = isinstance(file, str) and re.fullmatch(r"[^/\\\0]+", file)
        if not plain or file in (".", "..") or file.endswith(_INDEX):
            raise UserError(f"{index} names {file!r}, which is no file beside it.")
    return files


def read_state_dict(path: str | Path, part: str = "") -> StateDict:
    """The tensors of a file by name.

    `.safetensors`, files of torch.save under any name, an index of shards
    (`model.safetensors.index.json`), a folder with one of these, or the `.net` file of SqueezeNet's
    authors. Wrappers around the state_dict
    (`{"state_dict": ..., "epoch": ...}`) and prefixes of all names (`module.`) are taken off.

    Args:
      path: of the file or folder.
      part: which of several state_dicts: the keys that lead to it, joined by `/`; then perhaps how
        names begin, for those alone (`teacher/backbone`).

    Raises:
      UserError: no such file, damaged, of another format, or it holds no tensors, or several
        state_dicts.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = file_in(path)
    if not path.is_file():
        raise UserError(f"No weights file {path}.")
    state = _tensors(_chosen(_content(path), part, path), path)
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _content(path: Path) -> Mapping[str, Any]:
    if path.name.endswith(_INDEX):
        return _sharded(path)
    if kind := foreign(path):
        raise UserError(f"Cannot read {path}: it is {kind}.")
    if path.suffix == ".safetensors" or _begins_as_safetensors(path):
        return _safetensors(path)
    if path.suffix == deep_compression.SUFFIX:
        return deep_compression.read(path)
    return read_torch_file(path)


def _begins_as_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and length < path.stat().st_size


def _sharded(index: Path) -> StateDict:
    found: StateDict = {}
    for file, names in shards(index).items():
        shard = index.with_name(file)
        if not shard.is_file():
            raise UserError(f"{index} names {file}, which is not beside it.")
        state = _content(shard)
        if missing := [name for name in names if not isinstance(state.get(name), np.ndarray)]:
            raise UserError(f"{shard} has no {missing[0]!r}, which {index.name} says is there.")
        found |= {name: state[name] for name in names}
    return found


def _safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            found = {n: file.get_tensor(n) for n, kind in kinds.items() if kind not in _FLOAT8}
        if len(found) < len(kinds):  # its reader for NumPy has no float8
            for name, view in deserialize(path.read_bytes()):
                if view["dtype"] in _FLOAT8:
                    flat = np.frombuffer(view["data"], _FLOAT8[view["dtype"]])
                    found[name] = flat.reshape(view["shape"]).astype(np.float32)
        return found
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"Cannot read {path}: {error}") from error


def _chosen(content: Mapping[str, Any], part: str, path: Path) -> Mapping[str, Any]:
    found = _state_dicts(content)
    if part:
        inner = _part(content, part) or (_part(next(iter(found.values())), part) if found else {})
        if not inner:
            raise unknown(f"state_dict in {path}", part, [*filter(None, found), *_heads(found)])
        found = _state_dicts(inner)
    if not found:
        kinds = sorted(set(_placeholders(content)))[:4]
        objects = f" Objects in it are not read ({', '.join(kinds)}). {REMEDY}" if kinds else ""
        raise UserError(f"{path} holds no tensors.{objects}")
    if len(found) > 1:
        before = f"{part}/" if part else ""
        names = ", ".join(
            f"#{before}{place} ({sum(isinstance(v, np.ndarray) for v in state.values())} tensors)"
            for place, state in found.items()
        )
        raise UserError(
            f"{path} holds several state_dicts. Write which one after its name: {names}."
        )
    return next(iter(found.values()))


def _state_dicts(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What may be a network's state_dict, by the keys that lead there."""
    seen: set[int] = set()

    def search(content: Mapping[str, Any], place: str) -> dict[str, Mapping[str, Any]]:
        seen.add(id(content))
        inner = {
            str(key): value
            for key, value in content.items()
            if isinstance(value, Mapping) and not _OTHERS.search(str(key))
        }
        for keys in (_NETWORKS & inner.keys(), inner.keys() - _NETWORKS):
            found: dict[str, Mapping[str, Any]] = {}
            for key in (key for key in inner if key in keys):
                if id(inner[key]) not in seen:
                    found |= search(inner[key], f"{place}/{key}".lstrip("/"))
            if found:
                return found
            if any(isinstance(value, np.ndarray) for value in content.values()):
                return {place: content}
        return {}

    return search(content, "")


def _part(content: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """What the keys of `part` lead to, or the names that begin so; empty if there are none."""
    if isinstance(inner := content.get(part), Mapping):
        return inner
    key, _, rest = part.partition("/")
    if rest and isinstance(inner := content.get(key), Mapping):
        return _part(inner, rest)
    begin = f"{part}."
    return {
        str(name).removeprefix(begin): value
        for name, value in content.items()
        if str(name).startswith(begin)
    }


def _heads(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How names begin, where there is one state_dict."""
    if len(found) != 1:
        return []
    (names,) = found.values()
    return sorted({str(name).partition(".")[0] for name in names})


def _placeholders(content: Mapping[str, Any]) -> list[str]:
    values = list(content.values())
    for value in content.values():
        if isinstance(value, Mapping):
            values += value.values()
    return [value.kind for value in values if isinstance(value, Placeholder)]


def _tensors(content: Mapping[str, Any], path: Path) -> StateDict:
    for name, value in content.items():
        # A tensor of a kind that is not read would be missing; other objects are no parameters.
        if isinstance(value, Placeholder) and re.match(r"torch\._|a tensor", value.kind):
            raise UserError(f"{name!r} in {path} is not read: it is made by {value.kind}.")
    return {str(k): v for k, v in content.items() if isinstance(v, np.ndarray)}
