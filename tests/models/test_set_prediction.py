"""DETR and YOLOS against transformers: golden files of tests/parity/set_prediction.py."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import image, photographs, sample, weights
from parity.set_prediction import CASES, CLASSES, GOLDEN, GRADIENTS, OUTPUTS, objects

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.layers.normalization import frozen_statistics
from jaxvision.losses import Objective
from jaxvision.models.detection.detr import best

FOUND = np.load(GOLDEN)
SLOW = pytest.mark.slow
SLOTS = 5  # of true boxes


def network(name, **more):
    case = CASES[name]
    return models.create(case.model, CLASSES, **{**case.options, **more})


def shapes(name):
    return {key: tuple(s) for key, s in json.loads(str(FOUND[f"{name}/shapes"])).items()}


def pictures(name):
    return jnp.asarray(np.moveaxis(image(CASES[name].image, FOUND[f"{name}/draw"]), 1, -1))


@functools.cache
def variables(name):
    convert = models.variant(CASES[name].model).convert
    state = convert({key: weights(key, shape) for key, shape in shapes(name).items()})
    x = pictures(name)
    like = jax.eval_shape(lambda: network(name).init(jax.random.key(0), x))
    return torch_weights.to_variables(state, like)  # every name of the reference is used


def targets(name):
    """The objects among boxes that do not count, in pixels."""
    rows, _, height, width = CASES[name].image
    found = {
        "boxes": np.tile(np.float32([3, 4, 9, 30]), (rows, SLOTS, 1)),
        "box_label": np.ones((rows, SLOTS), np.int32),
        "box_valid": np.zeros((rows, SLOTS), bool),
        "box_crowd": np.zeros((rows, SLOTS), bool),
        "valid": np.ones(rows, bool),
    }
    for row, (labels, boxes) in enumerate(objects(name)):
        places = slice(SLOTS - len(labels), SLOTS)
        corners = np.concatenate(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1
        )
        found["boxes"][row, places] = corners * np.float32([width, height] * 2)
        found["box_label"][row, places] = labels
        found["box_valid"][row, places] = True
    return jax.tree.map(jnp.asarray, found)


def objective(name, params, rest, **more):
    with frozen_statistics((".",)):
        means, _ = network(name, **more).apply(
            {"params": params, **rest},
            pictures(name),
            train=True,
            targets=targets(name),
            mutable=list(rest),
        )
    return Objective(means)


def step(name):
    """The losses and every gradient."""
    params, rest = variables(name)["params"], variables(name).copy()
    del rest["params"]

    @jax.jit
    def differentiate(params):
        def loss(params):
            found = objective(name, params, rest)
            return found.value, found.means

        return jax.grad(loss, has_aux=True)(params)

    gradient, means = differentiate(params)
    return {key: float(mean.value) for key, mean in means.items()}, gradient


def by_reference(name, gradient):
    """Our gradients in the reference's order of parameters."""
    statistics = ("running_mean", "running_var")
    kept = {k: s for k, s in sorted(shapes(name).items()) if not k.endswith(statistics)}
    ends = np.cumsum([math.prod(shape) for shape in kept.values()])
    places = np.split(np.arange(ends[-1]), ends[:-1])
    marked = {key: p.reshape(shape) for (key, shape), p in zip(kept.items(), places)}
    order = models.variant(CASES[name].model).convert(marked)
    ours, flat = torch_weights.to_state_dict({"params": gradient}), np.full(ends[-1], np.nan)
    assert sorted(order) == sorted(ours)
    for key, value in ours.items():
        flat[order[key]] = value
    return [flat[place].reshape(shape) for place, shape in zip(places, kept.values())]


@functools.cache
def evaluation(name):
    """Images -> ((logits, boxes), detections)."""
    model = network(name)

    @jax.jit
    def apply(variables, x):
        return model.apply(variables, x, False, method="heads"), model.apply(variables, x)

    return lambda x: apply(variables(name), x)


def compare_detections(name, found, prefix=""):
    """With what the reference detects, in the order of its scores."""
    golden = {key: FOUND[f"{name}/{prefix}{key}"] for key in ("scores", "labels", "boxes")}
    order = np.argsort(-golden["scores"], 1, kind="stable")
    height, width = CASES[name].image[2:]
    golden["boxes"] = golden["boxes"].clip(0, [width, height] * 2)
    for key, value in golden.items():
        index = order[..., None] if value.ndim == 3 else order
        np.testing.assert_allclose(found[key], np.take_along_axis(value, index, 1), 1e-3, 1e-2)
    assert found["valid"].all()


