"""Trained models at work: files in, predictions out; nothing mixed up, nothing overwritten."""

import contextlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from parity import deterministic
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import runs, tasks
from jaxvision.data.codecs import CorruptImageError, decode_mask
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.runs import Prediction, predicting
from jaxvision.tasks import configuration
from jaxvision.tasks.base import image_spec
from jaxvision.train import run

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with averaged weights and checkpoints of several steps; the first is the best."""
    config = configuration.load(
        DIGITS,
        {
            "model.name": "mlp", "data.augment": (), "data.validation": "train[:100]",
            "train.duration": 12, "checkpoint.every": 4, "eval.every": 4, "checkpoint.keep": 9,
            "optimizer.name": "sgd", "optimizer.ema": 0.9, "optimizer.learning_rate": 0.1,
            "schedule.name": "step", "schedule.milestones": (4,), "schedule.factor": 3000.0,
            "optimizer.clip_norm": 1.0, "eval.pictures": 0, "log.tensorboard": False,
        },
    )  # fmt: skip
    workdir = tmp_path_factory.mktemp("inference") / "run"
    run(config, workdir)
    return workdir


@pytest.fixture
def pictures(tmp_path):
    """Seven images of different sizes, one of them unreadable."""
    rng = np.random.default_rng(0)
    for index in range(7):
        pixels = rng.integers(0, 256, (8 + index, 20 - index), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    return tmp_path


def test_folders_stand_for_the_images_below_them(pictures):
    (pictures / "below").mkdir()
    (pictures / "5.png").rename(pictures / "below" / "x.PNG")
    (pictures / "notes.txt").write_text("no image")
    found = runs.image_files([str(pictures / "4.png"), str(pictures)])
    expected = ["4.png", "0.png", "1.png", "2.png", "3.png", "4.png", "6.png", "below/x.PNG"]
    assert [str(p.relative_to(pictures)) for p in found] == expected
    with pytest.raises(UserError, match=r"No such file or folder: .*7\.png"):
        runs.image_files([str(pictures / "7.png")])
    (pictures / "empty").mkdir()
    with pytest.raises(UserError, match=r"No image in .*empty"):
        runs.image_files([str(pictures / "empty")])


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch(trained, pictures, monkeypatch):
    resized = {"data.eval_transforms": ({"name": "resize", "size": (8, 8)},)}
    opened = runs.open(trained, overrides=resized)
    files = runs.image_files([str(pictures)])
    results = {}
    for size in (1, 4, 32):
        monkeypatch.setattr(predicting, "_BATCH", size)
        results[size] = list(runs.predict_files(opened, files))
    for found in results.values():
        assert isinstance(found[3], CorruptImageError)
        assert found[3].name == str(files[3])
        kept = [p for p in found if isinstance(p, Prediction)]
        assert [p.file for p in kept] == [*files[:3], *files[4:]]
        assert [p.image.shape for p in kept] == [
            (8 + i, 20 - i, 1) for i in (0, 1, 2, 4, 5, 6)
        ]  # fmt: skip
        for one, other in zip(results[1], found):
            if isinstance(one, Prediction):
                np.testing.assert_array_equal(one.network_image, other.network_image)
                np.testing.assert_allclose(
                    one.outputs["probabilities"], other.outputs["probabilities"], rtol=1e-5
                )
    tops = {p.outputs["label"].item() for p in results[1] if isinstance(p, Prediction)}
    assert len(tops) > 1  # else order would not show


def test_images_of_several_network_sizes_go_in_batches_of_their_own(tmp_path):
    config = tasks.default_config()
    config.model.name, config.data.classes = "resnet8_cifar", ("a", "b")
    config.data.eval_transforms = ()
    task = tasks.create(config, Facts(config.data.classes))
    weights = str(tmp_path / "w.safetensors")
    torch_weights.save(
        weights, jax.jit(lambda: task.init(jax.random.key(0), image_spec((8, 8, 3))))()
    )
    rng = np.random.default_rng(0)
    for index, size in enumerate((8, 8, 12, 8)):
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    files = runs.image_files([str(tmp_path)])
    opened = runs.with_weights(config, weights)
    found = list(runs.predict_files(opened, files))
    assert [p.network_image.shape[0] for p in found] == [8, 8, 12, 8]
    (alone,) = runs.predict_files(opened, files[3:])
    np.testing.assert_allclose(
        found[3].outputs["probabilities"], alone.outputs["probabilities"], rtol=1e-5
    )


def test_classes_must_be_known():
    config = tasks.default_config()
    with pytest.raises(UserError, match=r"at least two classes; the data have 0"):
        next(runs.predict_files(runs.with_weights(config, "w.safetensors"), [Path("x.png")]))


def test_arrays_and_files_are_predicted_in_their_order(trained, tmp_path):
    opened = runs.open(trained)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (8, 8, 1), dtype=np.uint8) for _ in range(3)]
    Image.fromarray(images[1][..., 0]).save(tmp_path / "one.png")
    found = opened.predict([images[0], tmp_path / "one.png", images[2][..., 0]])
    alone = [opened.predict([image])[0] for image in images]
    for one, other in zip(found, alone):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_allclose(
            one.outputs["probabilities"], other.outputs["probabilities"], rtol=1e-5
        )
    assert [p.file for p in found] == [None, tmp_path / "one.png", None]
    with pytest.raises(UserError, match=r"uint8 \[h, w, 1\], not float64 \[8, 8, 3\]"):
        opened.predict([np.zeros((8, 8, 3))])
    assert opened.predict([]) == []


@pytest.mark.parametrize(
    ("checkpoint", "step"), [("latest", 12), ("best", 4), ("8", 8), ("tested", 4)]
)
def test_the_checkpoint_asked_for_is_the_one_used(trained, checkpoint, step):
    import orbax.checkpoint as ocp

    found = runs.open(trained, checkpoint).variables
    with ocp.StandardCheckpointer() as reader:
        stored = reader.restore(trained / "checkpoints" / str(step) / "state")
    kernel = found["params"]["0"]["kernel"]
    np.testing.assert_array_equal(
        kernel, stored["ema"]["params"]["0"]["kernel"]
    )  # the averaged ones
    assert not np.array_equal(kernel, stored["params"]["0"]["kernel"])


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("7", r"No checkpoint of step 7 .*4, 8, 12"), ("lastest", "Did you mean 'latest'")],
)
def test_a_checkpoint_that_is_not_there(trained, checkpoint, message):
    with pytest.raises(UserError, match=message):
        runs.open(trained, checkpoint)


def test_a_workdir_without_a_run_or_a_checkpoint(trained, tmp_path):
    with pytest.raises(UserError, match=r"No run in .*has no config\.json"):
        runs.open(tmp_path)
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    with pytest.raises(UserError, match="No checkpoint in"):
        runs.open(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_evaluating_uses_the_averaged_weights_and_equals_the_run(trained):
    records = [json.loads(s) for s in (trained / "metrics.jsonl").read_text().splitlines()]
    wanted = {r["step"]: r for r in records if r["split"] == "validation"}
    for checkpoint in (4, 8, 12):
        result, sums = runs.open(trained, str(checkpoint)).evaluate("train[:100]")
        assert result["accuracy"] == wanted[checkpoint]["accuracy"]
        assert result["loss"] == pytest.approx(wanted[checkpoint]["loss"], rel=1e-5)
        assert int(sums["accuracy"].count) == 100


# -- writing --------------------------------------------------------------------------------------


def prediction(file, **outputs):
    image = np.full((6, 9, 3), 77, np.uint8)
    outputs = outputs or {"probabilities": np.array([0.25, 0.75]), "label": np.int32(1)}
    return Prediction(image, image, outputs, Geometry.identity(image.shape[:2]), file)


def run_of(task, names):
    """A run whose network is never asked."""
    config = tasks.default_config(task)
    config.model.name = {"classification": "mlp", "segmentation": "unet_small"}[task]
    config.data.classes = names
    return runs.with_weights(config, "none.safetensors")


def written(folder):
    names = [p["picture"] for p in json.loads((folder / "predictions.json").read_text())]
    assert all((folder / name).is_file() for name in names)
    return names


def test_files_of_the_same_name_get_pictures_of_their_own(tmp_path):
    files = ["a/x.jpg", "b/x.png", "x-2.jpg", "/elsewhere/../x.gif"]
    out = tmp_path / "out"
    cats = run_of("classification", ("cat", "dog"))
    runs.write_predictions(
        cats, [prediction(Path(f)) for f in files], out, [Path(f) for f in files]
    )
    names = written(out)
    assert len(set(names)) == 4
    assert {p.name for p in out.iterdir()} == {*names, "predictions.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # nothing lands beside it
    entry = json.loads((out / "predictions.json").read_text())[0]
    assert entry == {
        "file": "a/x.jpg",
        "classes": [{"name": "dog", "probability": 0.75}, {"name": "cat", "probability": 0.25}],
        "picture": "x.png",
    }


def test_masks_and_pictures_do_not_collide(tmp_path):
    labels = {"segmentation": np.eye(6, 9, dtype=np.int32), "probability": np.ones((6, 9))}
    files = [Path("x.jpg"), Path("x-classes.jpg")]
    pixels = run_of("segmentation", ("a", "b"))
    runs.write_predictions(pixels, [prediction(f, **labels) for f in files], tmp_path, files)
    pairs = [(name, name.replace(".png", "-classes.png")) for name in written(tmp_path)]
    assert len({name for pair in pairs for name in pair}) == 4
    for picture, indices in pairs:
        assert Image.open(tmp_path / picture).mode == "RGB"
        stored = Image.open(tmp_path / indices)
        assert (stored.mode, stored.size) == ("P", (9, 6))
        assert set(np.unique(np.asarray(stored))) == {0, 1}
    (first, _) = json.loads((tmp_path / "predictions.json").read_text())
    assert {c["name"]: c["share"] for c in first["classes"]} == {"a": 0.888889, "b": 0.111111}


def test_the_images_themselves_are_never_overwritten(tmp_path):
    for name in ("photo.png", "other.jpg"):
        Image.new("RGB", (9, 6), "red").save(tmp_path / name)
    before = (tmp_path / "photo.png").read_bytes()
    files = [tmp_path / "photo.png", tmp_path / "other.jpg"]
    for _ in range(2):  # a second call replaces what the first one wrote
        cats = run_of("classification", ("cat", "dog"))
        runs.write_predictions(cats, [prediction(f) for f in files], tmp_path, files)
        assert written(tmp_path) == ["photo-2.png", "other.png"]
    assert (tmp_path / "photo.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 5


def test_photographs_and_volumes_by_tiles(tmp_path):
    """At their own size, whatever it is; class indices and a picture of each."""
    from jaxvision import models

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    np.save(tmp_path / "scan.npy", rng.integers(0, 256, (20, 18, 22), np.uint8))
    cases = (
        ("unet_small", {"width": 4, "depth": 2}, 3, "photo.png", (32,), (70, 50)),
        (
            "vnet",
            {"width": 2, "depths": (1, 1), "up_depths": (1,)},
            1,
            "scan.npy",
            (8, 16, 16),
            (20, 18, 22),
        ),
    )
    for name, options, channels, file, tile, size in cases:
        config = tasks.default_config("segmentation")
        config.data.channels = channels
        config.data.classes = ("a", "b", "c")
        config.model.name, config.model.options = name, options
        network = models.create(name, 3, **options)
        image = jax.ShapeDtypeStruct((1, *[16] * len(size), channels), np.float32)
        like = jax.eval_shape(network.init, jax.random.key(0), image)
        variables = jax.tree.map(lambda p: rng.normal(0, 0.3, p.shape).astype(p.dtype) ** 2, like)
        weights = tmp_path / f"{name}.safetensors"
        torch_weights.save(weights, variables, models.variant(name).export)
        opened = runs.with_weights(config, str(weights))
        path = tmp_path / file
        (found,) = runs.predict_files(opened, [path], tile=tile)
        assert found.outputs["segmentation"].shape == size
        runs.write_predictions(opened, [found], tmp_path / "out", [path])
        with pytest.raises(UserError, match=f"Tiles of {name} have {len(size)} sides"):
            list(runs.predict_files(opened, [path], tile=(8, 8, 8, 8)))
    labels = np.load(tmp_path / "out" / "scan-classes.npy")
    np.testing.assert_array_equal(labels, found.outputs["segmentation"])
    width, height = Image.open(tmp_path / "out" / "scan.png").size  # over its legend
    assert width >= 22
    assert height > 18
    assert Image.open(tmp_path / "out" / "photo-classes.png").size == (50, 70)


def test_masks_of_padded_images_fall_on_the_photograph(tmp_path):
    """As the configurations of VOC and ADE20k prepare images: padded, and resized before."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 3, (5, 7)), np.ones((4, 4), int)).astype(np.int32)
    assert truth.shape == (20, 28)
    pixels = run_of("segmentation", ("a", "b", "c"))
    for shrunk in (False, True):
        geometry, labels = Geometry.identity((20, 28)), truth
        if shrunk:
            geometry, labels = Geometry.resize((20, 28), (10, 14)), truth[::2, ::2]
        height, width = labels.shape
        geometry = geometry.then(Geometry.pad((height, width), 6, 9, 33, 40))
        seen = np.zeros((33, 40), np.int32)  # padding is taken for the first class
        seen[6 : 6 + height, 9 : 9 + width] = labels
        image = np.zeros((20, 28, 3), np.uint8)
        outputs = {"segmentation": seen, "probability": np.ones((33, 40))}
        one = Prediction(image, np.zeros((33, 40, 3), np.uint8), outputs, geometry, Path("p.jpg"))
        runs.write_predictions(pixels, [one], tmp_path, [Path("p.jpg")])
        stored = np.asarray(Image.open(tmp_path / "p-classes.png"))
        np.testing.assert_array_equal(stored, truth)
        (entry,) = json.loads((tmp_path / "predictions.json").read_text())
        shares = {c["name"]: c["share"] for c in entry["classes"]}
        expected = {name: (truth == k).mean() for k, name in enumerate("abc")}
        assert shares == pytest.approx(expected, abs=1e-6)


