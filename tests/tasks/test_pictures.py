"""Pictures of predictions: colours, sizes, legends."""

import numpy as np
import pytest

from jaxvision.tasks import pictures


def test_the_palette_is_that_of_pascal_voc():
    assert pictures.palette(10).tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128],
        [128, 0, 128], [0, 128, 128], [128, 128, 128], [64, 0, 0], [192, 0, 0],
    ]  # fmt: skip
    assert pictures.palette(21)[20].tolist() == [0, 64, 128]  # tv/monitor
    assert pictures.palette(256)[255].tolist() == [224, 224, 192]
    assert len(np.unique(pictures.palette(256), axis=0)) == 256


def test_void_is_light_grey():
    colours = pictures.colour_map(np.array([[1, 255]]))
    assert colours.tolist() == [[[128, 0, 0], [224, 224, 224]]]


def test_more_classes_than_255_have_colours_of_their_own():
    labels = np.array([[43, 255, 299, 300, 65535]], np.int32)
    colours = pictures.colour_map(labels, 300)[0].tolist()
    assert colours[3:] == [[224, 224, 224]] * 2
    assert colours[:3] == pictures.palette(300)[labels[0, :3]].tolist()
    assert len({*map(tuple, colours)}) == 4
    legend = pictures.rows([np.zeros((1, 4, 4, 3), np.uint8)], [str(k) for k in range(300)])
    assert (legend == pictures.palette(300)[299]).all(-1).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_overlay_mixes_image_and_classes(channels):
    image = np.full((1, 2, channels), 100, np.uint8)
    mixed = pictures.overlay(image, np.array([[0, 1]]), opacity=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[75, 75, 75], [107, 75, 75]]]


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(1, 8, (186, 168)), (4, 8, (186, 4 * 168)), (5, 8, (2 * 186, 4 * 168)), (2, 200, (226, 416))],
)
def test_a_grid_enlarges_small_images_and_breaks_rows(count, size, expected):
    images = np.zeros((count, size, size, 1), np.uint8)
    grid = pictures.captioned_grid(images, ["cat"] * count, [False] * count)
    assert grid.shape == (*expected, 3)
    assert grid.dtype == np.uint8
    assert (grid[4:164, 4:164] == 0).all()


def test_wrong_captions_are_red_and_long_ones_go_on_in_further_lines():
    images = np.full((2, 8, 8, 3), 255, np.uint8)
    grid = pictures.captioned_grid(images, ["w" * 99] * 2, [False, True])
    assert grid.shape[0] > 160 + 3 * 18
    right, wrong = np.split(grid, 2, 1)
    assert (right[..., 0] == right[..., 1]).all()
    red = (wrong[..., 0] > wrong[..., 1] + 50).any(axis=-1 if wrong.ndim == 2 else ())
    assert red.any()
    assert (right[:, -4:] == 255).all()  # nothing runs out of its column


def test_rows_lie_side_by_side_over_a_legend():
    image = np.full((2, 60, 100, 3), 10, np.uint8)
    truth = np.full((2, 40, 50, 3), 20, np.uint8)  # of a network without padding
    picture = pictures.rows([image, truth], ["void", "car"])
    width = 100 + 4 + 50 + 4
    factor = -(-480 // width)
    assert picture.shape == (2 * 64 * factor + 20 + 4, width * factor, 3)
    assert (picture[2 * factor, 2 * factor] == 10).all()
    assert (picture[(2 + 39) * factor, 106 * factor] == 20).all()
    assert (picture[(2 + 41) * factor, 106 * factor] == 255).all()
    legend = picture[2 * 64 * factor :].reshape(-1, 3).tolist()
    assert [0, 0, 0] in legend
    assert [128, 0, 0] in legend
    more = pictures.rows([image, truth], [f"class number {i}" for i in range(21)])
    assert more.shape[0] > picture.shape[0]  # the legend goes on in further lines


def test_what_is_no_class_or_background_leaves_the_image_as_it_is():
    image = np.full((1, 4, 3), 100, np.uint8)
    names = ("Background", "car", "bus")
    assert pictures.background_of(names) == [0]
    assert pictures.background_of(("road", "_background_")) == [1]
    assert pictures.background_of(("road", "building")) == []
    mixed = pictures.overlay(image, np.array([[0, 1, 255, 2]], np.uint8), 3, clear=[0])
    assert mixed.tolist() == [[[100] * 3, [114, 50, 50], [100] * 3, [50, 114, 50]]]
    shown = pictures.with_legend(mixed, names, [1, 2])
    colours = {tuple(colour) for colour in shown[1:].reshape(-1, 3).tolist()}
    assert {(128, 0, 0), (0, 128, 0)} <= colours  # in the legend
    assert shown.shape[1] > 40  # as wide as the legend needs


def test_ranked_draws_a_bar_for_each_class():
    image = np.full((20, 10, 1), 128, np.uint8)
    picture = pictures.ranked(image, ["cat", "a very long name of a dog", "x"], [0.75, 0.25, 0.0])
    assert picture.dtype == np.uint8
    blue = (picture == [0x34, 0x65, 0xA4]).all(-1)
    lengths = [row.sum() for row in blue if row.any()]
    assert 2.8 < max(lengths) / min(lengths) < 3.2
    assert len(lengths) == 2 * 7  # two bars of seven rows; the third has no probability


def test_segments_are_laid_over_the_image_with_lines_between_them():
    image = np.full((6, 8, 3), 100, np.uint8)
    numbers = np.repeat([[1, 2, 0, 2]], 6, 0).repeat(2, 1)
    drawn = pictures.segmented(image, numbers, {1: (200, 0, 100), 9: (1, 2, 3)}, {}, least=8)
    assert (drawn[:, :2] == [150, 50, 100]).all()
    assert (drawn[:, [2, 4, 6]] == 255).all()
    assert (drawn[:, [3, 5, 7]] == 100).all()
    named = pictures.segmented(image, numbers, {}, {1: "a", 7: "not there"}, least=320)
    assert named.shape == (240, 320, 3)
    changed = (named != pictures.segmented(image, numbers, {}, {}, least=320)).any((0, 2))
    assert changed[20:60].any()
    assert not changed[80:].any()
