"""Image GPT: what is paid for a pixel, continuations, samples, runs, guards."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from parity.deterministic import weights
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import cli, models, runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import published as module
from jaxvision.interop import torch_weights
from jaxvision.interop.published import published
from jaxvision.metrics import compute
from jaxvision.tasks import base, configuration
from jaxvision.tasks.pretraining.igpt import ImageGPT
from jaxvision.tasks.sampling import row_keys
from jaxvision.train import run
from jaxvision.train import weights as weights_of
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PALETTE = ((0.0, 0.0, 0.0), (255.0, 0.0, 0.0), (0.0, 255.0, 0.0), (10.0, 20.0, 250.0))
OPTIONS = {"size": (4, 3), "width": 16, "depth": 3, "num_heads": 2}
ROOT = Path(__file__).parents[2]


def configured(**keys):
    config = tasks.default_config("pretraining")
    config.model.name, config.model.options = "imagegpt_small", OPTIONS
    for key, value in keys.items():
        config.pretraining[key] = value
    return config


def task_of(**keys):
    return tasks.create(configured(**keys), Facts(palette=PALETTE))


def variables_of(task):
    return jax.jit(lambda: init_variables(task, 0, base.image_spec((4, 3, 3))))()


def images(count=5):
    return jnp.asarray(RNG.integers(0, 256, (count, 4, 3, 3)), jnp.uint8)


def test_samples_of_any_number_are_one_program():
    task = task_of()
    variables = variables_of(task)
    generate = jax.jit(lambda keys: task.generate(variables, task.latents(keys), keys))
    (count,) = export.symbolic_shape("b")
    keys = row_keys(KEY, 3)
    exported = export.export(generate)(jax.ShapeDtypeStruct((count,), keys.dtype))
    np.testing.assert_array_equal(exported.call(keys), generate(keys))


def test_pixels_become_the_nearest_colours_and_come_back():
    task, shown = task_of(), images()
    assert isinstance(task, ImageGPT)
    flat = np.asarray(shown, np.float64).reshape(5, 12, 1, 3)
    expected = np.square(flat - np.asarray(PALETTE)).sum(-1).argmin(-1)
    found = task.colours(shown)
    np.testing.assert_array_equal(found, expected)
    again = task.images(found)
    assert again.dtype == jnp.uint8
    np.testing.assert_array_equal(again, np.asarray(PALETTE)[expected].reshape(5, 4, 3, 3))
    np.testing.assert_array_equal(task.colours(again), found)


def test_the_loss_is_in_nats_a_pixel_of_valid_images():
    task, shown = task_of(), images()
    variables, batch = variables_of(task), {"image": shown, "valid": jnp.arange(5) < 4}
    said = np.asarray(task.colours(shown))[:4]
    read = np.concatenate([np.full((4, 1), 4), said[:, :-1]], 1)
    logits = np.asarray(task.model.apply(variables, jnp.asarray(read)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p, said[..., None], -1).mean()
    sums, rows = jax.jit(task.evaluate)(variables, batch, KEY)
    found = compute(jax.device_get(sums))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["bits_per_dimension"] == pytest.approx(expected / np.log(2), rel=1e-5)
    assert found.keys() <= task.metrics.keys()
    objective, _ = task.loss(variables["params"], {}, batch, KEY)
    assert float(objective.loss) == pytest.approx(expected, rel=1e-5)
    assert objective.means["colours"].weight == 4 * 12
    features = task.model.apply(variables, jnp.asarray(read), 1, method="features")
    np.testing.assert_allclose(rows["features"][:4], features, 1e-4, 1e-5)
    first = task_of(probed_block=0).features(variables, shown[:4])
    assert not np.allclose(first, features)


def test_the_loss_falls():
    task = task_of()
    groups = {"main": Group(optax.adam(1e-2))}
    state = init_state(variables_of(task), groups)
    step = jax.jit(make_train_step(task, groups, seed=0))
    rows = jnp.asarray([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], jnp.uint8)
    batch = {"image": jnp.broadcast_to(rows[:, None], (8, 4, 3, 3)), "valid": jnp.ones(8, bool)}
    found = []
    for _ in range(30):
        state, sums = step(state, batch)
        found.append(compute(jax.device_get(sums))["loss"])
    assert found[0] > 1
    assert found[-1] < 0.1


def test_a_continuation_is_the_likeliest_of_the_network_without_a_cache():
    task, shown = task_of(sampling_top_k=1), images()
    # Larger weights, so that what comes first matters.
    variables = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, variables_of(task))
    masks = np.zeros((5, 12), bool)
    for row, begin in enumerate((0, 3, 6, 7, 11)):  # one program for all
        masks[row, begin:] = True
    found = jax.jit(task.inpaint)(variables, shown, masks.reshape(5, 4, 3), row_keys(KEY, 5))
    apply = jax.jit(task.model.apply)
    said = np.where(masks, 0, np.asarray(task.colours(shown)))
    for place in range(12):
        read = np.concatenate([np.full((5, 1), 4), said[:, :-1]], 1)
        likeliest = np.asarray(apply(variables, jnp.asarray(read)))[:, place].argmax(-1)
        said[:, place] = np.where(masks[:, place], likeliest, said[:, place])
    assert len(np.unique(said[masks])) > 1
    seen = masks.reshape(5, 4, 3, 1)
    expected = np.where(seen, np.asarray(PALETTE)[said].reshape(5, 4, 3, 3), shown)
    np.testing.assert_array_equal(found, expected)


def test_sample_k_is_decided_by_its_key():
    task = task_of()
    variables = variables_of(task)
    few, many = (np.asarray(task.sample(variables, KEY, count)) for count in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    assert not np.array_equal(many[0], many[1])
    assert set(map(tuple, many.reshape(-1, 3).tolist())) <= set(PALETTE)
    outputs = jax.jit(task.pictured)(
        variables, {"image": images(2), "valid": jnp.ones(2, bool)}, KEY
    )
    assert outputs["features"].shape == (2, 16)
    hidden, made = outputs["hidden"], outputs["reconstruction"]
    np.testing.assert_array_equal(hidden[:, :2], made[:, :2])
    assert (hidden[:, 2:] == 128).all()


def test_only_ends_of_images_are_made_anew():
    task = task_of()
    mask = np.zeros((4, 3), bool)
    for good in (7, 0, 11):
        mask.ravel()[good:] = True
        task.check_mask(mask)
    mask[3, 2] = False
    with pytest.raises(UserError, match="white from one pixel on to the last"):
        task.check_mask(mask)


def test_what_does_not_fit():
    with pytest.raises(UserError, match="not known what colours imagegpt_small says"):
        tasks.create(configured(), Facts())
    grey = configured()
    grey.data.channels = 1
    with pytest.raises(UserError, match="have 3 channels, images 1"):
        tasks.create(grey, Facts(palette=PALETTE))
    with pytest.raises(UserError, match=r"probed_block=3: imagegpt_small has 3 blocks, from 0 on"):
        task_of(probed_block=3)
    with pytest.raises(UserError, match=r"images of 8x8; set model\.options\.size=8, or resize"):
        jax.eval_shape(lambda: init_variables(task_of(), 0, base.image_spec((8, 8, 3))))


# -- runs --------------------------------------------------------------------------------------


def begin(workdir, **keys):
    """A run of a few steps on digits in seven grey colours."""
    config = configuration.load(f"{ROOT / 'configs' / 'pretraining' / 'shapes.py'}:igpt")
    settings = {
        "data.name": "digits", "data.train": "train[:64]", "data.test": "test[:32]",
        "data.options": {}, "data.channels": 1, "data.mean": (0.5,), "data.std": (0.5,),
        "data.palette": 7, "data.augment": (),
        "data.train_transforms": (), "data.eval_transforms": (), "model.options":
        {"size": 8, "width": 16, "depth": 2, "num_heads": 2}, "train.batch_size": 16,
        "train.duration": 2, "eval.every": 2, "checkpoint.every": 2, "eval.pictures": 4,
        "schedule.warmup": 0, "log.tensorboard": False, **keys,
    }  # fmt: skip
    for key, value in settings.items():
        configuration.set_key(config, key, value)
    return run(config, workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("igpt")
    assert begin(folder)["bits_per_dimension"] > 0
    return folder


def test_the_palette_stays_with_its_run(trained, monkeypatch):
    facts = json.loads((trained / "facts.json").read_text())
    assert np.shape(facts["palette"]) == (7, 1)
    assert (trained / "reconstructions.png").is_file()

    def never(*_):
        raise AssertionError("colours are learned once")

    monkeypatch.setattr("jaxvision.data.palette.learn", never)
    begin(trained, **{"train.duration": 3})
    assert json.loads((trained / "facts.json").read_text()) == facts
    opened = runs.open(trained)
    assert opened.task.palette == tuple(map(tuple, facts["palette"]))
    outputs = opened.predict([RNG.integers(0, 256, (8, 8, 1)).astype(np.uint8)])[0].outputs
    assert outputs["features"].shape == (16,)


def test_samples_and_lower_halves_by_command(trained, tmp_path):
    sample = ["sample", "--workdir", str(trained), "--count", "2", "--output"]
    cli.run([*sample, str(tmp_path / "drawn")])
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "00000.png"))
    levels = np.round(np.asarray(runs.open(trained).task.palette)).astype(np.uint8).ravel()
    assert drawn.shape == (8, 8)
    assert set(drawn.ravel()) <= set(levels)
    photo, mask = RNG.integers(0, 256, (8, 8)).astype(np.uint8), np.zeros((8, 8), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask[4:] = 255
    Image.fromarray(mask).save(tmp_path / "lower.png")
    Image.fromarray(255 - mask).save(tmp_path / "upper.png")
    paint = ["--inpaint", str(tmp_path / "photo.png"), "--mask"]
    cli.run([*sample, str(tmp_path / "anew"), *paint, str(tmp_path / "lower.png")])
    anew = np.asarray(Image.open(tmp_path / "anew" / "00001.png"))
    np.testing.assert_array_equal(anew[:4], photo[:4])
    assert set(anew[4:].ravel()) <= set(levels)
    with pytest.raises(UserError, match="white from one pixel on"):
        cli.run([*sample, str(tmp_path / "no"), *paint, str(tmp_path / "upper.png")])
    with pytest.raises(UserError, match="not made of latents: nothing lies between them"):
        cli.run([*sample, str(tmp_path / "no"), "--interpolate", "3"])
    with pytest.raises(UserError, match="samples have no truncation"):
        cli.run([*sample, str(tmp_path / "no"), "--truncation", "0.5"])


def test_another_run_starts_from_it_with_its_colours(trained, tmp_path):
    opened = runs.open(trained)
    config = opened.config.copy_and_resolve_references()
    config.model.weights = f"run:{trained}"
    same = opened.task.load_weights(config, opened.shapes_for((8, 8, 1)), weights_of.read)
    jax.tree.map(np.testing.assert_array_equal, same, opened.variables)
    other = tasks.create(config, Facts(palette=tuple((float(v),) for v in range(7))))
    with pytest.raises(UserError, match=r"colours of run:.* are others than those of this run"):
        other.load_weights(config, opened.shapes_for((8, 8, 1)), weights_of.read)
    file = tmp_path / "igpt.safetensors"
    cli.run(["export-torch", str(file), "--workdir", str(trained)])
    config.data.palette = str(trained / "facts.json")
    elsewhere = runs.with_weights(config, str(file))
    assert elsewhere.task.palette == opened.task.palette
    jax.tree.map(
        np.testing.assert_array_equal, elsewhere.variables_for((8, 8, 1)), opened.variables
    )


def test_a_published_network_by_its_name(tmp_path, monkeypatch):
    """A file as transformers writes it, and the colours beside it."""
    model = models.create("imagegpt_small", **OPTIONS, colours=4)
    like = jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, 1), jnp.int32)))
    ours = {name: weights(name, s) for name, s in torch_weights.torch_shapes(like).items()}
    entry = models.variant("imagegpt_small")
    theirs = entry.export(ours)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in theirs.items()}, tmp_path / "model.safetensors"
    )
    clusters = (np.asarray(PALETTE) / 127.5 - 1).tolist()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters}))
    about = published("imagegpt_small")["imagenet"]
    assert (about.hub, about.size, about.square) == ("openai/imagegpt-small", 32, True)
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(module, "hub_file", lambda repository: {about.hub: file}[repository])
    steps = ({"name": "resize", "size": (4, 3)},)
    keys = {"model.options": OPTIONS, "data.eval_transforms": steps}
    opened = runs.published("imagegpt_small", "default", keys)
    np.testing.assert_allclose(opened.task.palette, PALETTE, atol=1e-9)
    assert opened.sample(1).shape == (1, 4, 3, 3)
    photograph = RNG.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    assert opened.predict([photograph])[0].outputs["features"].shape == (16,)
    config = configured()
    config.model.weights = "default"
    other = tasks.create(config, Facts(palette=PALETTE[::-1]))
    with pytest.raises(UserError, match="The colours of default are others"):
        other.load_weights(config, variables_of(other), weights_of.read)
