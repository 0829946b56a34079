import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxvision.data.builders import BUILDERS, Digits
from jaxvision.data.builders.digits import load, split_indices


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    builder = Digits(data_dir=tmp_path_factory.mktemp("digits"), file_format="array_record")
    builder.download_and_prepare()
    assert builder.info.redistribution_info.license == "CC BY 4.0"
    return builder.as_data_source()


def test_asset_is_the_published_data_set():
    image, label = load()
    digest = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    published = load_digits()
    np.testing.assert_array_equal(image, published.images)
    np.testing.assert_array_equal(label, published.target)


def test_split_is_fixed_disjoint_and_stratified():
    _, label = load()
    split = split_indices(label)
    assert {name: len(indices) for name, indices in split.items()} == {"train": 1437, "test": 360}
    together = np.concatenate([split["train"], split["test"]])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))
    in_test = np.bincount(label[split["test"]], minlength=10)
    np.testing.assert_allclose(in_test, np.bincount(label) / 5, atol=1)
    # The permutation may never change: it decides every figure published for this data set.
    assert split["test"][:5].tolist() == [855, 1526, 1327, 600, 1678]


def test_records_equal_the_asset(sources):
    image, label = load()
    for name, indices in split_indices(label).items():
        source = sources[name]
        assert len(source) == len(indices)
        for position in range(0, len(source), 37):
            record = source[position]
            assert record["image"].shape == (8, 8, 1)
            assert record["image"].dtype == np.uint8
            expected = np.round(image[indices[position]] * 255.0 / 16)
            np.testing.assert_array_equal(record["image"][..., 0], expected)
            assert record["label"] == label[indices[position]]


def test_digits_can_be_learnt_and_the_builder_is_listed(sources):
    pixels, labels = {}, {}
    for name, source in sources.items():
        records = [source[i] for i in range(len(source))]
        pixels[name] = np.stack([r["image"].ravel() for r in records]) / 255
        labels[name] = np.array([r["label"] for r in records])
    model = LogisticRegression(max_iter=200).fit(pixels["train"], labels["train"])
    assert model.score(pixels["test"], labels["test"]) > 0.94
    assert BUILDERS["digits"] is Digits
