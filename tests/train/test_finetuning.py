"""Starting from trained weights: a fresh head, frozen and slower layers, a teacher; exporting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxvision import cli, models, runs, tasks
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.tasks import configuration
from jaxvision.train import optimizer, run, schedule

VIT = {"depth": 2, "width": 16, "num_heads": 2, "head_dim": 8}


def small(**changes):
    config = tasks.default_config()
    config.data.train, config.data.test = "train[:128]", "test[:64]"
    config.data.channels = 1
    config.data.eval_transforms = config.data.train_transforms = ({"name": "resize", "size": 12},)
    config.model.name, config.model.options = "vit_mnist", VIT
    config.train.batch_size, config.train.duration, config.eval.pictures = 32, 3, 0
    config.log.tensorboard = False
    for key, value in changes.items():
        configuration.set_key(config, key.replace("__", "."), value)
    return config


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Weights of the network for other images and five classes."""
    model = models.create("vit_mnist", 5, **VIT)
    variables = jax.jit(lambda: model.init(jax.random.key(7), jnp.zeros((1, 28, 28, 1))))()
    path = tmp_path_factory.mktemp("published") / "vit.safetensors"
    torch_weights.save(path, variables)
    return path, load_file(path)


def depths_of(model, shape):
    return optimizer.layer_depths(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    )


def test_layers_are_counted_from_the_output():
    depths = depths_of(models.create("vit_mnist", 5, **VIT), (12, 12, 1))
    assert depths["head"] == depths["norm"] == 0
    assert depths["blocks_1/attn/qkv"] == depths["blocks_1/mlp/fc2"] == 1
    assert depths["blocks_0/norm1"] == 2
    assert depths["patch_embed/proj"] == depths[""] == 3
    depths = depths_of(models.create("resnet18", 5), (32, 32, 3))
    assert depths["layer4_1/conv1"] == 1
    assert depths["layer1_0/bn2"] == 8
    assert depths["conv1"] == depths["bn1"] == 9


def test_each_layer_learns_slower_than_the_next():
    config = tasks.default_config()
    config.optimizer.name, config.optimizer.momentum = "sgd", 0.0
    config.optimizer.learning_rate, config.schedule.name = 1.0, "constant"
    config.optimizer.layer_decay = 0.5
    params = {"stem": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    rate = schedule.learning_rate(config, total=10, steps_per_epoch=5)
    tx = optimizer.build(config, params, rate, {"stem": 2, "head": 0})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["stem"]["kernel"], -0.25)
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0)
    config.optimizer.layer_decay = 1.5
    with pytest.raises(UserError, match=r"layer_decay is at most 1, got 1\.5"):
        configuration.validate(config)


def test_fine_tuning_then_exporting(published, tmp_path, capsys):
    path, before = published
    config = small(
        model__weights=str(path),
        optimizer__freeze=["patch_embed", "blocks_0/"],
        optimizer__layer_decay=0.8,
        optimizer__learning_rate=1e-2,
    )
    run(config, tmp_path / "run")
    cli.run(["export-torch", str(tmp_path / "out.safetensors"), "--workdir",
                   str(tmp_path / "run")])  # fmt: skip
    shown = capsys.readouterr().out
    assert "of vit_mnist" in shown
    count = len(jax.tree.leaves(runs.open(tmp_path / "run").variables))
    loaded = f"weights: {count - 2} of {count} arrays were loaded; "
    assert loaded + "initialised afresh: head/bias, head/kernel\n" in shown
    after = load_file(tmp_path / "out.safetensors")
    assert set(after) == set(before)
    assert after["head.weight"].shape == (10, 16)
    assert after["pos_embed"].shape == (1, 10, 16)  # resampled from 7x7 to 3x3, then trained
    for name in before:
        if name.startswith(("patch_embed.", "blocks.0.")):
            np.testing.assert_array_equal(after[name], before[name])
    assert not np.allclose(after["blocks.1.mlp.fc1.weight"], before["blocks.1.mlp.fc1.weight"])
    # What was exported is what the run evaluates.
    variables = runs.open(tmp_path / "run").variables
    np.testing.assert_array_equal(
        torch_weights.to_state_dict(variables)["head.weight"], after["head.weight"]
    )


def test_exporting_published_weights_gives_them_back(published, tmp_path):
    path, _ = published
    # The registry's own depth is not that of the file.
    with pytest.raises(UserError, match=r"Mis-shaped|Missing|Unexpected"):
        cli.run(["export-torch", str(tmp_path / "x.safetensors"), "--model", "vit_mnist",
                       "--weights", str(path)])  # fmt: skip
    model = models.create("lenet5", 10)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    torch_weights.save(tmp_path / "lenet.safetensors", variables)
    cli.run(["export-torch", str(tmp_path / "x.safetensors"), "--model", "lenet5",
                   "--weights", str(tmp_path / "lenet.safetensors")])  # fmt: skip
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("x", "lenet"))
    assert set(ours) == set(theirs)
    assert ours["classifier.2.weight"].shape == (10, 84)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


def test_a_student_of_a_teacher_resumes_without_its_file(tmp_path):
    teacher = models.create("mlp", 10, hidden=(6,))
    variables = teacher.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    torch_weights.save(tmp_path / "teacher.safetensors", variables)
    config = small(
        classification__distillation__model="mlp",
        classification__distillation__options={"hidden": (6,)},
        classification__distillation__weights=str(tmp_path / "teacher.safetensors"),
        classification__distillation__kind="soft",
        model__options={**VIT, "distilled": True},
    )
    run(config, tmp_path / "run")
    (tmp_path / "teacher.safetensors").unlink()
    config.train.duration, config.train.allow_changed_config = 5, True
    result = run(config, tmp_path / "run")
    assert np.isfinite(result["loss"])
    assert "teacher" not in runs.open(tmp_path / "run").variables
