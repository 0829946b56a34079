"""Diffusion: how images become noise, and the samplers that lead back. Pure functions.

After t steps of a schedule an image x0 is `x = sqrt(a) x0 + sqrt(1 - a) e`, where e is N(0, 1) and
a the schedule's `alpha_bars[t]` (Ho et al., Denoising Diffusion Probabilistic Models, 2020,
https://arxiv.org/abs/2006.11239). A network that sees x and t says e, x0, or
`v = sqrt(a) e - sqrt(1 - a) x0` (Salimans and Ho 2022, https://arxiv.org/abs/2202.00512).

A sampler is a table of numbers, one row a step, that is made on the host (`Steps`): the next image
is a sum of what is known, each times its number. So `sample` is one loop for all of them. The
tables are those of diffusers' schedulers with their default settings, step for step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.errors import UserError, unknown

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("epsilon", "x0", "v")
SAMPLERS = ("ddpm", "ddim", "dpm++")

Column = Any  # float32 np.ndarray [n] of a table, Array [] of one step
Predict = Callable[[Float[Array, "b h w c"], Int[Array, ""]], Float[Array, "b h w c"]]


class Schedule(NamedTuple):
    """How much noise each step adds; float32, as diffusers rounds it.

    Attributes:
      betas: variance that step t adds.
      alpha_bars: what is left of an image's variance after it: the product of `1 - betas` so far.
    """

    betas: Float[np.ndarray, " t"]
    alpha_bars: Float[np.ndarray, " t"]

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.betas)

    @property
    def snr(self) -> Float[np.ndarray, " t"]:
        """Signal to noise, the ratio of their variances, float64."""
        kept = self.alpha_bars.astype(np.float64)
        return kept / (1 - kept)


def noise_schedule(name: str, steps: int = 1000) -> Schedule:
    """A schedule by name.

    Args:
      name: "linear", betas from 1e-4 to 0.02 (Ho et al. 2020); or "cosine", where `alpha_bars` fall
        along a squared cosine (Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672).
      steps: how many. Linear betas are for 1000, and scaled by 1000 / steps, as the latter paper's
        code does, so that any number of steps ends in noise.

    Raises:
      UserError: no such schedule, or fewer than two steps.
    """
    if steps < 2:
        raise UserError(f"A noise schedule has two steps or more, not {steps}.")
    if name == "linear":
        betas = np.linspace(1e-4, 0.02, steps) * (1000 / steps)
    elif name == "cosine":
        times = np.arange(steps + 1) / steps
        kept = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = 1 - kept[1:] / kept[:-1]
    else:
        raise unknown("noise schedule", name, SCHEDULES)
    betas = np.minimum(betas, 0.999).astype(np.float32)
    alphas = (np.float32(1) - betas).astype(np.float64)
    return Schedule(betas, np.cumprod(alphas).astype(np.float32))


# -- images, noise and what a network says of them -------------------------------------------------


def _factors(alpha_bar: Float[Array, "*b"], x: Array) -> tuple[Array, Array]:
    """What an image and the noise in it are multiplied by, to be broadcast over `x`."""
    kept = jnp.asarray(alpha_bar, jnp.float32)
    kept = kept.reshape(kept.shape + (1,) * (x.ndim - kept.ndim))
    return jnp.sqrt(kept), jnp.sqrt(1 - kept)


def add_noise(
    x0: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    alpha_bar: Float[Array, "*b"],
) -> Float[Array, "b h w c"]:
    """Images with noise, `sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise`.

    Args:
      x0: images in -1..1.
      noise: N(0, 1).
      alpha_bar: of each image, or of all.
    """
    signal, spread = _factors(alpha_bar, x0)
    return signal * x0 + spread * noise


def target(
    prediction: str,
    x0: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    alpha_bar: Float[Array, "*b"],
) -> Float[Array, "b h w c"]:
    """What a network is to say of `add_noise(x0, noise, alpha_bar)`.

    Raises:
      UserError: no such prediction; see `PREDICTIONS`.
    """
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return x0
    if prediction == "v":
        signal, spread = _factors(alpha_bar, x0)
        return signal * noise - spread * x0
    raise unknown("prediction", prediction, PREDICTIONS)


def clean_and_noise(
    prediction: str,
    output: Float[Array, "b h w c"],
    x: Float[Array, "b h w c"],
    alpha_bar: Float[Array, "*b"],
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """The image x0 and the noise of which `x` is made, by what a network says of it.

    Args:
      prediction: what the network's output is; see `PREDICTIONS`.
      output: of the network.
      x: images with noise.
      alpha_bar: of each image, or of all.

    Raises:
      UserError: no such prediction.
    """
    signal, spread = _factors(alpha_bar, x)
    if prediction == "epsilon":
        return (x - spread * output) / signal, output
    if prediction == "x0":
        return output, (x - signal * output) / spread
    if prediction == "v":
        return signal * x - spread * output, signal * output + spread * x
    raise unknown("prediction", prediction, PREDICTIONS)


def guided(
    conditional: Float[Array, "b h w c"], unconditional: Float[Array, "b h w c"], scale: float
) -> Float[Array, "b h w c"]:
    """Classifier-free guidance: `unconditional + scale (conditional - unconditional)`.

    Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, whose weight w is `scale - 1`.
    """
    return unconditional + scale * (conditional - unconditional)


# -- samplers --------------------------------------------------------------------------------------


class Steps(NamedTuple):
    """A sampler as a table, [n] each; or one step of it, without that axis.

    The image after a step is

        image * x + clean * x0 + noise * e + before * x0_before + fresh * n

    where x0 and e are what the network says x is made of, x0_before is the x0 of the step before,
    and n is N(0, 1).

    Attributes:
      timesteps: of the schedule, int32; the network is told them.
      alpha_bar: of the image before a step.
      after: of the image after it.
      image, clean, noise, before, fresh: see above.
    """

    timesteps: Column
    alpha_bar: Column
    after: Column
    image: Column
    clean: Column
    noise: Column
    before: Column
    fresh: Column

    @property
    def draws(self) -> bool:
        """Whether any step adds noise."""
        return bool(np.any(self.fresh))

    @property
    def looks_back(self) -> bool:
        """Whether any step needs the one before it."""
        return bool(np.any(self.before))


def _table(timesteps: np.ndarray, alpha_bar: np.ndarray, after: np.ndarray, **factors: np.ndarray):
    zeros = np.zeros(len(timesteps))
    names = ("image", "clean", "noise", "before", "fresh")
    columns = [alpha_bar, after, *(factors.get(name, zeros) for name in names)]
    return Steps(timesteps.astype(np.int32), *(column.astype(np.float32) for column in columns))


def _evenly(schedule: Schedule, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(timesteps, their alpha_bars, those after them), down to 0 in equal strides from it on."""
    stride = schedule.steps // count
    timesteps = np.arange(count)[::-1] * stride
    kept = np.concatenate([schedule.alpha_bars.astype(np.float64), np.ones(stride)])
    return timesteps, kept[timesteps], kept[timesteps - stride]


