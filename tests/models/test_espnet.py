"""ESPNet: the authors' CamVid weights, and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import models, pretrained
from jaxvision.interop import torch_weights

CLASSES = 11  # and a twelfth, void
MEAN = np.float32([110.33102643, 108.40886315, 105.03319369])  # blue, green, red
STD = np.float32([72.12571015, 72.69074534, 69.90434816])
FRAMES = ("0001TP_008550", "0001TP_008580", "0001TP_008610", "0001TP_008640")


@pytest.fixture(scope="module")
def reference(shared_data):
    return dict(np.load(shared_data / "weights" / "espnet_camvid" / "reference_test.npz"))


@pytest.fixture(scope="module")
def predict(shared_data):
    """Logits [b, 360, 480, 12] of frames by name."""
    path = shared_data / "weights" / "espnet_camvid" / "espnet_p_2_q_8_camvid.pth"
    model = models.create("espnet", 12)
    image = jnp.zeros((1, 360, 480, 3))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    variables = pretrained.load_into("espnet", model, pretrained.read(str(path), "espnet"), like)
    apply = jax.jit(model.apply)

    def logits(names):
        frames = [Image.open(shared_data / "camvid" / "test" / f"{n}.png") for n in names]
        blue_first = np.stack([np.asarray(f.convert("RGB")) for f in frames])[..., ::-1]
        return np.asarray(apply(variables, (blue_first.astype(np.float32) - MEAN) / STD / 255))

    return logits


def test_logits_of_the_authors_weights(reference, predict):
    logits = predict(FRAMES)
    for name, ours in zip(FRAMES, logits, strict=True):
        expected = np.moveaxis(reference[f"logits_every16_{name}"], 0, -1)
        np.testing.assert_allclose(ours[::16, ::16], expected, 0, 1e-3)
        assert (ours.argmax(-1) != reference[f"argmax_{name}"]).sum() <= 2


def test_the_authors_weights_go_back_as_they_came(shared_data, tmp_path):
    path = shared_data / "weights" / "espnet_camvid" / "espnet_p_2_q_8_camvid.pth"
    theirs = torch_weights.read_state_dict(path)
    assert len(theirs) == 189
    model, entry = models.create("espnet", 12), models.variant("espnet")
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    variables = torch_weights.load(path, like, entry.convert)
    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    ours = torch_weights.read_state_dict(tmp_path / "ours.safetensors")
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours.pop(name), value)
    assert all(name.endswith("num_batches_tracked") for name in ours)


def scores(confusion):
    """(mean IoU, class average) in percent, of the classes that are not void."""
    right = np.diag(confusion)[:CLASSES]
    true, predicted = confusion.sum(1)[:CLASSES], confusion.sum(0)[:CLASSES]
    return 100 * (right / (true + predicted - right)).mean(), 100 * (right / true).mean()


def test_published_scores_of_the_reference_confusion(reference):
    confusion = reference["confusion_rows_gt_cols_pred"]
    # The published convention: a void pixel that is called something is wrongly called so.
    np.testing.assert_allclose(scores(confusion), (55.649, 68.303), atol=1e-3)
    labelled = confusion.copy()
    labelled[CLASSES] = 0
    assert scores(labelled)[0] == pytest.approx(57.175, abs=1e-3)
    assert 100 * np.trace(labelled) / labelled.sum() == pytest.approx(85.798, abs=1e-3)


@pytest.mark.slow
def test_all_test_frames(shared_data, reference, predict):
    lines = (shared_data / "camvid" / "test.txt").read_text().split("\n")
    names = [line.split("/")[-1].removesuffix(".png") for line in lines if line]
    assert len(names) == 233
    confusion = np.zeros((12, 12), np.int64)
    for name in names:
        truth = np.asarray(Image.open(shared_data / "camvid" / "testannot" / f"{name}.png"))
        found = predict([name])[0].argmax(-1)
        pairs = 12 * truth.astype(int) + found
        confusion += np.bincount(pairs.ravel(), minlength=144).reshape(12, 12)
    expected = reference["confusion_rows_gt_cols_pred"]
    # One in a million pixels at most, those whose two best scores are nearer than rounding, which
    # processors do differently.
    moved = np.abs(confusion - expected).sum() // 2
    print(f"{moved} pixels differ from the reference's classes")
    assert moved <= confusion.sum() / 1_000_000
    np.testing.assert_allclose(scores(confusion), (55.649, 68.303), atol=1e-3)


@pytest.mark.parametrize("name", ["espnet", "espnet_c"])
@pytest.mark.parametrize("size", [(8, 8), (33, 47), (1, 30)])
def test_keeps_any_size(name, size):
    model = models.create(name, 5, depths=(1, 1))
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert logits.shape == (1, *size, 5)


def test_decoder_for_other_classes_is_fresh():
    def made(classes, seed):
        model = models.create("espnet", classes, depths=(1, 1))
        like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
        draw = np.random.default_rng(seed).normal
        return model, jax.tree.map(lambda p: jnp.asarray(draw(size=p.shape), p.dtype), like)

    model, variables = made(5, 0)
    entry, state = models.variant("espnet"), torch_weights.to_state_dict(made(12, 1)[1])
    ours = pretrained.load_state(entry, model, state, variables, "theirs", fine_tune=True)
    for layer, fresh in variables["params"].items():
        same = [
            bool(jnp.array_equal(a, b))
            for a, b in zip(*map(jax.tree.leaves, (fresh, ours["params"][layer])), strict=True)
        ]
        assert sum(same) == (len(same) if layer != "encoder" else 1)


def test_images_are_turned_round_for_weights_that_want_blue_first():
    image = jax.random.normal(jax.random.key(0), (1, 16, 24, 3))
    plain, turned = (models.create("espnet", 10, depths=(1, 1), bgr=b) for b in (False, True))
    variables = plain.init(jax.random.key(1), image)
    ours = plain.apply(variables, image[..., ::-1])
    np.testing.assert_array_equal(ours, turned.apply(variables, image))