@pytest.mark.parametrize("name", CASES)
def test_outputs(name):
    x = pictures(name)
    (logits, boxes), found = evaluation(name)(x)
    assert logits.shape == (1, len(x), CASES[name].options["queries"], CLASSES + 1)
    for ours, key in ((logits, "logits"), (boxes, "raw_boxes")):
        expected = FOUND[f"{name}/{key}"]
        close = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(sample(ours, OUTPUTS), expected, 1e-4, close)
    compare_detections(name, found)
    assert found["labels"].dtype == jnp.int32


@pytest.mark.parametrize("name", CASES)
def test_detections_in_photographs(name):
    x = jnp.asarray(np.moveaxis(photographs(CASES[name].image), 1, -1))
    compare_detections(name, evaluation(name)(x)[1], "photographs/")


SMALLER = {"detr_dc5", "yolos_tiny"}  # others run the same code


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=SLOW) if n in SMALLER else n for n in CASES]
)
def test_losses_and_gradients(name):
    values, gradient = step(name)
    factors = {"ce": 1, "bbox": 5, "giou": 2}
    expected = {
        key.split("/")[-1]: float(FOUND[key]) for key in FOUND if key.startswith(f"{name}/loss/")
    }
    total = expected.pop("total")
    assert sorted(values) == sorted(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(values[key], factors[key.split("_")[0]] * value, 1e-4)
    np.testing.assert_allclose(sum(values.values()), total, 1e-4)
    gradients = by_reference(name, gradient)
    norms = np.array([np.linalg.norm(g) for g in gradients])
    rounding = 1e-6 * norms.max()
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-3, rounding)
    parts = [sample(g, GRADIENTS) for g in gradients]
    size = np.concatenate(
        [np.full(len(p), n / g.size**0.5) for p, n, g in zip(parts, norms, gradients)]
    )
    wanted = FOUND[f"{name}/gradients"]
    error = np.abs(np.concatenate(parts) - wanted)
    assert np.all(error <= 1e-3 * (size + np.abs(wanted)) + rounding)


def test_auxiliary_losses_may_be_left_out():
    means = jax.eval_shape(
        lambda v: (
            objective(
                "detr",
                v["params"],
                {"batch_stats": v["batch_stats"]},
                auxiliary=False,
            ).means
        ),
        variables("detr"),
    )
    assert sorted(means) == ["bbox", "ce", "giou"]


def test_attention_of_the_queries_is_recorded():
    found = jax.jit(
        lambda v: models.intermediates(network("detr"), v, pictures("detr"), ("attention",))
    )(variables("detr"))["attention"]
    assert [weights.shape for weights in found] == [(3, 4, 8, 2 * 3)] * 2
    np.testing.assert_allclose(found[1].sum(-1), 1, 1e-5)


def test_fewer_and_surer_detections():
    """Of two queries that see an object, and two that see none."""
    likelihood = jnp.array([[0.1, 0.6, 0.3], [0.05, 0.05, 0.9], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    boxes = jnp.array([[0.5, 0.5, 0.2, 0.4], [0.1] * 4, [0.9, 0.2, 0.4, 0.2], [0.2] * 4])

    def found(**options):
        decode = functools.partial(best, size=(50, 100), **options)
        return jax.jit(decode)(jnp.log(likelihood)[None], boxes[None])

    both = found(score_threshold=0.3, max_detections=3)
    np.testing.assert_array_equal(both["valid"], [[True, True, False]])
    np.testing.assert_array_equal(both["labels"], [[0, 1, 0]])
    np.testing.assert_allclose(both["scores"], [[0.8, 0.6, 0]], 1e-6)
    np.testing.assert_allclose(
        both["boxes"], [[[70, 5, 100, 15], [40, 15, 60, 35], [0, 0, 0, 0]]], 1e-5
    )
    assert found(score_threshold=0.0, max_detections=100)["valid"].all()
    assert found(score_threshold=0.0, max_detections=2)["scores"].shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("detr_resnet50", 91, 41_524_768),
        pytest.param("detr_resnet50", 20, 41_506_521, marks=SLOW),
        pytest.param("detr_resnet50_dc5", 91, 41_524_768, marks=SLOW),
        pytest.param("detr_resnet101", 91, 60_464_672, marks=SLOW),
        pytest.param("detr_resnet101_dc5", 91, 60_464_672, marks=SLOW),
        ("yolos_tiny", 91, 6_488_736),
        ("yolos_small", 91, 30_684_768),
        pytest.param("yolos_base", 91, 127_798_368, marks=SLOW),
    ],
)
def test_parameters(name, classes, expected):
    model, x = models.create(name, classes), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)["params"]
    # The reference counts scales and biases of its frozen batch norms as buffers.
    norms = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[0].key == "encoder" and path[-1].key in ("scale", "bias")
    ]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) - sum(norms) == expected


