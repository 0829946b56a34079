"""Show versions, devices, tasks, models, weights, data sets, configurations or their keys."""

import argparse
import fnmatch
from typing import TYPE_CHECKING, Any

from jaxvision.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from jaxvision.config import Key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic", nargs="?", default="devices", help=f"{', '.join(TOPICS)} (default: devices)"
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    parser.add_argument("--task", help="config: the task whose keys are shown (default: all)")
    parser.add_argument("--markdown", action="store_true", help="config: as a page for docs")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from rich.console import Console

    if options.topic not in TOPICS:
        raise unknown("topic", options.topic, TOPICS)
    TOPICS[options.topic](Console(), options)


def _devices(console: "Console", options: Any) -> None:
    from importlib.metadata import version

    import jax

    packages = ("jaxvision", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
    console.print("  ".join(f"{name} {version(name)}" for name in packages))
    for device in jax.devices():
        console.print(f"{device.id}: {device.device_kind} ({device.platform})")


def _tasks(console: "Console", options: Any) -> None:
    from rich.table import Table

    from jaxvision import tasks

    table = Table("task", "needs", "metrics, the main one first")
    for name in fnmatch.filter(tasks.TASKS, options.pattern):
        kind = tasks.TASKS[name].task()
        others = [metric for metric in kind.metrics if metric != kind.main_metric]
        needs = ", ".join(kind.annotations) or "images alone"
        table.add_row(name, needs, ", ".join([kind.main_metric, *others]))
    console.print(table)


def _models(console: "Console", options: Any) -> None:
    from rich.table import Table

    from jaxvision import models

    table = Table("model", "input", "equal to")
    for name in models.names(options.pattern):
        entry = models.variant(name)
        table.add_row(name, "x".join(map(str, entry.input_shape)), entry.reference)
    console.print(table)


def _weights(console: "Console", options: Any) -> None:
    from rich.table import Table

    from jaxvision import models
    from jaxvision.interop.published import published

    table = Table("model", "tag", "size", "classes", "where")
    for name in models.names(options.pattern):
        for tag, file in published(name).items():
            table.add_row(name, tag, str(file.size), str(file.classes), file.hub or file.url)
    console.print(table)


def _data(console: "Console", options: Any) -> None:
    import tensorflow_datasets as tfds

    from jaxvision.data import sources

    for line in sources.describe():
        console.print(line)
    names = fnmatch.filter(tfds.list_builders(with_community_datasets=False), options.pattern)
    console.print(f"TFDS catalogue (jaxvision data prepare NAME): {', '.join(names)}")


def _configs(console: "Console", options: Any) -> None:
    from rich.table import Table

    from jaxvision import config_files

    table = Table("config", "what it is")
    files = config_files.shipped()
    for name in files:
        if any(fnmatch.fnmatch(part, options.pattern) for part in (name, name.split("/")[1])):
            table.add_row(name, config_files.first_line(files[name]))
    console.print(table)


def _config(console: "Console", options: Any) -> None:
    from rich.table import Table

    from jaxvision import tasks

    keys: dict[str, Any] = {}
    for name in [options.task] if options.task else tasks.TASKS:
        keys |= tasks.schema(name).keys
    chosen = {path: keys[path] for path in fnmatch.filter(keys, options.pattern)}
    if options.markdown:
        print(keys_as_markdown(chosen), end="")
        return
    table = Table("key", "default", "meaning")
    for path, key in chosen.items():
        table.add_row(path, _default(key), key.meaning)
    console.print(table)


def _default(key: "Key") -> str:
    from jaxvision.config import FREE

    return "{}" if key.default is FREE else str(key.default)


_KEYS_PAGE = """# Configuration keys

Written by `jaxvision info config --markdown`. Every key of a configuration, its default, and what
it accepts where that is less, or more, than any value of the default's type; a dot says that a
resumed run may change it. Groups of tasks come after those that all tasks have.
`--config.KEY=VALUE` sets a key on the command line.
"""


def keys_as_markdown(keys: "Mapping[str, Key]") -> str:
    """A page with a table for each group of keys."""
    groups: dict[str, list[list[str]]] = {}
    for path, key in keys.items():
        group = path.partition(".")[0] if "." in path else "The top"
        resumed = "•" if key.resumable else ""
        cells = [
            f"`{path}`",
            f"`{_default(key) or chr(39) * 2}`",
            _accepted(key),
            resumed,
            key.meaning,
        ]
        groups.setdefault(group, []).append([cell.replace("|", r"\|") for cell in cells])
    parts = [_KEYS_PAGE]
    for group, rows in groups.items():
        lines = ["| key | default | accepts | resumed | meaning |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        parts.append(f"\n## {group}\n\n" + "\n".join(lines) + "\n")
    return "".join(parts)


def _accepted(key: "Key") -> str:
    """Limits and choices of a key, in words."""
    said = []
    if key.choices:
        said.append(", ".join(f"`{choice}`" for choice in key.choices))
    if key.is_duration:
        said.append("a duration")
    for word, limit in (("at least", key.least), ("above", key.above), ("below", key.below)):
        if limit is not None:
            said.append(f"{word} {limit:,}")
    if key.part:
        said.append("a function")
    return ", ".join(said)


TOPICS = {
    "devices": _devices,
    "tasks": _tasks,
    "models": _models,
    "weights": _weights,
    "data": _data,
    "configs": _configs,
    "config": _config,
}
