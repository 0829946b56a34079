"""Checkpoints: sealed, found damaged, put aside; never of another model."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.train.checkpoint import Checkpoints, damaged
from jaxvision.train.state import TrainState


def state_at(step, width=3):
    params = {"head": {"kernel": jnp.arange(4.0 * width).reshape(4, width) + step}}
    return TrainState(jnp.int32(step), params, {}, (), None)


def like(width=3):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_at(0, width)
    )


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 1, 2 and 3."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(state_at(step), {"progress": {"step": step}})
    checkpoints.wait()
    checkpoints.close()
    return tmp_path / "checkpoints"


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_the_newest_comes_back_with_its_meta(saved):
    state, meta = Checkpoints(saved).restore(like())
    assert int(state.step) == 3
    np.testing.assert_array_equal(
        state.params["head"]["kernel"], state_at(3).params["head"]["kernel"]
    )
    assert meta["progress"] == {"step": 3}


def test_every_committed_checkpoint_is_sealed_and_intact(saved):
    for step in (1, 2, 3):
        assert (saved / str(step) / "seal.json").is_file()
        assert damaged(saved / str(step)) == ""


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in range(1, 8):
        checkpoints.save(state_at(step), {}, best=min(step, 3))
    checkpoints.wait()
    checkpoints.close()
    assert Checkpoints(tmp_path / "c").steps() == [3, 6, 7]


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "empty"])
def test_a_damaged_newest_one_is_put_aside_with_a_warning(saved, harm, caplog):
    victim = largest_file(saved / "3")
    data = victim.read_bytes()
    if harm == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        victim.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif harm == "delete":
        victim.unlink()
    else:
        victim.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        checkpoints = Checkpoints(saved, keep=3)
        state, _ = checkpoints.restore(like())
    assert int(state.step) == 2
    assert "step 3 is damaged" in caplog.text
    assert victim.name in caplog.text
    assert (saved.parent / "damaged_checkpoints" / "3").is_dir()  # nothing is thrown away
    checkpoints.save(state_at(3), {})  # and its step can be saved again
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3]
    checkpoints.close()


def test_damage_without_a_seal_is_met_by_the_reader(saved, caplog):
    (saved / "3" / "seal.json").unlink()
    victim = largest_file(saved / "3")
    victim.write_bytes(victim.read_bytes()[:10])
    state, _ = Checkpoints(saved).restore(like())
    assert int(state.step) == 2
    assert "damaged" in caplog.text


def test_all_damaged_means_none(saved):
    for step in (1, 2, 3):
        largest_file(saved / str(step)).unlink()
    assert Checkpoints(saved).restore(like()) is None


def test_another_model_is_refused_with_paths_and_shapes(saved):
    with pytest.raises(UserError) as error:
        Checkpoints(saved).restore(like(width=5))
    assert "belongs to another model" in str(error.value)
    assert "['head']['kernel']: [4, 3] in the checkpoint, [4, 5] in the model" in str(error.value)
    assert Checkpoints(saved).steps() == [1, 2, 3]  # being refused harms nothing


def test_a_step_that_is_not_there(saved):
    with pytest.raises(UserError, match=r"No checkpoint of step 9 .*1, 2, 3"):
        Checkpoints(saved).restore(like(), step=9)
    assert int(Checkpoints(saved).restore(like(), step=2)[0].step) == 2


def test_none_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing").restore(like()) is None
    assert not (tmp_path / "nothing").exists()
