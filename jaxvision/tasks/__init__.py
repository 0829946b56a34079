"""Tasks: what is optimised, as pure functions. One folder a task, one line of `TASKS` each.

A folder holds `keys.py` (its configuration keys), `task.py` (a class that follows `base.Task`) and
`report.py` (what it shows). All three are imported when asked for: `default_config` needs the keys
alone, and those import nothing heavy.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxvision import common_keys
from jaxvision.config import Key, Schema
from jaxvision.errors import UserError
from jaxvision.registry import Registry

if TYPE_CHECKING:
    from ml_collections import ConfigDict

__all__ = [
    "DEFAULT",
    "TASKS",
    "Entry",
    "create",
    "default_config",
    "for_role",
    "register",
    "report",
    "schema",
]


@dataclass(frozen=True)
class Entry:
    """Where a task is.

    Attributes:
      package: the folder, as a module's name.
      kind: the class in its `task.py`.
      roles: of networks (folders of `models/`) whose published weights it evaluates and predicts.
    """

    package: str
    kind: str
    roles: tuple[str, ...] = ()

    def keys(self) -> Any:
        """The module with `KEYS`, and perhaps `RENAMED` and `check`."""
        return importlib.import_module(f"{self.package}.keys")

    def task(self) -> Any:
        """The class."""
        return getattr(importlib.import_module(f"{self.package}.task"), self.kind)

    def report(self) -> Any:
        """The module of what it shows."""
        return importlib.import_module(f"{self.package}.report")


@dataclass(frozen=True)
class _Given:
    """A task of a user's own, in the place of an `Entry`."""

    kind: Any
    options: Mapping[str, Key]
    shows: Any
    roles: tuple[str, ...] = ()

    def keys(self) -> Any:
        return self

    @property
    def KEYS(self) -> Mapping[str, Key]:
        return self.options

    def task(self) -> Any:
        return self.kind

    def report(self) -> Any:
        return self.shows


TASKS: Registry[Any] = Registry(
    "task",
    {
        "classification": Entry(
            "jaxvision.tasks.classification", "Classification", roles=("backbones",)
        ),
        "segmentation": Entry(
            "jaxvision.tasks.segmentation", "Segmentation", roles=("segmentation",)
        ),
        "multilabel": Entry("jaxvision.tasks.multilabel", "Multilabel"),
        "localization": Entry("jaxvision.tasks.localization", "Localization"),
        "detection": Entry("jaxvision.tasks.detection", "Detection", roles=("detection",)),
        "pose": Entry("jaxvision.tasks.pose", "Pose", roles=("pose",)),
        "instances": Entry("jaxvision.tasks.instances", "Instances", roles=("instances",)),
        "panoptic": Entry("jaxvision.tasks.panoptic", "Panoptic"),
        "captioning": Entry("jaxvision.tasks.captioning", "Captioning", roles=("captioning",)),
        "pretraining": Entry("jaxvision.tasks.pretraining", "Pretraining", roles=("pretraining",)),
        "restoration": Entry("jaxvision.tasks.restoration", "Restoration", roles=("restoration",)),
        "generation": Entry("jaxvision.tasks.generation", "Adversarial"),
        "diffusion": Entry("jaxvision.tasks.diffusion", "Diffusion"),
        "autoencoding": Entry(
            "jaxvision.tasks.autoencoding", "Autoencoding", roles=("autoencoding",)
        ),
    },
)

DEFAULT = "classification"


def register(
    name: str, *, keys: Mapping[str, Key] | None = None, report: Any = None
) -> Callable[[Any], Any]:
    """A decorator that enters a task of your own: `@tasks.register("depth", keys={...})`.

    Args:
      name: what `task` in a configuration is, and the group of its keys.
      keys: its configuration keys, without the group.
      report: a module or object with functions as in `tasks/<task>/report.py`; None shows nothing.
    """

    def enter(kind: Any) -> Any:
        TASKS.add(name, _Given(kind, dict(keys or {}), report))
        return kind

    return enter


def schema(task: str) -> Schema:
    """The keys of a task's configurations: the common ones, and the group of its own name.

    Raises:
      UserError: no such task.
    """
    module = TASKS[task].keys()
    own = {f"{task}.{path}": key for path, key in module.KEYS.items()}
    renamed = {old: f"{task}.{new}" for old, new in getattr(module, "RENAMED", {}).items()}
    check_own = getattr(module, "check", None)

    def check(values: Mapping[str, Any]) -> None:
        common_keys.check(values)
        if check_own is not None:
            check_own({path: values[f"{task}.{path}"] for path in module.KEYS})

    return Schema({**common_keys.KEYS, **own}, renamed, check)


def default_config(task: str = DEFAULT) -> "ConfigDict":
    """A fresh, closed configuration of a task with every key at its default.

    Raises:
      UserError: no such task.
    """
    config = schema(task).default()
    config.task = task
    return config


def create(config: "ConfigDict", facts: Any) -> Any:
    """The configured task with its networks; see `base.Task`.

    Args:
      config: of the run.
      facts: of its data, a `jaxvision.data.facts.Facts`.

    Raises:
      UserError: what does not exist or does not fit.
    """
    return TASKS[config.task].task().create(config, facts)


def annotations(task: str) -> tuple[str, ...]:
    """The kinds of annotations (`jaxvision.data.annotations`) that a task needs.

    Raises:
      UserError: no such task.
    """
    return TASKS[task].task().annotations


def report(task: str) -> Any:
    """What a task shows: a module as `jaxvision/tasks/classification/report.py`, or None."""
    return TASKS[task].report()


def for_role(role: str) -> str:
    """The task that uses published weights of networks of this role.

    Raises:
      UserError: none does.
    """
    for name, entry in TASKS.items():
        if role in entry.roles:
            return name
    raise UserError(f"Networks for {role} have no task that works with published weights alone.")


def require(task: Any, capability: str | Sequence[str], what: str) -> Callable[..., Any]:
    """A method that only some tasks have.

    Args:
      task: a task, or its class.
      capability: the method's name; or names, of which the first one that it has is enough.
      what: what it is wanted for, named in the error, as in "Sampling".

    Raises:
      UserError: the task does not have it; names those that do.
    """
    wanted = (capability,) if isinstance(capability, str) else capability
    for name in wanted:
        if (method := getattr(task, name, None)) is not None:
            return method
    kind = task if isinstance(task, type) else type(task)
    kinds = {name: entry.task() for name, entry in TASKS.items()}
    able = [name for name, one in kinds.items() if any(hasattr(one, each) for each in wanted)]
    # A task may be made of a class below the registered one.
    own = next((name for name, one in kinds.items() if issubclass(kind, one)), kind.__name__)
    raise UserError(f"{what} is not for {own}; it is for {', '.join(able) or 'no task'}.")