def test_more_classes_than_255_are_written_in_16_bits(tmp_path):
    geometry = Geometry.crop((6, 9), 1, 2, 4, 5)
    found = np.resize(np.array([0, 43, 255, 299], np.int32), (4, 5))
    outputs = {"segmentation": found, "probability": np.ones((4, 5))}
    image = np.zeros((6, 9, 3), np.uint8)
    one = Prediction(image, image[1:5, 2:7], outputs, geometry, Path("c.jpg"))
    pixels = run_of("segmentation", tuple(f"class {k}" for k in range(300)))
    runs.write_predictions(pixels, [one], tmp_path, [Path("c.jpg")])
    stored = decode_mask((tmp_path / "c-classes.png").read_bytes())
    np.testing.assert_array_equal(stored[1:5, 2:7], found)
    assert (stored == 65535).sum() == 6 * 9 - 4 * 5
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    assert {c["name"]: c["share"] for c in entry["classes"]} == {
        f"class {k}": 0.25 for k in (0, 43, 255, 299)
    }
    drawn = np.asarray(Image.open(tmp_path / "c.png"))[1:5, 2:7].reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) == 4  # 299 has not the colour of 43, nor 255 that of void


def test_photographs_above_the_limit_are_named_with_the_remedy(tmp_path):
    Image.new("L", (9, 6)).save(tmp_path / "large.png")
    config = tasks.default_config("segmentation")
    config.model.name, config.data.classes = "unet_small", ("a", "b")
    config.data.max_image_pixels = 53
    opened = runs.with_weights(config, "none.safetensors")
    (error,) = runs.predict_files(opened, [tmp_path / "large.png"])
    assert "9x6 pixels" in error.reason
    assert "data.max_image_pixels=53. Raise it to 54" in error.reason


