"""From configuration to an Optax transformation: schedules, optimisers, masks, freezing.

All parameter patterns are regular expressions searched in paths like `layer1_0/conv1/kernel`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision.config import steps_of
from jaxvision.errors import UserError, nearest, unknown

Schedule = Callable[[jax.Array | int], jax.Array]


def parameter_paths(params: Any) -> list[str]:
    """`"layer1_0/conv1/kernel"` of every leaf, in tree order."""
    return [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _path(path: Sequence[Any]) -> str:
    return "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)


def map_paths(function: Callable[[str], Any], params: Any) -> Any:
    """A tree like `params` with `function(path)` at each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(_path(path)), params)


def check_pattern(pattern: str, params: Any, key: str) -> None:
    """Refuses a regular expression that is malformed or matches no parameter.

    Raises:
      UserError: naming the config key, the pattern and parameters near it.
    """
    paths = parameter_paths(params)
    try:
        if any(re.search(pattern, path) for path in paths):
            return
    except re.error as error:
        raise UserError(f"{key}: {pattern!r} is no regular expression: {error}.") from error
    close = nearest(pattern, paths, count=3) or paths[:3]
    raise UserError(f"{key}: {pattern!r} matches no parameter. Near it: {', '.join(close)}.")


def learning_rate(config: ConfigDict, *, total: int, steps_per_epoch: int) -> Schedule:
    """The learning rate by step; `plateau` is constant here and reduced by `reduce_on_plateau`.

    Cosine: Loshchilov & Hutter 2016 (https://arxiv.org/abs/1608.03983); one-cycle: Smith & Topin
    2017 (https://arxiv.org/abs/1708.07120), rising over 30 % from 1/25 and ending at 1/250000, as
    torch.optim.lr_scheduler.OneCycleLR.
    """
    schedule, peak = config.schedule, config.optimizer.learning_rate

    def steps(duration: int | str, key: str) -> int:
        return steps_of(duration, steps_per_epoch=steps_per_epoch, total=total, key=key)

    warmup = steps(schedule.warmup, "schedule.warmup")
    rest = max(1, total - warmup)
    if warmup >= total > 0:
        raise UserError(f"schedule.warmup is {warmup} steps, the whole training only {total}.")
    if schedule.name in ("constant", "plateau"):
        main = optax.constant_schedule(peak)
    elif schedule.name == "step":
        bounds = sorted(steps(m, "schedule.milestones") for m in schedule.milestones)
        if not bounds:
            raise UserError("schedule.name='step' needs schedule.milestones, e.g. ['50%', '75%'].")
        main = optax.piecewise_constant_schedule(
            peak, {max(0, bound - warmup): schedule.factor for bound in bounds}
        )
    elif schedule.name == "polynomial":
        main = optax.polynomial_schedule(peak, peak * schedule.final, schedule.power, rest)
    elif schedule.name == "cosine":
        main = optax.cosine_decay_schedule(peak, rest, alpha=schedule.final)
    elif schedule.name == "one_cycle":
        if warmup:
            raise UserError("schedule.name='one_cycle' has its own warm-up; leave warmup at 0.")
        return optax.cosine_onecycle_schedule(max(total, 1), peak)
    else:
        raise unknown("schedule", schedule.name, ("constant", "step", "polynomial", "cosine"))
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


class PlateauState(NamedTuple):
    """Factor on the learning rate and what decides its next reduction."""

    factor: jax.Array
    best: jax.Array
    since_best: jax.Array


def scale_by_plateau() -> optax.GradientTransformation:
    """Multiplies updates by the factor that `reduce_on_plateau` lowers between steps."""

    def init(params: Any) -> PlateauState:
        return PlateauState(jnp.ones(()), jnp.full((), jnp.inf), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: PlateauState, params: Any = None):
        return jax.tree.map(lambda u: u * state.factor.astype(u.dtype), updates), state

    return optax.GradientTransformation(init, update)


def reduce_on_plateau(opt_state: Any, value: float, config: ConfigDict, sign: int) -> Any:
    """The optimiser state after an evaluation gave `value` for the watched metric.

    Args:
      sign: 1 if lower values are better, -1 if higher ones are.
    """
    schedule = config.schedule

    def after(state: Any) -> Any:
        if not isinstance(state, PlateauState):
            return state
        watched = jnp.asarray(sign * value, state.best.dtype)
        better = watched < state.best - schedule.min_delta
        waited = jnp.where(better, 0, state.since_best + 1)
        reduce = waited > schedule.patience
        return PlateauState(
            jnp.where(reduce, state.factor * schedule.factor, state.factor),
            jnp.where(better, watched, state.best),
            jnp.where(reduce, 0, waited).astype(jnp.int32),
        )

    return jax.tree.map(after, opt_state, is_leaf=lambda s: isinstance(s, PlateauState))


