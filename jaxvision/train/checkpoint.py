"""Checkpoints: Orbax, asynchronous, sealed with checksums, never half-written.

A step's folder holds `state` (the TrainState), `meta` (progress, configuration, shapes) and
`seal.json`: step, run, and the size and CRC-32 of every file. Orbax commits a folder by renaming
it, so a killed run leaves none half-written; the seal finds what a disk or a copy truncated or
damaged later, and folders that were exchanged or come from another run. A checkpoint that fails its
seal is moved aside with a warning, and the one before it is used. One without a seal is used only
where none is sealed.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.train.writers import write_atomically

_SEAL = "seal.json"
# Of checkpoints. The first had no number, and one optimiser state without a name; the second had
# averages of parameters alone, and seals without step and run.
FORMAT = 3
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # names of folders
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _KeepNewestAndBest:
    """Orbax preservation policy."""

    keep: int
    best: int = -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        newest = {info.step for info in checkpoints[-self.keep :]}
        return [info.step in newest or info.step == self.best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      folder: where they live; created by the first save.
      keep: how many of the newest are kept, besides the best.
      run: identifies the run; checkpoints of another are damaged. "" takes any.
    """

    def __init__(self, folder: Path, keep: int = 2, run: str = ""):
        self.folder, self.run = folder.absolute(), run
        self._policy = _KeepNewestAndBest(keep)
        self._open: Any = None
        self._sealing: threading.Thread | None = None
        self._finished = threading.Event()

    @property
    def _manager(self) -> Any:
        if self._open is None:
            import orbax.checkpoint as ocp

            self._open = ocp.CheckpointManager(
                self.folder,
                item_names=("state", "meta"),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=self._policy,
                    cleanup_tmp_directories=True,
                ),
            )
        return self._open

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, oldest first."""
        return committed_steps(self.folder)

    def save(self, state: Any, meta: dict[str, Any], best: int = -1) -> None:
        """Writes `state` in the background; the call blocks while it is copied off the device.

        Args:
          meta: JSON-able, stored beside it.
          best: step of the best checkpoint so far, which is kept.

        Raises:
          OSError: the disk is full or cannot be written (perhaps found while the one before was
            being written); earlier checkpoints are untouched.
        """
        import orbax.checkpoint as ocp

        step = int(state.step)
        if step in self.steps():
            return
        self._finish_sealing()
        self._policy.best = best
        full = {**meta, "format": FORMAT, "run": self.run, "shapes": shapes(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(full))
        with _disk_errors(self.folder):
            self._manager.save(step, args=items)
        if jax.process_index() == 0:
            self._finished.clear()
            self._sealing = threading.Thread(target=self._seal, args=(step,), daemon=True)
            self._sealing.start()

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
        """(state, meta) of the newest intact checkpoint, or of `step`; None if there is none.

        Args:
          like: a TrainState of `jax.ShapeDtypeStruct` with the shardings that the leaves shall
            have, whatever they had when saved.

        Raises:
          UserError: the checkpoint belongs to another model, or `step` is missing or damaged.
        """
        if step is not None and step not in self.steps():
            have = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"No checkpoint of step {step} in {self.folder} (there: {have}).")
        for candidate in [step] if step is not None else reversed(self.steps()):
            damage = self._damage(candidate)
            if not damage:
                try:
                    return self._read(candidate, like)
                except UserError:
                    raise
                except Exception as error:  # whatever a damaged file makes the reader raise
                    damage = (str(error).splitlines() or [type(error).__name__])[0][:200]
            if step is not None:
                raise UserError(f"The checkpoint of step {step} is damaged: {damage}.")
            self._put_aside(candidate, damage)
        return None

    def _damage(self, step: int) -> str:
        """What is wrong with the checkpoint of a step, "" if nothing is found."""
        folder = self.folder / str(step)
        if sealed(folder):
            return damaged(folder, self.run)
        if any(sealed(self.folder / str(other)) for other in self.steps()):
            return "it has no seal, and others have"
        logger.warning("Checkpoint of step %d has no seal: its files cannot be checked.", step)
        return ""

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of an intact checkpoint.

        Raises:
          UserError: it is of a newer jaxvision, or of another model.
        """
        import orbax.checkpoint as ocp

        meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        ).meta
        where, number = str(self.folder / str(step)), meta.get("format", 1)
        if number > FORMAT:
            raise UserError(f"The checkpoint {where} is of a newer jaxvision (format {number}).")
        stored_like = like
        if number < 2 and len(like.opt_state) == 1:
            stored_like = stored_like.replace(opt_state=next(iter(like.opt_state.values())))
        if number < 3 and like.ema is not None:
            stored_like = stored_like.replace(ema=like.ema["params"])
        check_shapes(meta["shapes"], shapes(stored_like), where)
        state = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(stored_like))
        ).state
        if int(state.step) != step:
            raise ValueError(f"it holds the state of step {int(state.step)}")
        if stored_like.opt_state is not like.opt_state:
            state = state.replace(opt_state=dict.fromkeys(like.opt_state, state.opt_state))
        if stored_like.ema is not like.ema:
            own = {kind: state.model_state[kind] for kind in like.ema if kind != "params"}
            state = state.replace(ema={"params": state.ema, **jax.tree.map(jnp.copy, own)})
        return state, meta

    def variables(self, step: int, like: dict[str, Any], averaged: bool = True) -> dict[str, Any]:
        """The network's variables in the checkpoint of `step`; no optimiser state is read.

        Args:
          step: of a checkpoint.
          like: variables as shapes with the shardings that they shall have.
          averaged: whether averaged weights are preferred where there are any.

        Raises:
          UserError: the checkpoint is damaged, or belongs to another model.
        """
        import orbax.checkpoint as ocp

        meta = self.meta(step)
        stored = meta["shapes"]
        averaged = averaged and any(path.startswith(".ema") for path in stored)
        collections = {kind: tree for kind, tree in like.items() if kind != "params"}
        together = averaged and meta.get("format", 1) > 2  # averages have statistics, too
        source = "ema" if averaged else "params"
        wanted = {source: like if together else like["params"]}
        inside = tuple(f".ema['{kind}']" for kind in like) if together else (f".{source}[",)
        if not together and jax.tree.leaves(collections):
            wanted["model_state"] = collections
            inside += tuple(f".model_state['{kind}']" for kind in collections)
        names = {
            f".{kind}{path}": shape
            for kind, tree in wanted.items()
            for path, shape in shapes(tree).items()
        }
        there = {path: shape for path, shape in stored.items() if path.startswith(inside)}
        check_shapes(there, names, str(self.folder / str(step)))
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            found = reader.restore(self.folder / str(step) / "state", args=arguments)
        if together:
            return found[source]
        return {"params": found[source], **found.get("model_state", collections)}

    def meta(self, step: int) -> dict[str, Any]:
        """What was stored beside the state of `step`.

        Raises:
          UserError: the checkpoint is damaged.
        """
        import orbax.checkpoint as ocp

        if damage := damaged(self.folder / str(step), self.run):
            raise UserError(f"The checkpoint of step {step} is damaged: {damage}.")
        try:
            arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = self._manager.restore(step, args=arguments).meta
            if not isinstance(meta["shapes"], dict) or not isinstance(meta["progress"], dict):
                raise TypeError("its metadata are of another shape")
        except Exception as error:  # whatever a damaged file makes the reader raise
            text = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"The checkpoint of step {step} is damaged: {text}.") from error
        return meta

    def wait(self) -> None:
        """Until everything is on disk.

        Raises:
          OSError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        self._finish_sealing()

    def close(self) -> None:
        """Waits and releases the threads."""
        self._finish_sealing()
        if self._open is not None:
            self._open.close()
            self._open = None

    def _put_aside(self, step: int, damage: str) -> None:
        self.close()
        aside = self.folder.parent / "damaged_checkpoints" / str(step)
        logger.warning(
            "Checkpoint of step %d is damaged (%s); using the one before it. Moved to %s.",
            step,
            damage,
            aside,
        )
        _meet(f"found damage in {step}")  # before it is gone, every process has seen it
        if jax.process_index() == 0:
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        _meet(f"put aside {step}")

    def _seal(self, step: int) -> None:
        """Waits in the background until Orbax has committed the step, then writes its checksums."""
        folder = self.folder / str(step)
        while step not in self.steps():
            if self._finished.wait(0.02) and step not in self.steps():
                return  # it could not be saved
        try:
            seal(folder, self.run)
        except FileNotFoundError:
            return  # newer ones have replaced it meanwhile
        except OSError as error:
            logger.warning("The checkpoint of step %d has no checksums: %s.", step, error)

    def _finish_sealing(self) -> None:
        """Waits for the save under way, on disk and sealed."""
        try:
            if self._open is not None:
                with _disk_errors(self.folder):
                    self._open.wait_until_finished()
        finally:
            self._finished.set()
            if self._sealing is not None:
                self._sealing.join()
                self._sealing = None


def _meet(place: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns what TensorStore says of a failing disk into the OSError that it is."""
    try:
        yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


