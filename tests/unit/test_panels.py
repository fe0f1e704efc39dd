import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figures import texts, titles
from matplotlib.colors import same_color, to_rgba
from matplotlib.patches import Rectangle

from helpers import panels
from helpers.calibration import NEVER

CLASSES = ["damaged", "intact"]


def boxes(axis):
    return [patch.get_bbox().extents.tolist() for patch in axis.patches if isinstance(patch, Rectangle)]


def photos(count, height=6, width=10):
    return [np.full((height, width, 3), 20 * index, np.uint8) for index in range(count)]


def test_a_gallery_shows_each_image_with_its_title_and_boxes():
    marked = [[["tear", 1, 2, 5, 4]], [], [["dent", 0, 0, 2, 2], ["hole", 3, 3, 4, 5]]]
    figure = panels.gallery(photos(3), ["a", "b", "c"], boxes=marked, columns=2, title="Three")
    assert titles(figure) == ["a", "b", "c", ""]  # two rows of two
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]
    assert [boxes(axis) for axis in figure.axes[:3]] == [[[1, 2, 5, 4]], [], [[0, 0, 2, 2], [3, 3, 4, 5]]]
    assert (figure.axes[2].images[0].get_array() == 40).all()
    assert figure.get_suptitle() == "Three"
    assert not any(axis.axison for axis in figure.axes)
    figure.draw_without_rendering()


def test_an_empty_gallery_says_so_instead_of_failing():
    assert texts(panels.gallery([], [], title="No mistakes").axes[0]) == ["No mistakes"]
    assert texts(panels.gallery([], []).axes[0]) == ["Nothing to show"]


def test_a_gallery_shows_of_each_image_the_part_in_its_window():
    figure = panels.gallery(photos(2), ["a", "b"], windows=[(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)])
    height, width = photos(1)[0].shape[:2]
    assert [axis.get_xlim() for axis in figure.axes] == [(-0.5, width / 2 - 0.5), (width / 2 - 0.5, width - 0.5)]
    assert [axis.get_ylim() for axis in figure.axes] == [(height / 2 - 0.5, -0.5), (height - 0.5, height / 2 - 0.5)]


def test_attribution_panels_have_the_photo_first_and_then_a_network_each():
    image, maps = photos(1)[0], [np.zeros((6, 10)), np.eye(6, 10)]
    table = pd.DataFrame({"image": [image] * 2, "map": maps, "boxes": [[["tear", 1, 2, 3, 4]]] * 2})
    table["window"] = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.5, 0.6, 1.0)]
    captions = [["a 10 %", "b 90 %"], ["c"]]
    figure = panels.attributions([table, table[:1]], ["first", "second"], captions, "Where", comparable=False)
    assert titles(figure) == ["first", "a 10 %", "b 90 %", "second", "c", ""]
    assert [len(axis.images) for axis in figure.axes] == [1, 3, 3, 1, 3, 0]
    assert [boxes(axis) for axis in figure.axes[:5]] == [[[1, 2, 3, 4]]] * 5
    assert [axis.get_xlim() for axis in figure.axes[:3]] == [(-0.5, 9.5), (-0.5, 9.5), (0.5, 5.5)]
    assert [axis.get_ylim() for axis in figure.axes[:3]] == [(5.5, -0.5), (5.5, -0.5), (5.5, 2.5)]
    assert figure.get_suptitle() == "Where"
    figure.draw_without_rendering()


def test_heat_is_red_for_and_blue_against_and_opaque_where_the_attribution_is_largest():
    attribution = np.zeros((4, 4))
    attribution[0, 0], attribution[3, 3] = -2.0, 0.5
    axis = panels.heat(photos(1, 4, 4)[0], attribution, plt.Figure().add_subplot())
    red, blue = (image.get_alpha() for image in axis.images[1:])
    assert [image.get_cmap().name for image in axis.images[1:]] == ["Reds", "Blues"]
    assert blue[0, 0] == 1
    assert 0.3 < red[3, 3] < 0.4  # about (0.5 / 2) ** 0.8
    assert (red == 0).sum() == (blue == 0).sum() == 15


def strengths(figure):
    """The strongest red of each map of a row of panels."""
    return [axis.images[1].get_alpha().max() for axis in figure.axes[1:]]


def test_comparable_maps_have_one_scale_so_that_a_weak_one_is_pale():
    image, strong = photos(1, 8, 8)[0], np.eye(8)
    table = pd.DataFrame({"image": [image] * 2, "map": [strong, strong / 4], "boxes": [[]] * 2})
    table["window"] = [(0.0, 0.0, 1.0, 1.0)] * 2
    given = [table], ["photo"], [["a", "b"]], "Where"
    assert strengths(panels.attributions(*given, comparable=True)) == pytest.approx([1, 0.25**0.8])
    assert strengths(panels.attributions(*given, comparable=False)) == [1, 1]


def test_grain_of_both_colors_is_smoothed_away_and_what_belongs_together_stays():
    grain = np.indices((40, 320)).sum(0) % 2 * 2.0 - 1  # red beside blue, pixel by pixel
    grain[:, :40] = 1
    axis = panels.heat(photos(1, 40, 320)[0], grain, plt.Figure().add_subplot())
    red, blue = (image.get_alpha() for image in axis.images[1:])
    assert red[:, :20].min() == pytest.approx(1)
    assert max(red[:, 80:].max(), blue[:, 80:].max()) < 0.1


def test_no_attribution_at_all_shows_the_photo_alone():
    axis = panels.heat(photos(1, 4, 4)[0], np.zeros((4, 4)), plt.Figure().add_subplot())
    assert all((image.get_alpha() == 0).all() for image in axis.images[1:])


def test_an_outline_runs_around_the_mask_and_leaves_the_image_as_it_was():
    image, mask = np.zeros((7, 7, 3), np.uint8), np.zeros((7, 7), bool)
    mask[3, 3] = True
    drawn = panels.outline(image, mask)
    rim = (drawn != 0).any(2)
    rows, columns = np.indices((7, 7))
    distance = abs(rows - 3) + abs(columns - 3)
    assert (rim == ((distance > 0) & (distance <= 2))).all()
    assert same_color(drawn[3, 2] / 255, to_rgba(panels.BOX_COLOR)[:3])
    assert not image.any()


def test_answers_show_photo_attribution_and_the_probability_of_each_class():
    table = pd.DataFrame({"name": ["mine.jpg"], "answer": ["not sure"], "damaged": [0.6], "intact": [0.4]})
    figure = panels.answers(photos(1), [np.ones((6, 10))], table, CLASSES, 0.7, "Mine")
    _, heated, bars = figure.axes
    assert titles(figure) == ["mine.jpg", "what counted for damaged", "not sure"]
    assert [bar.get_width() for bar in bars.patches] == [0.6, 0.4]
    assert texts(bars) == ["60%", "40%"]
    assert [same_color(bar.get_facecolor(), "black") for bar in bars.patches] == [True, False]  # the likeliest
    assert bars.lines[0].get_xdata()[0] == 0.7
    *_, never = panels.answers(photos(1), [np.ones((6, 10))], table, CLASSES, NEVER, "Mine").axes
    assert (len(never.lines), never.get_xlabel()) == (0, "probability")
    assert len(heated.images) == 3
    figure.draw_without_rendering()