def plateau_factor(opt_state: Any) -> float:
    """The factor that plateaus have put on the learning rate so far (1.0 without them)."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, PlateauState))
    factors = [s.factor for s in leaves if isinstance(s, PlateauState)]
    return float(factors[0]) if factors else 1.0


_INDEXED = re.compile(r"(_|block|layer|stage)\d+$")


def layer_depths(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """How many layers lie between each module and the output, by module path ("" is the network).

    A layer is an outermost module with an index in its name, `blocks_3` or `layer1_0`, in the order
    in which they are called; what comes before the first is one layer, what comes after the last
    another.
    """
    called: dict[str, None] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        called.setdefault("/".join(context.module.path))
        return call(*args, **kwargs)

    def trace(image: jax.Array) -> Any:
        with nn.intercept_methods(record):
            return model.init(jax.random.key(0), image, train=False)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params = jax.eval_shape(trace, image)["params"]
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


def depths_for(
    config: ConfigDict, model: nn.Module, image_shape: Sequence[int]
) -> dict[str, int] | None:
    """What `build` needs of the model: `layer_depths`, or None without `optimizer.layer_decay`."""
    return None if config.optimizer.layer_decay == 1 else layer_depths(model, image_shape)


def build(
    config: ConfigDict,
    params: Any,
    schedule: Schedule,
    depths: Mapping[str, int] | None,
) -> optax.GradientTransformation:
    """The whole update rule.

    Args:
      config: groups `optimizer` and `schedule`.
      params: parameters or their shapes.
      schedule: the learning rate by step.
      depths: see `depths_for`; for `optimizer.layer_decay`, which scales the rate of a layer by
        its power of the depth (Clark et al. 2020, https://arxiv.org/abs/2003.10555; Bao et al.
        2021, https://arxiv.org/abs/2106.08254).

    Order: clip, decay that is coupled, the optimiser, decay that is decoupled, per-parameter
    multipliers, plateau factor, learning rate; frozen parameters get no update and no state.

    Raises:
      UserError: a pattern that matches no parameter, or an unknown optimiser.
    """
    optimizer = config.optimizer
    decay = optimizer.weight_decay
    parts: list[optax.GradientTransformation] = []
    if optimizer.clip_value:
        parts.append(optax.clip(optimizer.clip_value))
    if optimizer.clip_norm:
        parts.append(optax.clip_by_global_norm(optimizer.clip_norm))
    if decay:
        check_pattern(optimizer.decay_mask, params, "optimizer.decay_mask")

    def decay_weights() -> list[optax.GradientTransformation]:
        if not decay:
            return []

        # A function, since frozen parameters are masked out of the tree that it sees.
        def mask(tree: Any) -> Any:
            return map_paths(lambda path: bool(re.search(optimizer.decay_mask, path)), tree)

        return [optax.add_decayed_weights(decay, mask)]

    b1, b2, eps, momentum = optimizer.b1, optimizer.b2, optimizer.eps, optimizer.momentum
    coupled = decay_weights()
    if optimizer.name == "sgd":
        trace = [optax.trace(momentum, optimizer.nesterov)] if momentum else []
        parts += [*coupled, *trace]
    elif optimizer.name == "adam":
        parts += [*coupled, optax.scale_by_adam(b1, b2, eps)]
    elif optimizer.name == "rmsprop":
        trace = [optax.trace(momentum)] if momentum else []
        parts += [*coupled, optax.scale_by_rms(b2, eps, eps_in_sqrt=False), *trace]
    elif optimizer.name == "adamw":
        parts += [optax.scale_by_adam(b1, b2, eps), *decay_weights()]
    elif optimizer.name == "lamb":
        parts += [optax.scale_by_adam(b1, b2, eps), *decay_weights(), optax.scale_by_trust_ratio()]
    elif optimizer.name == "lion":
        parts += [optax.scale_by_lion(b1, b2), *decay_weights()]
    elif optimizer.name == "adafactor":
        parts += [
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            *decay_weights(),
        ]
    else:
        raise unknown("optimizer", optimizer.name, ("sgd", "adam", "adamw", "rmsprop"))
    if optimizer.lr_multipliers:
        parts.append(_multiply(optimizer.lr_multipliers, params))
    if depths is not None:
        decay = optimizer.layer_decay
        parts.append(_scale_by_path(lambda path: decay ** depths[path.rpartition("/")[0]]))
    if config.schedule.name == "plateau":
        parts.append(scale_by_plateau())
    parts.append(optax.scale_by_learning_rate(schedule))
    chain = optax.chain(*parts)
    if not optimizer.freeze:
        return chain
    for pattern in optimizer.freeze:
        check_pattern(pattern, params, "optimizer.freeze")
    labels = map_paths(
        lambda path: "frozen" if any(re.search(p, path) for p in optimizer.freeze) else "trained",
        params,
    )
    return optax.multi_transform({"trained": chain, "frozen": optax.set_to_zero()}, labels)


def _multiply(
    multipliers: Sequence[tuple[str, float]], params: Any
) -> optax.GradientTransformation:
    """Scales the update of each parameter by the factor of the first pattern that it matches."""
    for pattern, _ in multipliers:
        check_pattern(pattern, params, "optimizer.lr_multipliers")

    return _scale_by_path(
        lambda path: next((f for pattern, f in multipliers if re.search(pattern, path)), 1.0)
    )


def _scale_by_path(factor: Callable[[str], float]) -> optax.GradientTransformation:
    def scale(updates: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda update, f: update * f, updates, map_paths(factor, updates))

    return optax.stateless(scale)
