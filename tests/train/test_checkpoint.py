"""Checkpoints: sealed, found damaged, put aside; never of another model."""

import contextlib
import logging
import shutil

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


def test_one_without_a_seal_gives_way_to_those_that_have_one(saved, caplog):
    (saved / "3" / "seal.json").unlink()
    state, _ = Checkpoints(saved).restore(like())
    assert int(state.step) == 2
    assert "step 3 is damaged (it has no seal, and others have)" in caplog.text


def test_where_none_has_a_seal_the_newest_is_used_with_a_warning(saved, caplog):
    for step in (1, 2, 3):
        (saved / str(step) / "seal.json").unlink()
    assert int(Checkpoints(saved).restore(like())[0].step) == 3
    assert "step 3 has no seal: its files cannot be checked" in caplog.text
    victim = largest_file(saved / "3")
    victim.write_bytes(victim.read_bytes()[:10])
    assert int(Checkpoints(saved).restore(like())[0].step) == 2  # met by the reader


def test_folders_that_were_exchanged_are_found(saved, caplog):
    (saved / "3").rename(saved / "aside")
    (saved / "2").rename(saved / "3")
    (saved / "aside").rename(saved / "2")
    assert int(Checkpoints(saved).restore(like())[0].step) == 1
    assert "its seal is of step 2" in caplog.text
    assert "its seal is of step 3" in caplog.text


def test_exchanged_folders_without_a_seal_are_found_by_their_state(saved, caplog):
    for step in (1, 2, 3):
        (saved / str(step) / "seal.json").unlink()
    shutil.rmtree(saved / "3")
    shutil.copytree(saved / "2", saved / "3")
    assert int(Checkpoints(saved).restore(like())[0].step) == 2
    assert "it holds the state of step 2" in caplog.text


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path, caplog):
    for name, steps in (("a", (1, 2)), ("b", (3,))):
        with contextlib.closing(Checkpoints(tmp_path / name, run=name * 32)) as checkpoints:
            for step in steps:
                checkpoints.save(state_at(step), {})
    shutil.copytree(tmp_path / "b" / "3", tmp_path / "a" / "3")
    state, _ = Checkpoints(tmp_path / "a", run="a" * 32).restore(like())
    assert int(state.step) == 2
    assert "step 3 is damaged (it belongs to another run)" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b'{"a": 1}', b'{"a": [1]}', b"\xff\xfe", b'{"files": []}', b"", b"null",
     b'{"step": 3, "run": "", "files": {"../../secret": [1, 2]}}'],
)  # fmt: skip
def test_a_seal_of_another_shape_is_damage(saved, content, caplog):
    (saved / "3" / "seal.json").write_bytes(content)
    assert int(Checkpoints(saved).restore(like())[0].step) == 2
    assert "its seal is unreadable" in caplog.text


def test_other_folders_among_checkpoints_are_left_alone(saved):
    others = ("backup", "3 (copy)", "03", "٤", "-1", "4.orbax-checkpoint-tmp")
    for name in others:
        shutil.copytree(saved / "1", saved / name)
    checkpoints = Checkpoints(saved, keep=3)
    assert checkpoints.steps() == [1, 2, 3]
    assert int(checkpoints.restore(like())[0].step) == 3
    checkpoints.save(state_at(4), {})
    checkpoints.close()
    assert Checkpoints(saved).steps() == [2, 3, 4]
    assert all((saved / name).is_dir() for name in others[:-1])


def test_averages_of_the_second_format_get_the_statistics_of_now(tmp_path, monkeypatch):
    stats = {"batch_stats": {"bn": {"mean": jnp.arange(3.0)}}}
    state = state_at(5).replace(model_state=stats, ema=state_at(9).params)
    monkeypatch.setattr("jaxvision.train.checkpoint.FORMAT", 2)
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        checkpoints.save(state, {"progress": {}})
    monkeypatch.undo()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state.replace(ema={"params": state.ema, **stats}),
    )
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        restored, _ = checkpoints.restore(wanted)
        read = checkpoints.variables(5, {"params": wanted.params, **wanted.model_state})
    for found in (restored.ema, read):
        jax.tree.map(np.testing.assert_array_equal, found, {"params": state.ema, **stats})


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