def ddpm_steps(schedule: Schedule, count: int, large_variance: bool = False) -> Steps:
    """DDPM: each step draws from the posterior of the network's x0 (Ho et al. 2020, eq. 7).

    Args:
      schedule: of the training.
      count: of steps, at most the schedule's.
      large_variance: whether the step's beta is the variance, instead of the posterior's, which is
        the smaller one.
    """
    timesteps, kept, after = _evenly(schedule, count)
    alpha = kept / after
    variance = 1 - alpha if large_variance else (1 - after) / (1 - kept) * (1 - alpha)
    return _table(
        timesteps,
        kept,
        after,
        image=np.sqrt(alpha) * (1 - after) / (1 - kept),
        clean=np.sqrt(after) * (1 - alpha) / (1 - kept),
        fresh=np.where(timesteps > 0, np.sqrt(variance), 0),
    )


def ddim_steps(schedule: Schedule, count: int, eta: float = 0.0) -> Steps:
    """DDIM: the network's x0 with the noise that it found (Song et al. 2020, eq. 12).

    https://arxiv.org/abs/2010.02502

    Args:
      schedule: of the training.
      count: of steps, at most the schedule's.
      eta: how much of the noise is drawn anew; 0 is none, 1 as much as in DDPM.
    """
    timesteps, kept, after = _evenly(schedule, count)
    variance = eta**2 * (1 - after) / (1 - kept) * (1 - kept / after)
    return _table(
        timesteps,
        kept,
        after,
        clean=np.sqrt(after),
        noise=np.sqrt(np.maximum(1 - after - variance, 0)),
        fresh=np.sqrt(variance),
    )


