"""Fetching published weights: names, caches, checksums and what is said when it fails."""

import hashlib
import json
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import published as module
from jaxvision.interop.published import (
    class_names,
    hub_file,
    published,
    resolve,
    url_file,
)
from jaxvision.interop.weight_files import read_state_dict
from jaxvision.presets import COCO_CLASSES


@pytest.fixture
def offline_hub(tmp_path, monkeypatch):
    """A local Hub cache with one repository, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(repository, revision="main"):
        file = tmp_path / "model.safetensors"
        save_file({"a.weight": np.arange(6.0).reshape(2, 3)}, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        for part in ("blobs", "refs", "snapshots/c0ffee"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        blob = folder / "blobs" / digest
        blob.write_bytes(file.read_bytes())
        (folder / "refs" / revision).write_text("c0ffee")
        (folder / "snapshots/c0ffee/model.safetensors").symlink_to(blob)
        return blob

    return add


def test_the_table():
    table = module._table()
    assert set(table) <= set(models.names())
    assert len(table) > 40
    entry = published("resnet50")["tv_in1k"]
    assert entry.hub == "timm/resnet50.tv_in1k"
    assert entry.classes == 1000
    assert entry.mean == (0.485, 0.456, 0.406)
    first = next(iter(published("resnet50").values()))
    assert first.url.startswith("https://")
    assert published("lenet5") == {}


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_torchvisions_inceptions_take_images_in_minus_one_to_one(name):
    # Its constructors turn ImageNet's normalisation into this one when they load these weights.
    entry = published(name)["IMAGENET1K_V1"]
    assert (entry.mean, entry.std) == ((0.5,) * 3, (0.5,) * 3)


def test_files_of_segmentation_networks():
    entry = published("deeplabv3_resnet101")["COCO_WITH_VOC_LABELS_V1"]
    assert entry.url.endswith("/deeplabv3_resnet101_coco-586e9e4e.pth")
    assert (entry.size, entry.crop, entry.classes, entry.labels) == (520, 0, 21, "voc")
    entry = published("upernet_beit_large")["ade20k"]
    assert entry.hub == "microsoft/beit-large-finetuned-ade-640-640"
    assert (entry.size, entry.square, entry.labels) == (640, True, "ade20k")
    for entries in module._table().values():
        for entry in entries.values():
            if entry.labels:
                assert len(class_names(entry.labels)) == entry.classes


def test_files_of_detectors():
    entry = published("fasterrcnn_resnet50_fpn")["COCO_V1"]
    assert entry.url.endswith("/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    assert (entry.size, entry.longest, entry.antialias) == (800, 1333, False)
    assert (entry.classes, entry.labels) == (90, "coco")
    # These learn the background as one of the classes.
    assert published("fcos_resnet50_fpn")["COCO_V1"].labels == "coco_ids"
    ssd = published("ssd300_vgg16")["COCO_V1"]
    assert (ssd.size, ssd.square, ssd.std) == (300, True, (1 / 255,) * 3)
    assert published("detr_resnet50_dc5")["coco"].hub == "facebook/detr-resnet-50-dc5"
    assert published("yolos_tiny")["coco"].size == 512
    assert published("tf_efficientdet_d7")["coco"].size == 1536


def test_files_of_captioning_networks(offline_hub, tmp_path):
    entry = published("vit_gpt2")["coco"]
    assert (entry.hub, entry.classes) == ("nlpconnect/vit-gpt2-image-captioning", 50257)
    assert (entry.size, entry.square, entry.mean) == (224, True, (0.5,) * 3)
    blob = offline_hub(entry.hub)
    path, about = resolve("default", "vit_gpt2")
    assert (path.resolve(), about) == (blob, entry)
    assert resolve(entry.hub, "vit_gpt2") == (path, entry)
    with pytest.raises(UserError, match=rf"Cannot fetch tokenizer\.json of {entry.hub}"):
        hub_file(entry.hub, names=(entry.tokenizer,))
    (path.parent / "tokenizer.json").write_text("{}")
    assert hub_file(entry.hub, names=(entry.tokenizer,)).read_text() == "{}"


def test_class_names():
    names = class_names("imagenet")
    assert len(names) == 1000
    assert names[0] == "tench"
    assert names[281] == "tabby"
    assert names[-1] == "toilet tissue"
    assert class_names("voc")[:2] == ("background", "aeroplane")
    assert class_names("ade20k")[::149] == ("wall", "flag")
    assert len(set(class_names("ade20k"))) == 150
    # COCO's ids, of which its 80 classes are a part.
    ids = class_names("coco_ids")
    assert (len(ids), ids[0], ids[1], ids[18], ids[90]) == (
        *(91, "background", "person", "dog", "toothbrush"),
    )
    assert [name for name in class_names("coco") if name in COCO_CLASSES] == list(COCO_CLASSES)


def test_a_file_is_itself(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"x")
    assert resolve(str(path)) == (path, None)


@pytest.mark.parametrize("name", ["tv_in1k", "resnet50.tv_in1k", "timm/resnet50.tv_in1k"])
def test_names_on_the_hub(offline_hub, name):
    blob = offline_hub("timm/resnet50.tv_in1k")
    path, known = resolve(name, "resnet50")
    assert path.resolve() == blob
    assert known == published("resnet50")["tv_in1k"]


def test_revisions(offline_hub):
    offline_hub("someone/network", revision="v2")
    assert resolve("hf:someone/network@v2")[0].name == "model.safetensors"
    with pytest.raises(UserError, match=r"someone/network from the Hub: not in the local cache"):
        resolve("someone/network")


def test_shards_on_the_hub(offline_hub, tmp_path):
    folder = offline_hub("someone/network").parents[1] / "snapshots/c0ffee"
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "one.safetensors"}}))
    assert read_state_dict(resolve("someone/network")[0])["a.weight"].shape == (2, 3)
    (folder / "one.safetensors").unlink()
    with pytest.raises(UserError, match="not in the local cache"):
        resolve("someone/network")


def test_without_a_network_the_cache_answers_at_once(offline_hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    blob = offline_hub("someone/network")
    begin = time.monotonic()
    assert resolve("someone/network")[0].resolve() == blob
    with pytest.raises(UserError, match=r"the Hub cannot be reached"):
        resolve("someone/other")
    assert time.monotonic() - begin < 5


def test_a_damaged_file_of_the_hub(offline_hub):
    blob = offline_hub("someone/network")
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"is damaged: its SHA-256"):
        resolve("someone/network")


def test_unknown_tags_come_with_the_nearest():
    with pytest.raises(UserError, match=r"weights of resnet50 'tv_in2k'.*'tv_in1k'"):
        resolve("tv_in2k", "resnet50")
    with pytest.raises(UserError, match="No published weights of 'lenet5' are known"):
        resolve("default", "lenet5")
    with pytest.raises(UserError, match=r"No weights file nowhere/x\.safetensors"):
        resolve("nowhere/x.safetensors", "resnet50")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """(address, digest) of a file; what is fetched goes to tmp_path/cache."""
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "served").mkdir()
    content = json.dumps({"weights": 1}).encode()
    digest = hashlib.sha256(content).hexdigest()
    file = tmp_path / "served" / f"net-{digest[:8]}.pth"
    file.write_bytes(content)
    return file.as_uri(), digest, file


def test_fetching_by_address(served, tmp_path):
    address, digest, file = served
    path = url_file(address)
    assert path == tmp_path / "cache" / "weights" / file.name
    assert path.read_bytes() == file.read_bytes()
    file.unlink()
    assert url_file(f"{address}#sha256={digest}") == path  # kept
    assert not list(path.parent.glob("*.part"))


def test_pytorchs_cache_is_used(served, tmp_path):
    address, _, file = served
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file.rename(folder / file.name)
    assert url_file(address) == folder / file.name


def test_a_wrong_checksum_leaves_nothing(served, tmp_path):
    address, _, file = served
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="is damaged"):
        url_file(address)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_what_cannot_be_fetched(served):
    address, _, file = served
    file.unlink()
    with pytest.raises(UserError, match=r"Cannot fetch .*put it into"):
        url_file(address)
    with pytest.raises(UserError, match="does not end in a file's name"):
        url_file("https://example.com/..")
