import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from jaxvision import presets
from jaxvision.data.builders import BUILDERS, Shapes, ShapesConfig
from jaxvision.data.builders.drawing import CLASSES, COLOURS, DOMINANCE, KEYPOINTS, draw
from jaxvision.data.builders.drawn import FIRST_TEST_INDEX
from jaxvision.errors import UserError

SIZE = 64


@pytest.fixture(scope="module")
def records():
    return [draw(seed=0, index=index, size=SIZE) for index in range(1500)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


def test_record_depends_on_seed_index_and_size_alone(records):
    for index in (0, 7, 1499):
        again = draw(0, index, SIZE)
        assert again.keys() == records[index].keys()
        for key, value in again.items():
            np.testing.assert_array_equal(value, records[index][key])
    assert (draw(1, 0, SIZE)["image"] != records[0]["image"]).any()
    assert (records[1]["image"] != records[0]["image"]).any()


def test_a_scene_is_the_same_at_any_size(records):
    for index in range(20):
        small, large = records[index], draw(0, index, 2 * SIZE)
        assert small["label"] == large["label"]
        if small["box_label"].tolist() == large["box_label"].tolist():
            np.testing.assert_allclose(2 * small["boxes"], large["boxes"], atol=6)


def test_shapes_and_types(records):
    for record in records[:100]:
        n = len(record["boxes"])
        assert 1 <= n <= 6
        assert record["image"].shape == (SIZE, SIZE, 3)
        assert record["image"].dtype == record["instances"].dtype == np.uint8
        assert record["boxes"].shape == (n, 4)
        assert record["boxes"].dtype == record["keypoints"].dtype == np.float32
        assert record["box_label"].shape == (n,)
        assert record["keypoints"].shape == (n, KEYPOINTS, 3)


def test_boxes_are_tight_around_visible_pixels(records):
    for record in records:
        numbers = np.unique(record["instances"])
        np.testing.assert_array_equal(numbers[numbers > 0], 1 + np.arange(len(record["boxes"])))
        for number, box in enumerate(record["boxes"], start=1):
            rows, columns = np.nonzero(record["instances"] == number)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(box, tight)


def test_segmentation_is_the_classes_of_the_instances(records):
    for record in records:
        classes = np.concatenate([[0], record["box_label"] + 1])
        np.testing.assert_array_equal(record["segmentation"], classes[record["instances"]])


def test_label_is_the_class_of_the_dominant_object(records):
    for record in records:
        visible = np.bincount(record["instances"].ravel())[1:]
        assert record["label"] == record["box_label"][visible.argmax()]
        largest = np.sort(visible)[::-1]
        assert len(largest) == 1 or largest[0] >= DOMINANCE * largest[1]


def test_keypoints_lie_inside_the_image_when_visible(records):
    solid = [CLASSES.index(name) for name in ("circle", "square", "triangle", "star", "cross")]
    hits, seen = 0, 0
    for record in records:
        for number, points in enumerate(record["keypoints"], start=1):
            points = points[points[:, 2] > 0, :2]
            assert ((points >= 0) & (points < SIZE)).all()
            column, row = points.astype(int).T
            assert (record["instances"][row, column] <= number).all()
            if record["box_label"][number - 1] in solid:
                hits += (record["instances"][row, column] == number).sum()
                seen += len(points)
    assert hits / seen > 0.97  # the points are on the object, but for the corners of tiny ones
    shown = np.concatenate([record["keypoints"][..., 2].ravel() for record in records])
    assert 0.6 < shown.mean() < 0.98
    assert set(np.unique(shown)) == {0.0, 1.0}


def test_captions_mention_what_is_there(records):
    for record in records:
        visible = np.bincount(record["instances"].ravel())[1:]
        order = np.argsort(-visible, kind="stable")
        words = record["caption"].rstrip(".").replace(",", "").split()
        named = [word for word in words if word in CLASSES]
        assert named == [CLASSES[c] for c in record["box_label"][order[:3]]]
        assert sum(word in COLOURS for word in words) == len(named)
        assert ("more" in words) == (len(order) > 3)
        assert record["caption"][0] == "A"
        assert record["caption"][-1] == "."


def test_classes_and_counts_are_balanced(records):
    labels = np.bincount([record["label"] for record in records], minlength=len(CLASSES))
    assert labels.min() > 0.65 * len(records) / len(CLASSES)
    assert labels.max() < 1.35 * len(records) / len(CLASSES)
    counts = np.bincount([len(record["boxes"]) for record in records])[1:]
    assert len(counts) == 6
    assert counts.min() > 0.02 * len(records)


def test_colour_does_not_give_the_class_away(records):
    colour = np.array([record["image"].mean((0, 1)) for record in records])
    masked = np.array(
        [
            record["image"][record["segmentation"] == record["label"] + 1].mean(0)
            for record in records
        ]
    )
    label = np.array([record["label"] for record in records])
    for features in (colour, masked):
        forest = RandomForestClassifier(60, random_state=0).fit(features[:1000], label[:1000])
        assert forest.score(features[1000:], label[1000:]) < 0.2


def test_builder_reads_back_what_was_drawn(data_dir):
    config = ShapesConfig(size=32, train=12, test=5, seed=3)
    assert config.name == "32px_12_5_seed3"
    builder = Shapes(data_dir=data_dir, config=config, file_format="array_record")
    builder.download_and_prepare()
    for split, first, count in (("train", 0, 12), ("test", FIRST_TEST_INDEX, 5)):
        source = builder.as_data_source(split=split)
        assert len(source) == count
        for position in range(count):
            record, drawn = source[position], draw(3, first + position, 32)
            assert record["caption"].decode() == drawn["caption"]
            assert record["label"] == drawn["label"]
            for key in ("image", "boxes", "box_label", "keypoints"):
                np.testing.assert_array_equal(record[key], drawn[key])
                assert record[key].dtype == drawn[key].dtype
            for key in ("instances", "segmentation"):
                np.testing.assert_array_equal(record[key][..., 0], drawn[key])
    assert builder.info.features["label"].names == CLASSES


def test_two_builds_have_the_same_bytes(tmp_path):
    files = []
    for name in ("first", "second"):
        config = ShapesConfig(size=16, train=3, test=2)
        builder = Shapes(data_dir=tmp_path / name, config=config, file_format="array_record")
        builder.download_and_prepare()
        files.append(sorted((tmp_path / name).rglob("*.array_record*")))
    assert len(files[0]) == 2
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_default_and_impossible_configurations(data_dir):
    assert BUILDERS["shapes"] is Shapes
    assert Shapes(data_dir=data_dir).builder_config.name == "64px_4000_1000_seed0"
    same = Shapes(data_dir=data_dir, config=ShapesConfig(train=4000))
    assert same.builder_config.name == "64px_4000_1000_seed0"
    with pytest.raises(UserError, match="size is 8; expected an integer from 16"):
        ShapesConfig(size=8)
    with pytest.raises(UserError, match="train is 0"):
        ShapesConfig(train=0)


def test_the_names_that_configurations_give_the_shapes():
    assert list(presets.SHAPES) == CLASSES
