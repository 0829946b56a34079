"""From configuration to an Optax transformation: optimisers, masks, freezing, groups.

All parameter patterns are regular expressions searched in paths like `layer1_0/conv1/kernel`.

An optimiser of your own is registered by a decorator, or given in a config as it is; either way it
is a function that returns an Optax transformation from gradients to directions. The learning rate
comes after it, and weight decay, which is then decoupled:

    @optimizer.register("my_adam")
    def my_adam(b1: float = 0.9): ...  # arguments are optimizer.options
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision.errors import UserError, nearest
from jaxvision.registry import Registry
from jaxvision.tasks import configuration
from jaxvision.tasks.base import Spec, Task, cosine
from jaxvision.train.schedule import SCHEDULES, Schedule, learning_rate, scale_by_plateau
from jaxvision.train.step import Group

Parts = list[optax.GradientTransformation]


def parameter_paths(params: Any) -> list[str]:
    """`"layer1_0/conv1/kernel"` of every leaf, in tree order."""
    return [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _path(path: Sequence[Any]) -> str:
    return "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)


def map_paths(function: Callable[[str], Any], params: Any) -> Any:
    """A tree like `params` with `function(path)` at each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(_path(path)), params)


def check_pattern(pattern: str, paths: Collection[str], key: str, what: str = "parameter") -> None:
    """Refuses a regular expression that is malformed or matches no path.

    Raises:
      UserError: naming the config key, the pattern and paths near it.
    """
    try:
        if any(re.search(pattern, path) for path in paths):
            return
    except re.error as error:
        raise UserError(f"{key}: {pattern!r} is no regular expression: {error}.") from error
    if not paths:
        raise UserError(f"{key}: {pattern!r} matches no {what}; the network has none.")
    close = nearest(pattern, paths, count=3) or list(paths)[:3]
    raise UserError(f"{key}: {pattern!r} matches no {what}. Near it: {', '.join(close)}.")


_INDEXED = re.compile(r"(_|block|layer|stage)\d+$")


def layer_depths(init: Callable[[], Any]) -> dict[str, int]:
    """How many layers there are from each module to the output, by module path ("" is the network).

    A layer is an outermost module with an index in its name, `blocks_3` or `layer1_0`, in the order
    in which they are called; what comes before the first is one layer, what comes after the last
    another.

    Args:
      init: draws the variables of the network; it is traced, not run.
    """
    called: dict[str, None] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        called.setdefault("/".join(context.module.path))
        return call(*args, **kwargs)

    def trace() -> Any:
        with nn.intercept_methods(record):
            return init()

    params = jax.eval_shape(trace)["params"]
    owners = {path.rpartition("/")[0] for path in parameter_paths(params)}
    layer, number, numbers = "", 0, {}
    for path in called:
        if path not in owners:
            continue
        parts = path.split("/")
        indexed = [i for i, part in enumerate(parts, start=1) if _INDEXED.search(part)]
        found = "/".join(parts[: indexed[0]]) if indexed else ""
        if found != layer:
            layer, number = found, number + 1
        numbers[path] = number
    return {path: number - index for path, index in numbers.items()}


def check_names(config: ConfigDict) -> None:
    """Checks that optimiser and schedule exist, before any data are opened.

    Raises:
      UserError: naming the unknown one and its neighbours.
    """
    for name, registry in ((config.optimizer.name, OPTIMIZERS), (config.schedule.name, SCHEDULES)):
        if not callable(name):
            registry[name]


def check_statistics(config: ConfigDict, task: Task, variables: Mapping[str, Any]) -> None:
    """Checks that the patterns of `optimizer.freeze_statistics` have batch norms.

    Raises:
      UserError: one has none, or the task trains several networks.
    """
    key, patterns = "optimizer.freeze_statistics", config.optimizer.freeze_statistics
    if patterns and len(task.groups) > 1:
        raise UserError(f"{key} is for a task with one network; {config.task} trains several.")
    paths = parameter_paths(variables.get("batch_stats", {}))
    norms = dict.fromkeys(path.rpartition("/")[0] for path in paths)
    for pattern in patterns:
        check_pattern(pattern, norms, key, "batch norm")