def committed_steps(folder: Path) -> list[int]:
    """Steps whose checkpoint Orbax has committed, oldest first; [] if there is no such folder."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if _STEP.fullmatch(p.name))
    return sorted(int(p.name) for p in found if (p / "_CHECKPOINT_METADATA").exists())


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(_SEAL))


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def seal(folder: Path, run: str = "") -> None:
    """Writes `seal.json`: step, run, size and CRC-32 of every file in a checkpoint's folder."""
    sums = {str(p.relative_to(folder)): [p.stat().st_size, _crc(p)] for p in _files(folder)}
    content = {"step": int(folder.name), "run": run, "files": sums}
    write_atomically(folder / _SEAL, json.dumps(content))


def sealed(folder: Path) -> bool:
    """Whether a checkpoint's folder has a seal."""
    return (folder / _SEAL).is_file()


def owner(folder: Path) -> str:
    """The run that a checkpoint's seal names; "" if it names none."""
    try:
        return str(json.loads((folder / _SEAL).read_bytes())["run"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def damaged(folder: Path, run: str = "") -> str:
    """What is wrong with a checkpoint's files ("" if nothing, or if it was never sealed).

    Args:
      folder: of the checkpoint.
      run: that it must be of; "" takes any.
    """
    try:
        content = json.loads((folder / _SEAL).read_bytes())
        if "files" not in content:  # of an older format: the files alone
            content = {"step": int(folder.name), "run": "", "files": content}
        step, other = content["step"], content["run"]
        sums = {name: (int(size), int(crc)) for name, (size, crc) in content["files"].items()}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "its seal is unreadable"
    if step != int(folder.name):
        return f"its seal is of step {step}"
    if run and other and run != other:
        return "it belongs to another run"
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in sums):
        return "its seal is unreadable"
    for name, (size, crc) in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if _crc(path) != crc:
            return f"{name} fails its checksum"
    return ""


def shapes(tree: Any) -> dict[str, list[int]]:
    """`{path: shape}` of every leaf."""
    return {
        jax.tree_util.keystr(path): list(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_shapes(
    stored: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], where: str
) -> None:
    """Refuses a checkpoint of another model.

    Raises:
      UserError: listing the paths that are missing, superfluous or of another shape.
    """
    lines = [f"  {p}: not in the checkpoint" for p in wanted if p not in stored]
    lines += [f"  {p}: only in the checkpoint" for p in stored if p not in wanted]
    lines += [
        f"  {p}: {list(stored[p])} in the checkpoint, {list(wanted[p])} in the model"
        for p in wanted
        if p in stored and list(stored[p]) != list(wanted[p])
    ]
    if lines:
        more = [f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else []
        raise UserError(
            f"The checkpoint {where} belongs to another model or optimiser:\n"
            + "\n".join(lines[:12] + more)
        )
