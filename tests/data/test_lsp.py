"""Leeds Sports Pose Extended: its layout by hand, and the real data where they are."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from jaxvision.data.sources import open_split
from jaxvision.data.sources.lsp import NAMES
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config


def config(root, **keys):
    data = default_config("pose").data
    data.source, data.dir, data.max_instances = "lsp", str(root), 1
    data.eval_transforms = ({"name": "crop_object", "size": 32},)
    for key, value in keys.items():
        data[key] = value
    return data


@pytest.fixture
def root(tmp_path):
    """Eight images of a file of nine; in the fourth nothing is labelled."""
    rng = np.random.default_rng(0)
    joints = np.ones((14, 3, 9))
    joints[:, :2] = rng.uniform(10, 30, (14, 2, 9))
    joints[3, :, 0] = [-1e4, np.nan, 0]
    joints[:, 2, 3] = 0
    savemat(tmp_path / "joints.mat", {"joints": joints})
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3, 4, 5, 6, 7, 9):
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / f"im{number:05}.jpg")
    (tmp_path / "images" / "notes.txt").touch()
    return tmp_path, joints


def test_records(root):
    folder, joints = root
    train, test = (open_split(config(folder), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 2)
    assert [train.name(0)[-11:], test.name(1)[-11:]] == ["im00001.jpg", "im00009.jpg"]
    assert train.class_names == ("person",)
    first = train[0]
    labelled = np.arange(14) != 3
    np.testing.assert_allclose(
        first["keypoints"][0, labelled, :2], joints[labelled, :2, 0] - 0.5, rtol=1e-6
    )
    assert first["keypoints"][0, :, 2].tolist() == labelled.tolist()
    assert not first["keypoints"][0, 3].any()
    low, high = (getattr(joints[labelled, :2, 0] - 0.5, side)(0) for side in ("min", "max"))
    border = 0.1 * (high - low).max()
    np.testing.assert_allclose(first["boxes"], [[*(low - border), *(high + border)]], rtol=1e-5)
    assert len(train[3]["boxes"]) == 0
    np.testing.assert_allclose(test[1]["keypoints"][0, :, :2], joints[:, :2, 8] - 0.5, rtol=1e-6)
    cut = open_split(config(folder), "train[:50%]+test[1:]")
    assert len(cut) == 4
    wide = open_split(config(folder, options={"margin": 0.5}), "train")[0]["boxes"]
    assert (wide[0, :2] < first["boxes"][0, :2]).all()


def test_facts_name_joints_and_exchange_sides(root):
    facts = open_split(config(root[0]), "train").facts
    assert facts.keypoint_names == NAMES
    for left, right in facts.keypoint_pairs:
        assert NAMES[left].replace("left", "right") == NAMES[right]
    assert sorted(sum(facts.keypoint_pairs, ())) == [i for i in range(14) if "t " in NAMES[i]]
    joined = {frozenset(NAMES[i].split()[-1] for i in limb) for limb in facts.skeleton}
    assert {frozenset(("ankle", "knee")), frozenset(("shoulder", "hip"))} <= joined
    order = facts.keypoint_order
    for first, second in facts.skeleton:  # the mirror image has the same limbs
        mirrored = {order[first], order[second]}
        assert any(mirrored == set(limb) for limb in facts.skeleton)


def test_batches_are_crops_of_the_person(root):
    stream = open_stream(config(root[0]), "test", seed=0, train=False, annotations=("instances",))
    batch = stream.batch(range(2))
    assert batch["image"].shape == (2, 32, 32, 3)
    assert batch["keypoints"].shape == (2, 1, 14, 3)
    np.testing.assert_allclose(batch["boxes"].max((1, 2)) - batch["boxes"].min((1, 2)), 25.6, 1e-4)


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda f: (f / "joints.mat").unlink(), "No file .*joints.mat; expected"),
        (lambda f: (f / "joints.mat").write_bytes(b"x" * 300), "no file of MATLAB"),
        (lambda f: savemat(f / "joints.mat", {"joint": np.zeros(3)}), "has the shape None"),
        (
            lambda f: savemat(f / "joints.mat", {"joints": np.zeros((3, 14, 9))}),
            r"has the shape \[3, 14, 9\]; expected \[14, 3, images\]",
        ),
        (
            lambda f: savemat(f / "joints.mat", {"joints": np.zeros((14, 3, 8))}),
            "images 1 to 8; there are images 1 to 9",
        ),
        (
            lambda f: savemat(f / "joints.mat", {"joints": np.full((14, 3, 9), np.inf)}),
            "not finite",
        ),
        (lambda f: [p.unlink() for p in (f / "images").glob("*.jpg")], "No image in"),
        (lambda f: (f / "images").rename(f / "pictures"), "No folder .*images; expected"),
    ],
)
def test_what_is_wrong_is_said(root, break_, message):
    break_(root[0])
    with pytest.raises(UserError, match=message):
        open_split(config(root[0]), "train")


def test_other_splits_are_refused(root):
    with pytest.raises(UserError, match=r"split of lsp 'tst'.*'test'"):
        open_split(config(root[0]), "tst")


def test_the_real_data(shared_data):
    root = shared_data / "lsp_extended"
    if not root.is_dir():
        pytest.skip("needs lsp_extended")
    train, test = (open_split(config(root), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (150, 50)
    stream = open_stream(config(root), "test", seed=0, train=False, annotations=("instances",))
    batch = stream.batch(range(8))
    points = batch["keypoints"][:, 0]
    labelled = points[..., 2] > 0
    assert labelled.mean() > 0.5
    assert ((points[labelled][:, :2] >= 0) & (points[labelled][:, :2] < 32)).all()
    # The lower leg is rarely longer than half of the person's box.
    shin = np.linalg.norm(points[:, 0, :2] - points[:, 1, :2], axis=-1)
    assert np.median(shin[labelled[:, 0] & labelled[:, 1]]) < 16