def groups_of(
    config: ConfigDict, task: Task, params: Any, spec: Spec, *, total: int, steps_per_epoch: int
) -> dict[str, Group]:
    """The task's groups of parameters, each with its optimiser as configured.

    Args:
      config: of the run; `optimizer.groups` has what a group has of its own.
      task: whose groups they are.
      params: the whole parameter tree, or its shapes.
      spec: a batch as shapes.
      total, steps_per_epoch: of the training, for schedules.

    Raises:
      UserError: optimiser, schedule or patterns do not fit, or there is no such group.
    """
    for name in config.optimizer.groups:
        if name not in task.groups:
            Registry("group in optimizer.groups", dict(task.groups))[name]
    depths = None
    if config.optimizer.layer_decay != 1:
        depths = layer_depths(lambda: task.init(jax.random.key(0), spec))
    groups = {}
    for name, owns in task.groups.items():
        own = configuration.grouped(config, name)
        schedule = learning_rate(own, total=total, steps_per_epoch=steps_per_epoch)
        part = Group(optax.identity(), owns).of(params)
        rule = build(own, part, schedule, depths, total)
        learns = learning(own.optimizer.freeze, part)
        groups[name] = Group(rule, owns, own.optimizer.accumulate, schedule, learns)
    return groups


# -- optimisers: (the group `optimizer`, weight decay or nothing) to transformations in order ---


def _momentum(decay: float, nesterov: bool = False) -> Parts:
    return [optax.trace(decay, nesterov)] if decay else []


def _sgd(options: ConfigDict, decay: Parts) -> Parts:
    return [*decay, *_momentum(options.momentum, options.nesterov)]


def _adam(options: ConfigDict, decay: Parts) -> Parts:
    return [*decay, optax.scale_by_adam(options.b1, options.b2, options.eps)]


def _rmsprop(options: ConfigDict, decay: Parts) -> Parts:
    scale = optax.scale_by_rms(options.b2, options.eps, eps_in_sqrt=False)
    return [*decay, scale, *_momentum(options.momentum)]


def _adamw(options: ConfigDict, decay: Parts) -> Parts:
    return [optax.scale_by_adam(options.b1, options.b2, options.eps), *decay]


def _lamb(options: ConfigDict, decay: Parts) -> Parts:
    return [*_adamw(options, decay), optax.scale_by_trust_ratio()]


def _lion(options: ConfigDict, decay: Parts) -> Parts:
    return [optax.scale_by_lion(options.b1, options.b2), *decay]


def _adafactor(options: ConfigDict, decay: Parts) -> Parts:
    return [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), *decay]


OPTIMIZERS: Registry[Callable[[ConfigDict, Parts], Parts]] = Registry(
    "optimizer",
    {
        "sgd": _sgd,
        "adam": _adam,
        "adamw": _adamw,
        "rmsprop": _rmsprop,
        "lamb": _lamb,
        "lion": _lion,
        "adafactor": _adafactor,
    },
)


