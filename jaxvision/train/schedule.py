"""Learning rates by step: schedules, and what lowers the rate when a metric stands still.

A schedule of your own is registered by a decorator, or given in a config as it is; either way it
is a function `(peak, steps) -> optax.Schedule` of the steps that follow the warm-up:

    @schedule.register("triangle")
    def triangle(peak: float, steps: int): ...
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.config import steps_of
from jaxvision.errors import UserError
from jaxvision.registry import Registry

Schedule = Callable[[Any], Any]


def _constant(peak: float, steps: int) -> Schedule:
    return optax.constant_schedule(peak)


def _step(peak: float, steps: int, factor: float, milestones: list[int]) -> Schedule:
    if not milestones:
        raise UserError("schedule.name='step' needs schedule.milestones, e.g. ['50%', '75%'].")
    scales = {milestone: factor ** milestones.count(milestone) for milestone in milestones}
    return optax.piecewise_constant_schedule(peak, scales)


def _polynomial(peak: float, steps: int, final: float, power: float) -> Schedule:
    return optax.polynomial_schedule(peak, peak * final, power, steps)


def _cosine(peak: float, steps: int, final: float) -> Schedule:
    """Loshchilov & Hutter 2016, https://arxiv.org/abs/1608.03983."""
    return optax.cosine_decay_schedule(peak, steps, alpha=final)


def _one_cycle(peak: float, steps: int) -> Schedule:
    """Smith & Topin 2017, https://arxiv.org/abs/1708.07120; as torch's OneCycleLR.

    It rises from 1/25, reaches the peak one step before 30 % of the steps are done, and gives its
    last step 1/250000. (Optax's reaches both a step later, and is not defined for few steps.)
    """
    start, final = peak / 25, peak / 250_000
    top, last = 0.3 * steps - 1, steps - 1  # with fewer than four steps it only falls

    def cosine(begin: float, end: float, share: Any) -> Any:
        return end + (begin - end) / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0)))

    def rate(step: Any) -> Any:
        rising = cosine(start, peak, step / max(top, 1e-6))
        falling = cosine(peak, final, (step - top) / (last - top))
        return jnp.where(step <= top, rising, falling)

    return rate


# By name: the function, and the keys of `schedule` that it takes.
SCHEDULES: Registry[tuple[Callable[..., Schedule], tuple[str, ...]]] = Registry(
    "schedule",
    {
        "constant": (_constant, ()),
        "plateau": (_constant, ()),
        "step": (_step, ("factor", "milestones")),
        "polynomial": (_polynomial, ("final", "power")),
        "cosine": (_cosine, ("final",)),
        "one_cycle": (_one_cycle, ()),
    },
)


def register(name: str) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """A decorator that enters a schedule of your own."""

    def enter(function: Callable[..., Schedule]) -> Callable[..., Schedule]:
        SCHEDULES.add(name, (function, ()))
        return function

    return enter


def learning_rate(config: ConfigDict, *, total: int, steps_per_epoch: int) -> Schedule:
    """The learning rate by step; `plateau` is constant here and reduced by `reduce_on_plateau`.

    Raises:
      UserError: no such schedule, or its durations do not fit the training.
    """
    schedule, peak = config.schedule, config.optimizer.learning_rate

    def steps(duration: int | str, key: str) -> int:
        return steps_of(duration, steps_per_epoch=steps_per_epoch, total=total, key=key)

    warmup = steps(schedule.warmup, "schedule.warmup")
    if warmup >= total > 0:
        raise UserError(f"schedule.warmup is {warmup} steps, the whole training only {total}.")
    if warmup and schedule.name == "one_cycle":
        raise UserError("schedule.name='one_cycle' has its own warm-up; leave warmup at 0.")
    milestones = sorted(steps(m, "schedule.milestones") for m in schedule.milestones)
    values = {
        "factor": schedule.factor,
        "power": schedule.power,
        "final": schedule.final,
        "milestones": [max(0, bound - warmup) for bound in milestones],
    }
    name = schedule.name
    function, taken = (name, ()) if callable(name) else SCHEDULES[name]
    main = function(peak, max(1, total - warmup), **{key: values[key] for key in taken})
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
