"""Panoptic quality against a loop written from the paper, panopticapi's numbers, and by hand."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.panoptic import DATA, GOLDEN, perturbed
from PIL import Image

from jaxvision.data.segment_maps import segment_numbers
from jaxvision.errors import UserError
from jaxvision.metrics.panoptic import (
    Numbered,
    PanopticQuality,
    Segments,
    panoptic_counts,
    panoptic_scores,
)


def by_loop(found, truth, num_classes):
    """Section 4 of the paper, and section 4.2 on void and groups, segment by segment."""
    counts = np.zeros((num_classes, 4))
    void = truth.numbers == 0
    matched_there, matched_seen = set(), set()
    for i, label in zip(truth.ids, truth.label):
        if truth.crowd[list(truth.ids).index(i)]:
            continue
        for j, other in zip(found.ids, found.label):
            mine, theirs = truth.numbers == i, (found.numbers == j) & ~void
            overlap = (mine & theirs).sum() / max((mine | theirs).sum(), 1)
            if label == other and overlap > 0.5:
                counts[label, :2] += overlap, 1
                matched_there.add(i)
                matched_seen.add(j)
    for i, label, crowd in zip(truth.ids, truth.label, truth.crowd):
        counts[label, 3] += i not in matched_there and not crowd
    for j, label in zip(found.ids, found.label):
        mine = found.numbers == j
        groups = np.isin(truth.numbers, truth.ids[truth.crowd & (truth.label == label)])
        ignored = (mine & (void | groups)).sum() > 0.5 * mine.sum()
        counts[label, 2] += j not in matched_seen and not ignored
    return counts


def drawn(seed, size=(40, 50), classes=4):
    """(found, truth): rectangles with void between; what is found is shifted, relabelled, cut."""
    rng = np.random.default_rng(seed)
    there, seen = np.zeros(size, int), np.zeros(size, int)
    labels = {}
    for number in rng.choice(10**6, 8, replace=False) + 1:
        y, x = rng.integers(0, 30), rng.integers(0, 40)
        h, w = rng.integers(4, 20, 2)
        labels[int(number)] = int(rng.integers(classes))
        there[y : y + h, x : x + w] = number
        y, x = y + rng.integers(0, 3), x + rng.integers(0, 3)
        seen[y : y + h, x : x + w] = number + 7
    ids = np.unique(there[there > 0])
    label = np.array([labels[one] for one in ids.tolist()])
    crowd = np.zeros(len(ids), bool)
    for one in range(0, classes, 2):  # at most one crowd of a class
        crowd[np.flatnonzero(label == one)[:1]] = True
    found_ids = np.unique(seen[seen > 0])
    found_label = np.array([labels[one - 7] for one in found_ids.tolist()])
    wrong = rng.random(len(found_ids)) < 0.2
    found_label = np.where(wrong, (found_label + 1) % classes, found_label)
    return Segments(seen, found_ids, found_label), Segments(there, ids, label, crowd)


def test_counts_are_those_of_the_paper():
    total = np.zeros((4, 4))
    for seed in range(60):
        found, truth = drawn(seed)
        counts = panoptic_counts(found, truth, 4)
        np.testing.assert_allclose(counts, by_loop(found, truth, 4), rtol=1e-12)
        total += counts
    assert (total > 15).all()  # everything has occurred


def numbered(images, count):
    """The segments of images, numbered from 1 on; more than there are, without pixels, behind."""
    rows = len(images)
    label, crowd = np.zeros((rows, count), np.int32), np.zeros((rows, count), bool)
    numbers = np.zeros((rows, *images[0].numbers.shape), np.int32)
    for row, one in enumerate(images):
        for place, (number, of_class) in enumerate(zip(one.ids, one.label)):
            numbers[row][one.numbers == number] = place + 1
            label[row, place] = of_class
        if one.crowd is not None:
            crowd[row, : len(one.ids)] = one.crowd
    return Numbered(jnp.asarray(numbers), jnp.asarray(label), jnp.asarray(crowd))


def test_counts_on_the_device_are_those_of_the_host():
    pairs = [drawn(seed) for seed in range(40)]
    for _, truth in pairs[::2]:  # several crowds of a class, of which the last one counts
        truth.crowd[truth.label == 1] = True
    found, truth = (numbered(side, 9) for side in zip(*pairs))
    valid = np.arange(40) < 38
    names = ("a", "b", "c", "d")
    count = jax.jit(PanopticQuality.of, static_argnums=(3, 4))
    quality = count(found, truth, jnp.asarray(valid), names, (0, 2))
    expected = sum(panoptic_counts(*pair, 4) for pair in pairs[:38])
    assert (expected > 5).all()
    parts = [quality.overlap, quality.right, quality.false, quality.missed]
    np.testing.assert_allclose(np.stack(parts, -1), expected, rtol=1e-6)
    scores, wanted = quality.compute("pq"), panoptic_scores(expected, names, (0, 2))
    assert scores == pytest.approx(wanted, rel=1e-6)


def test_quality_by_hand():
    there = np.zeros((4, 10), int)
    there[:, :4], there[:, 4:8] = 5, 6
    seen = np.zeros((4, 10), int)
    seen[:, :3], seen[:, 4:5], seen[:, 8:] = 1, 2, 3
    truth = Segments(there, np.array([5, 6]), np.array([0, 1]), np.array([False, False]))
    found = Segments(seen, np.array([1, 2, 3]), np.array([0, 1, 1]))
    counts = panoptic_counts(found, truth, 3)
    # The first is found at 3/4; the second is missed, by a false one; the third lies in void.
    np.testing.assert_array_equal(counts, [[0.75, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    scores = panoptic_scores(counts, ("a", "b", "c"), things=(0,))
    assert scores["pq"] == 0.375
    assert scores["sq"] == 0.375
    assert scores["rq"] == 0.5
    assert (scores["pq_things"], scores["sq_things"], scores["rq_things"]) == (0.75, 0.75, 1)
    assert (scores["pq_stuff"], scores["rq_stuff"]) == (0, 0)
    assert (scores["pq/a"], scores["pq/b"]) == (0.75, 0)
    assert np.isnan(scores["pq/c"])
    alone = panoptic_scores(counts, ("a", "b", "c"), things=(0, 1))
    assert np.isnan(alone["pq_stuff"])
    none = panoptic_scores(np.zeros((1, 4)), ("a",), ())
    assert np.isnan(none["pq"])


def test_maps_that_do_not_fit():
    found, truth = drawn(0)
    with pytest.raises(UserError, match=r"found is of \[2, 2\] pixels, that of what is there of"):
        panoptic_counts(found._replace(numbers=np.zeros((2, 2), int)), truth, 4)
    with pytest.raises(UserError, match=r"true map has a segment of number .*; listed are"):
        panoptic_counts(found, truth._replace(ids=truth.ids + 1), 4)
    more = found._replace(ids=np.append(found.ids, 3), label=np.append(found.label, 0))
    with pytest.raises(UserError, match="found map has no pixel of the listed segment 3"):
        panoptic_counts(more, truth, 4)


# -- real data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_real_files_give_the_numbers_of_panopticapi(shared_data, name):
    stem, images = DATA[name]
    folder = shared_data / stem
    content = json.loads(folder.with_suffix(".json").read_text())
    categories = sorted(content["categories"], key=lambda one: one["id"])
    ids = [one["id"] for one in categories]
    things = [place for place, one in enumerate(categories) if one["isthing"]]
    counts = np.zeros((len(ids), 4))
    for seed, annotation in enumerate(content["annotations"][:images]):
        numbers = segment_numbers(np.asarray(Image.open(folder / annotation["file_name"])))
        segments = annotation["segments_info"]
        truth = Segments(
            numbers,
            np.array([one["id"] for one in segments]),
            np.array([ids.index(one["category_id"]) for one in segments]),
            np.array([one["iscrowd"] for one in segments], bool),
        )
        same = panoptic_counts(truth, truth, len(ids))
        np.testing.assert_array_equal(same[:, 0], same[:, 1])
        assert not same[:, 2:].any()
        copy, category = perturbed(numbers, segments, seed, ids)
        label = np.array([ids.index(one) for one in category.values()])
        counts += panoptic_counts(Segments(copy, np.array(list(category)), label), truth, len(ids))
    scores = panoptic_scores(counts, list(map(str, ids)), things)
    expected = json.loads(GOLDEN.read_text())[name]
    for part, key in itertools.product(("", "_things", "_stuff"), ("pq", "sq", "rq")):
        assert scores[key + part] == pytest.approx(expected[part][key], rel=1e-12)
    for number, key in itertools.product(map(str, ids), ("pq", "sq", "rq")):
        value = expected["classes"].get(number, {key: np.nan})[key]
        assert scores[f"{key}/{number}"] == pytest.approx(value, rel=1e-12, nan_ok=True)