def register(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that enters an optimiser of your own."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        OPTIMIZERS.add(name, _own(function))
        return function

    return enter


def _own(function: Callable[..., optax.GradientTransformation]) -> Any:
    """A user's function in the form of the project's own."""

    def parts(options: ConfigDict, decay: Parts) -> Parts:
        return [function(**options.options.to_dict()), *decay]

    parts.__module__, parts.__qualname__ = function.__module__, function.__qualname__
    parts.takes_options = True  # type: ignore[attr-defined]
    return parts


def build(
    config: ConfigDict,
    params: Any,
    schedule: Schedule,
    depths: Mapping[str, int] | None = None,
    total: int = 1,
) -> optax.GradientTransformation:
    """The whole update rule.

    Args:
      config: groups `optimizer` and `schedule`.
      params: parameters or their shapes.
      schedule: the learning rate by step.
      depths: see `layer_depths`; for `optimizer.layer_decay`, which scales the rate of a layer by
        its power of the depth (Clark et al. 2020, https://arxiv.org/abs/2003.10555; Bao et al.
        2021, https://arxiv.org/abs/2106.08254).
      total: steps of the training, for `optimizer.last_weight_decay`.

    Order: clip, decay that is coupled, the optimiser, decay that is decoupled, per-parameter
    multipliers, plateau factor, learning rate; frozen parameters get no update and no state.

    Raises:
      UserError: a pattern that matches no parameter, or an unknown optimiser.
    """
    optimizer = config.optimizer
    name = optimizer.name
    make = _own(name) if callable(name) else OPTIMIZERS[name]
    if optimizer.options and not hasattr(make, "takes_options"):
        raise UserError(f"optimizer.options are for an optimiser of your own, not for {name!r}.")
    parts: Parts = []
    if optimizer.clip_value:
        parts.append(optax.clip(optimizer.clip_value))
    if optimizer.clip_norm:
        parts.append(optax.clip_by_global_norm(optimizer.clip_norm))
    parts += make(optimizer, _weight_decay(optimizer, params, total))
    if optimizer.lr_multipliers:
        parts.append(_multiply(optimizer.lr_multipliers, params))
    if depths is not None:
        decay = optimizer.layer_decay
        parts.append(_scale_by_path(lambda path: decay ** depths[path.rpartition("/")[0]]))
    if config.schedule.name == "plateau":
        parts.append(scale_by_plateau())
    parts.append(optax.scale_by_learning_rate(schedule))
    rule, learns = optax.chain(*parts), learning(optimizer.freeze, params)
    if learns is None:
        return rule
    labels = jax.tree.map(lambda learns: "trained" if learns else "frozen", learns)
    return optax.multi_transform({"trained": rule, "frozen": optax.set_to_zero()}, labels)


def _weight_decay(optimizer: ConfigDict, params: Any, total: int) -> Parts:
    first, last = optimizer.weight_decay, optimizer.last_weight_decay
    if not first and last <= 0:
        return []
    check_pattern(optimizer.decay_mask, parameter_paths(params), "optimizer.decay_mask")

    # A function, since frozen parameters are masked out of the tree that it is given.
    def mask(tree: Any) -> Any:
        return map_paths(lambda path: bool(re.search(optimizer.decay_mask, path)), tree)

    if last < 0:
        return [optax.add_decayed_weights(first, mask)]
    return [optax.add_decayed_weights(lambda step: cosine(first, last, step / total), mask)]


def learning(frozen: Sequence[str], params: Any) -> Any:
    """A tree like `params` of whether each is trained; None where all are.

    Args:
      frozen: regexes of the paths of those that are not.
      params: parameters, or their shapes.

    Raises:
      UserError: a pattern matches no parameter.
    """
    if not frozen:
        return None
    for pattern in frozen:
        check_pattern(pattern, parameter_paths(params), "optimizer.freeze")
    return map_paths(lambda path: not any(re.search(p, path) for p in frozen), params)


def _multiply(
    multipliers: Sequence[tuple[str, float]], params: Any
) -> optax.GradientTransformation:
    """Scales the update of each parameter by the factor of the first pattern that it matches."""
    for pattern, _ in multipliers:
        check_pattern(pattern, parameter_paths(params), "optimizer.lr_multipliers")

    return _scale_by_path(
        lambda path: next((f for pattern, f in multipliers if re.search(pattern, path)), 1.0)
    )


def _scale_by_path(factor: Callable[[str], float]) -> optax.GradientTransformation:
    def scale(updates: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda update, f: update * f, updates, map_paths(factor, updates))

    return optax.stateless(scale)
