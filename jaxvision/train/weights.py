"""Where a training's first weights come from: files, published ones, other runs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvision import pretrained, tasks
from jaxvision.errors import UserError, unknown
from jaxvision.interop import torch_weights
from jaxvision.pretrained import Weights
from jaxvision.tasks.base import Spec, Task
from jaxvision.train.checkpoint import Checkpoints
from jaxvision.train.step import init_variables
from jaxvision.train.workdir import stored_config, stored_facts, stored_identity

RUN = "run:"  # how weights begin that are another run's


@contextlib.contextmanager
def checkpoints_of(folder: Path) -> Iterator[Checkpoints]:
    """The checkpoints of the run in a folder, to be read."""
    checkpoints = Checkpoints(folder / "checkpoints", run=stored_identity(folder))
    try:
        yield checkpoints
    finally:
        checkpoints.close()


TESTED = "tested"  # the checkpoint that a training tests at its end


def chooses(config: ConfigDict) -> bool:
    """Whether validation chooses the checkpoint that is tested and used: the best, not the last.

    It does where it is another split than the test; by the test split itself, choosing would be
    choosing by the answer.
    """
    return config.data.validation not in ("", config.data.test)


def step_of(checkpoints: Checkpoints, config: ConfigDict, wanted: str = TESTED) -> int:
    """The step that a name or a number stands for.

    Args:
      checkpoints: of a run.
      config: of the run.
      wanted: `tested` (see `chooses`), `best` by the metric whatever split it is of, `latest`, or
        a step.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"No checkpoint in {checkpoints.folder}.")
    if wanted == TESTED:
        wanted = "best" if chooses(config) else "latest"
    if wanted == "latest":
        return steps[-1]
    if wanted == "best":
        best = checkpoints.meta(steps[-1])["progress"]["best_step"]
        return best if best in steps else steps[-1]
    if wanted.isdigit():
        if int(wanted) not in steps:
            have = ", ".join(map(str, steps))
            raise UserError(
                f"No checkpoint of step {wanted} in {checkpoints.folder} (there: {have})."
            )
        return int(wanted)
    raise unknown("checkpoint", wanted, [TESTED, "best", "latest", *map(str, steps)])


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A batch as shapes, JSON-able."""
    return {key: [list(one.shape), str(one.dtype)] for key, one in spec.items()}


def stored_spec(meta: dict[str, Any], folder: Path) -> Spec:
    """The batches that a run was trained on, as shapes.

    Args:
      meta: of one of its checkpoints.
      folder: of the run, named in errors.

    Raises:
      UserError: the run does not say.
    """
    if "spec" in meta:
        return {
            key: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
            for key, (shape, dtype) in meta["spec"].items()
        }
    if "image_shape" in meta:  # runs of format 1
        return {"image": jax.ShapeDtypeStruct((1, *meta["image_shape"]), jnp.uint8)}
    raise UserError(f"{folder} does not say its images' size; train on with it first.")


def run_spec(folder: Path, step: int) -> Spec:
    """The batches that a run was trained on at a checkpoint, as shapes.

    Raises:
      UserError: the run does not say.
    """
    with checkpoints_of(folder) as checkpoints:
        return stored_spec(checkpoints.meta(step), folder)


def run_variables(folder: Path, task: Task, step: int, seed: int) -> dict[str, Any]:
    """The variables of a run at a checkpoint, averaged ones where it kept them.

    Raises:
      UserError: the checkpoint is damaged or belongs to another model.
    """
    with checkpoints_of(folder) as checkpoints:
        spec = stored_spec(checkpoints.meta(step), folder)
        fresh = jax.eval_shape(lambda: init_variables(task, seed, spec))
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = {
            kind: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree
            )
            for kind, tree in fresh.items()
            if kind not in task.training_collections
        }
        return checkpoints.variables(step, like)


def read(weights: str, name: str, preferred: str = "") -> Weights:
    """Trained weights for a registered network.

    Args:
      weights: see `interop.published.resolve`; or `run:FOLDER`, or `run:FOLDER#PART` for one of
        the networks of that run (backbone, encoder, teacher).
      name: of the network.
      preferred: the part of a run where the text names none; if it has no such part, its main one.

    Raises:
      UserError: no such weights, run or part.
    """
    if not weights.startswith(RUN):
        return pretrained.read(weights, name)
    place, _, part = weights.removeprefix(RUN).partition("#")
    folder = Path(place).expanduser()
    config = stored_config(folder)
    facts = stored_facts(folder, config)
    task = tasks.create(config, facts)
    with checkpoints_of(folder) as checkpoints:
        step = step_of(checkpoints, config)
    parts_of = tasks.require(task, "parts", "Starting from a run")
    parts = parts_of(run_variables(folder, task, step, config.seed))
    if part and part not in parts:
        raise unknown(f"part of the run {folder}", part, parts)
    chosen = part or (preferred if preferred in parts else next(iter(parts)))
    state = torch_weights.to_state_dict(parts[chosen])
    return Weights(state, weights, vocabulary=facts.vocabulary, palette=facts.palette)


def initial_variables(
    config: ConfigDict, task: Task, spec: Spec
) -> tuple[dict[str, Any], str] | None:
    """Variables to start from where the configuration names weights, and a line about them.

    None where it names none.

    Raises:
      UserError: weights cannot be had or do not fit.
    """
    if not task.names_weights(config):
        return None
    fresh = dict(jax.jit(lambda: init_variables(task, config.seed, spec))())
    loaded = task.load_weights(config, fresh, read)
    return loaded, f"weights: {_origin(fresh, loaded)}"


def _origin(fresh: dict[str, Any], loaded: dict[str, Any]) -> str:
    """`318 of 320 arrays were loaded; initialised afresh: head/kernel, head/bias`."""
    before = {id(leaf) for leaf in jax.tree.leaves(fresh)}
    leaves = jax.tree_util.tree_leaves_with_path(loaded)
    afresh = [path for path, leaf in leaves if id(leaf) in before]
    text = f"{len(leaves) - len(afresh)} of {len(leaves)} arrays were loaded"
    if not afresh:
        return text
    names = ["/".join(str(getattr(part, "key", part)) for part in path[1:]) for path in afresh]
    more = f", ... ({len(names)})" if len(names) > 6 else ""
    return f"{text}; initialised afresh: {', '.join(names[:6])}{more}"