def dpm_solver_steps(schedule: Schedule, count: int) -> Steps:
    """DPM-Solver++ 2M (Lu et al. 2022, https://arxiv.org/abs/2211.01095), by the midpoint rule.

    An ordinary differential equation in the logarithm of the signal-to-noise ratio is solved by two
    steps' x0. The first and the last step have but one: they are DDIM's.

    Args:
      schedule: of the training.
      count: of steps, fewer than the schedule's.
    """
    timesteps = np.linspace(0, schedule.steps - 1, count + 1).round()[:0:-1].astype(np.int64)
    kept = np.append(schedule.alpha_bars[timesteps].astype(np.float64), 1.0)
    signal, spread = np.sqrt(kept), np.sqrt(1 - kept)
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(signal) - np.log(spread)
    stride = np.diff(half_log_snr)  # the last one is infinite
    clean = -signal[1:] * np.expm1(-stride)
    back = np.zeros(count)
    back[1:-1] = stride[1:-1] / stride[: count - 2] / 2 if count > 2 else 0
    return _table(
        timesteps,
        kept[:-1],
        kept[1:],
        image=spread[1:] / spread[:-1],
        clean=clean * (1 + back),
        before=-clean * back,
    )


def sampler_steps(
    name: str,
    schedule: Schedule,
    count: int,
    *,
    eta: float = 0.0,
    large_variance: bool = False,
) -> Steps:
    """A sampler by name.

    Args:
      name: "ddpm", "ddim" or "dpm++".
      schedule: of the training.
      count: of steps.
      eta: see `ddim_steps`.
      large_variance: see `ddpm_steps`.

    Raises:
      UserError: no such sampler, or the schedule has too few steps.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    most = schedule.steps - (name == "dpm++")
    if not 1 <= count <= most:
        raise UserError(
            f"{count} steps of the sampler {name!r}: it makes 1 to {most} where "
            f"{schedule.steps} were trained."
        )
    if name == "ddpm":
        return ddpm_steps(schedule, count, large_variance)
    return ddim_steps(schedule, count, eta) if name == "ddim" else dpm_solver_steps(schedule, count)


def sampler_step(
    step: Steps,
    x: Float[Array, "b h w c"],
    output: Float[Array, "b h w c"],
    before: Float[Array, "..."] | float = 0.0,
    fresh: Float[Array, "..."] | float = 0.0,
    prediction: str = "epsilon",
    clip: bool = True,
    clipped_noise: bool = False,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """(the image after one step, the x0 that it was made with).

    Args:
      step: one row of a table.
      x: the image before.
      output: what the network says of it.
      before: x0 of the step before.
      fresh: N(0, 1).
      prediction: what `output` is.
      clip: whether x0 is brought to -1..1.
      clipped_noise: whether the noise is then what x has beside that, and not what was found.
    """
    x0, noise = clean_and_noise(prediction, output, x, step.alpha_bar)
    if clip:
        x0 = jnp.clip(x0, -1, 1)
        if clipped_noise:
            _, noise = clean_and_noise("x0", x0, x, step.alpha_bar)
    known = step.image * x + step.clean * x0 + step.noise * noise
    return known + step.before * before + step.fresh * fresh, x0


def sample(
    steps: Steps,
    predict: Predict,
    x: Float[Array, "b h w c"],
    noise: Callable[[Int[Array, ""]], Float[Array, "b h w c"]],
    prediction: str = "epsilon",
    clip: bool = True,
    clipped_noise: bool = False,
) -> Float[Array, "b h w c"]:
    """Images of noise: one loop over the steps, to be jitted as a whole.

    Args:
      steps: the sampler.
      predict: (images, timestep) to what the network says of them.
      x: N(0, 1), float32.
      noise: the number of a step to N(0, 1), for samplers that draw.
      prediction: what the network says; see `PREDICTIONS`.
      clip, clipped_noise: see `sampler_step`.
    """
    draws, looks_back = steps.draws, steps.looks_back

    def advance(carry: tuple[Array, Array | float], row: tuple[Array, Steps]):
        (x, before), (number, step) = carry, row
        fresh = noise(number) if draws else 0.0
        output = predict(x, step.timesteps).astype(jnp.float32)
        x, x0 = sampler_step(step, x, output, before, fresh, prediction, clip, clipped_noise)
        return (x, x0 if looks_back else before), None

    rows = (jnp.arange(len(steps.timesteps)), jax.tree.map(jnp.asarray, steps))
    begin = (x, jnp.zeros_like(x) if looks_back else 0.0)
    (x, _), _ = lax.scan(advance, begin, rows)
    return x


# -- inpainting ------------------------------------------------------------------------------------


def repaint_path(count: int, jump: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """The way of RePaint through a sampler's steps, back and forth.

    Every `jump` steps it goes back as many, `repeats` - 1 times.

    Args:
      count: of the sampler's steps.
      jump: see above.
      repeats: how often each step is made.

    Returns:
      int32 [m], which step of the table; bool [m], whether it is undone rather than made.
    """
    left = dict.fromkeys(range(0, count - jump, jump), repeats - 1)
    moves, level = [], count  # `level` steps are still to be made
    while level:
        level -= 1
        moves.append((count - 1 - level, False))
        if left.get(level, 0):
            left[level] -= 1
            moves += [(count - 1 - above, True) for above in range(level, level + jump)]
            level += jump
    steps, undone = zip(*moves)
    return np.array(steps, np.int32), np.array(undone)


def inpaint(
    steps: Steps,
    predict: Predict,
    x: Float[Array, "b h w c"],
    known: Float[Array, "b h w c"],
    missing: Bool[Array, "b h w 1"],
    noise: Callable[[Int[Array, ""]], Float[Array, "b h w c"]],
    jump: int = 10,
    repeats: int = 10,
    prediction: str = "epsilon",
    clip: bool = True,
    clipped_noise: bool = False,
) -> Float[Array, "b h w c"]:
    """What could stand where something is missing: RePaint, Lugmayr et al. 2022.

    https://arxiv.org/abs/2201.09865. After each step what is known is put in place of what was
    made there, with the noise that is due; steps are undone and made again, so that both parts come
    to fit. Known pixels are returned as they are.

    Args:
      steps: a sampler whose steps need not the one before.
      predict: (images, timestep) to what the network says of them.
      x: N(0, 1), float32.
      known: images in -1..1.
      missing: what is to be made.
      noise: the number of a move along the path to N(0, 1).
      jump, repeats: see `repaint_path`.
      prediction: what the network says; see `PREDICTIONS`.
      clip, clipped_noise: see `sampler_step`.

    Raises:
      UserError: the sampler's steps need the one before.
    """
    if steps.looks_back:
        raise UserError("Inpainting undoes steps: take a sampler without memory, ddim or ddpm.")

    def move(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        number, place, undo = row
        step = jax.tree.map(lambda column: jnp.asarray(column)[place], steps)
        fresh = noise(number)

        def undone(x: Array) -> Array:
            return add_noise(x, fresh, step.alpha_bar / step.after)

        def made(x: Array) -> Array:
            output = predict(x, step.timesteps).astype(jnp.float32)
            new, _ = sampler_step(step, x, output, 0.0, fresh, prediction, clip, clipped_noise)
            return jnp.where(missing, new, add_noise(known, fresh, step.after))

        return lax.cond(undo, undone, made, x), None

    path = repaint_path(len(steps.timesteps), jump, repeats)
    numbers = np.arange(len(path[0]))
    x, _ = lax.scan(move, x, jax.tree.map(jnp.asarray, (numbers, *path)))
    return x