def test_folders_are_walked_as_those_of_training(tmp_path):
    Image.new("L", (9, 6)).save(tmp_path / "a.png")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    Image.new("L", (9, 6)).save(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    (tmp_path / "._a.png").write_bytes(b"of macOS")
    (tmp_path / "again").symlink_to(tmp_path)
    assert runs.image_files([str(tmp_path)]) == [tmp_path / "a.png"]


def test_what_a_crop_leaves_out_is_of_no_class(tmp_path):
    geometry = Geometry.crop((6, 9), 1, 2, 4, 5)
    outputs = {"segmentation": np.ones((4, 5), np.int32), "probability": np.ones((4, 5))}
    image = np.zeros((6, 9, 3), np.uint8)
    one = Prediction(image, image[1:5, 2:7], outputs, geometry, Path("c.jpg"))
    pixels = run_of("segmentation", ("a", "b"))
    runs.write_predictions(pixels, [one], tmp_path, [Path("c.jpg")])
    stored = np.asarray(Image.open(tmp_path / "c-classes.png"))
    assert (stored[1:5, 2:7] == 1).all()
    assert (stored == 255).sum() == 6 * 9 - 4 * 5
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    assert entry["classes"] == [{"name": "b", "share": 1.0}]


def segmenter(tmp_path, transforms=(), name="unet", **options):
    """A small segmentation network with weights in a file."""
    config = tasks.default_config("segmentation")
    config.model.name, config.model.options = name, options or {"width": 2, "depth": 2}
    config.data.classes, config.data.eval_transforms = ("a", "b", "c"), transforms
    shapes = jax.eval_shape(
        lambda: tasks.create(config, Facts(config.data.classes)).init(
            jax.random.key(0), image_spec((64, 64, 3))
        )
    )
    weights = str(tmp_path / "network.safetensors")
    tensors = torch_weights.torch_shapes(shapes)
    save_file({key: deterministic.weights(key, one) for key, one in tensors.items()}, weights)
    return runs.with_weights(config, weights)


EIGHT = ((50, 64), (60, 40), (33, 64), (64, 64), (65, 40), (90, 64), (100, 50), (70, 70))


def test_photographs_of_eight_sizes_compile_few_programs(tmp_path):
    opened, rng, said = segmenter(tmp_path), np.random.default_rng(0), []
    for index, size in enumerate(EIGHT):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "4b.png").write_bytes(b"no image")
    files = runs.image_files([str(tmp_path)])

    @contextlib.contextmanager
    def compiling(what):
        said.append(what)
        yield

    found = list(runs.predict_files(opened, files, compiling=compiling))
    assert sorted(said) == [f"Compiling for images of {size}" for size in
                            ("128x128", "128x64", "64x64")]  # fmt: skip
    assert isinstance(found.pop(5), CorruptImageError)
    assert [p.image.shape[:2] for p in found] == list(EIGHT)  # in their order
    report = tasks.report("segmentation")
    for one, size in zip(found, EIGHT):
        padded = tuple(-(-side // 64) * 64 for side in size)
        assert one.network_image.shape[:2] == one.outputs["segmentation"].shape == padded
        np.testing.assert_array_equal(one.network_image[: size[0], : size[1]], one.image)
        labels = report.labels_of(opened.task, one)
        np.testing.assert_array_equal(labels, one.outputs["segmentation"][: size[0], : size[1]])


def test_padding_changes_nothing_far_from_it(tmp_path):
    """The network sees 22 pixels to each side; what is farther from the padding is the same."""
    opened = segmenter(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    (padded,), (alone,) = opened.predict([image]), opened.predict([image], pad_to=1)
    assert padded.network_image.shape == (128, 128, 3)
    assert alone.network_image.shape == (120, 100, 3)
    np.testing.assert_array_equal(padded.network_image[120:, :100], image[:111:-1])
    inside = (slice(0, 98), slice(0, 78))
    for name in ("segmentation", "probability"):
        ours, theirs = padded.outputs[name][inside], alone.outputs[name][inside]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    (whole,) = opened.predict([padded.network_image])  # a multiple already
    np.testing.assert_array_equal(whole.outputs["segmentation"], padded.outputs["segmentation"])


@pytest.mark.parametrize(
    ("transforms", "name", "options"),
    [
        # All images get one size; or the parameters depend on the size.
        (({"name": "resize", "size": (48, 40)},), "unet", {"width": 2, "depth": 2}),
        ((), "upernet_beit_base", {
            "encoder_options": {"depth": 4, "width": 24, "num_heads": 2,
                                "out_blocks": (0, 1, 2, 3)},
            "width": 16, "auxiliary_width": 8}),
    ],
)  # fmt: skip
def test_images_are_padded_only_where_it_pays_and_changes_nothing(
    tmp_path, transforms, name, options
):
    opened = segmenter(tmp_path, transforms, name, **options)
    record = {"image": np.zeros((64, 96, 3), np.uint8), "geometry": Geometry.identity((64, 96))}
    prepared = opened.prepare(record, np.random.default_rng(0))
    assert predicting._Batches(opened, 1)._padded(prepared) is prepared
    assert prepared["image"].shape == ((48, 40, 3) if transforms else (64, 96, 3))


def test_padding_must_be_possible(tmp_path):
    with pytest.raises(UserError, match="multiples of 0"):
        segmenter(tmp_path).predict([np.zeros((8, 8, 3), np.uint8)], pad_to=0)


def test_batches_have_so_many_pixels_at_most(tmp_path, monkeypatch):
    opened = segmenter(tmp_path)
    batches = predicting._Batches(opened, 32)
    assert batches._batch_size((64, 64, 3)) == 32
    assert batches._batch_size((512, 1024, 3)) == 4
    assert batches._batch_size((4096, 4096, 3)) == 1


@pytest.mark.slow
def test_padding_changes_few_labels_of_photographs(shared_data):
    """ESPNet's published weights on crops of real frames; blue comes first there."""
    config = tasks.default_config("segmentation")
    config.model.name, config.data.eval_transforms = "espnet", ()
    config.data.classes = tuple(f"class {index}" for index in range(12))
    config.data.mean = tuple(n / 255 for n in (110.33102643, 108.40886315, 105.03319369))
    config.data.std = (72.12571015, 72.69074534, 69.90434816)
    folder = shared_data / "weights" / "espnet_camvid"
    opened = runs.with_weights(config, str(folder / "espnet_p_2_q_8_camvid.pth"))
    same, right = [], {1: [], 64: []}
    for file in sorted((shared_data / "camvid" / "test").glob("*.png"))[::24][:8]:
        image = np.asarray(Image.open(file).convert("RGB"))[..., ::-1]
        truth = np.asarray(Image.open(shared_data / "camvid" / "testannot" / file.name))
        for height, width in ((300, 400), (270, 480), (333, 451)):
            true, found = truth[-height:, :width], {}
            for pad_to in right:
                (one,) = opened.predict([image[-height:, :width]], pad_to=pad_to)
                found[pad_to] = one.outputs["segmentation"][:height, :width]
                right[pad_to].append((found[pad_to] == true)[true < 11].mean())
            same.append((found[1] == found[64]).mean())
    assert np.mean(same) > 0.95
    assert np.mean(right[64]) > np.mean(right[1]) - 0.005