def test_parameters_of_the_table():
    """YOLOS as parity tables list it: base, of two blocks and two classes."""
    model = models.create("yolos_base", 2, depth=2, grid=(16, 16))
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 17_761_543


@pytest.mark.parametrize("name", ["detr_dc5", "yolos", "yolos_tiny"])
def test_names_go_back_to_the_reference(name):
    entry = models.variant(CASES[name].model)
    state = {key: weights(key, shape) for key, shape in shapes(name).items()}
    again = entry.export(entry.convert(state))
    assert sorted(again) == sorted(state)
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value)


def test_names_of_files_and_of_the_authors():
    """As in facebook/detr-resnet-50, and in detr-r50-e632da11.pth."""
    model = models.create("detr_resnet50", 91, encoder_layers=1, decoder_layers=1)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    like = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
    ours = {key: np.zeros(s, np.float32) for key, s in torch_weights.torch_shapes(like).items()}
    convert = models.variant("detr_resnet50").convert
    files, authors = {}, {}
    for key, value in ours.items():
        place, _, leaf = key.rpartition(".")
        file = key.replace("encoder.", "model.backbone.conv_encoder.model.", not key.find("enc"))
        file = file.replace("o_proj", "out_proj").replace(".mlp.", ".")
        files[file] = value
        author = {
            "model.encoder.layers.0.self_attn_layer_norm": "norm1",
            "model.encoder.layers.0.final_layer_norm": "norm2",
            "model.decoder.layers.0.self_attn_layer_norm": "norm1",
            "model.decoder.layers.0.encoder_attn_layer_norm": "norm2",
            "model.decoder.layers.0.final_layer_norm": "norm3",
        }
        if place in author:
            place = f"{place.rpartition('.')[0]}.{author[place]}"
        for theirs, mine in (
            ("linear", "mlp.fc"),
            ("multihead_attn", "encoder_attn"),
            ("out_proj", "o_proj"),
            ("decoder.norm", "decoder.layernorm"),
            ("input_proj", "model.input_projection"),
            ("query_embed", "model.query_position_embeddings"),
            ("class_embed", "class_labels_classifier"),
            ("bbox_embed", "bbox_predictor"),
        ):
            place = place.replace(mine, theirs)
        if place.startswith("encoder."):
            place = "backbone.0.body." + place.removeprefix("encoder.")
        place = place.replace("model.", "transformer.")
        if place[-6:] in ("q_proj", "k_proj", "v_proj"):
            if place.endswith("q_proj"):
                joined = np.arange(3 * value.size, dtype=np.float32)
                joined = joined.reshape(3 * len(value), *value.shape[1:])
                authors[f"{place[:-7]}.in_proj_{leaf}"] = joined
            continue
        authors[f"{place}.{leaf}"] = value
    assert sorted(convert(files)) == sorted(ours)
    found = convert(authors)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in ours.items()
    }
    assert "transformer.decoder.layers.0.multihead_attn.in_proj_weight" in authors
    keys = found["model.decoder.layers.0.encoder_attn.k_proj.weight"]
    np.testing.assert_array_equal(keys, np.arange(256 * 256, 2 * 256 * 256).reshape(256, 256))


def test_any_encoder_and_widths_that_do_not_fit():
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    small = {"encoder": "squeezenet1_1", "encoder_layers": 1, "decoder_layers": 1, "queries": 4}

    def found(**options):
        model = models.create("detr_resnet50", 3, **small, **options)
        return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x)

    assert found()["boxes"].shape == (1, 4, 4)
    with pytest.raises(UserError, match="36 channels do not divide among 8 heads"):
        found(width=36)
    with pytest.raises(UserError, match="channels in fours, not 30"):
        found(width=30, num_heads=2)
