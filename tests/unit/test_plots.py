import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgba
from matplotlib.patches import Rectangle

from helpers import evaluation, fusing, plots
from helpers.calibration import NEVER

CLASSES = ["damaged", "intact"]


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    assert plt.get_fignums() == []


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def heights(axis):
    """Heights of the bars of an axis, a list for each series."""
    return [[bar.get_height() for bar in container] for container in axis.containers]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def boxes(axis):
    return [patch.get_bbox().extents.tolist() for patch in axis.patches if isinstance(patch, Rectangle)]


def photos(count, height=6, width=10):
    return [np.full((height, width, 3), 20 * index, np.uint8) for index in range(count)]


@pytest.fixture
def predicted():
    """Two views and the items: the side sees 2 of 3, the top 1 of 3."""
    rows = [("a", "damaged", 0.8, 0.4), ("b", "damaged", 0.9, 0.2), ("c", "intact", 0.7, 0.9)]
    table = pd.DataFrame(
        [(item, view, label, p) for item, label, *pair in rows for view, p in zip(("side", "top"), pair, strict=True)],
        columns=["item", "view", "label", "p"],
    )
    probabilities = np.stack([table["p"], 1 - table["p"]], 1)
    return evaluation.predictions(table.assign(path=table["item"], group=table["item"]), probabilities, CLASSES)


def test_a_gallery_shows_each_image_with_its_title_and_boxes():
    marked = [[["tear", 1, 2, 5, 4]], [], [["dent", 0, 0, 2, 2], ["hole", 3, 3, 4, 5]]]
    figure = plots.gallery(photos(3), ["a", "b", "c"], boxes=marked, columns=2, title="Three")
    assert titles(figure) == ["a", "b", "c", ""]  # two rows of two
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]
    assert [boxes(axis) for axis in figure.axes[:3]] == [[[1, 2, 5, 4]], [], [[0, 0, 2, 2], [3, 3, 4, 5]]]
    assert (figure.axes[2].images[0].get_array() == 40).all()
    assert figure.get_suptitle() == "Three"
    assert not any(axis.axison for axis in figure.axes)
    figure.draw_without_rendering()


def test_an_empty_gallery_says_so_instead_of_failing():
    assert texts(plots.gallery([], [], title="No mistakes").axes[0]) == ["No mistakes"]
    assert texts(plots.gallery([], []).axes[0]) == ["Nothing to show"]


def test_split_counts_stack_the_splits_of_each_class_and_view():
    splits = ["train", "train", "train", "validation", "test", "train"]
    catalog = pd.DataFrame({"label": ["damaged"] * 5 + ["intact"], "view": "side", "split": splits})
    figure = plots.split_counts(catalog.assign(item=["a", "a", "b", "c", "d", "e"]))
    (axis,) = figure.axes
    assert axis.get_title() == "6 images of 5 items in three splits"
    assert heights(axis) == [[3, 1], [1, 0], [1, 0]]
    assert [[bar.get_y() for bar in bars] for bars in axis.containers] == [[0, 0], [3, 1], [4, 1]]
    assert legend(axis) == ["test", "validation", "train"]  # as they lie on each other
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["damaged\nside", "intact\nside"]
    assert sorted(texts(axis)) == ["0", "0", "1", "1", "1", "3"]
    figure.draw_without_rendering()


def test_a_split_that_is_missing_has_bars_of_no_height():
    catalog = pd.DataFrame({"label": CLASSES, "view": "", "split": "train", "item": ["a", "b"]})
    assert heights(plots.split_counts(catalog).axes[0]) == [[1, 1], [0, 0], [0, 0]]


def test_confusions_count_what_is_right_in_each_view(predicted):
    figure = plots.confusions(fusing.with_fused(predicted, CLASSES), CLASSES, "Where it errs")
    assert titles(figure) == ["side: 2 of 3 right", "top: 0 of 3 right", "fused: 2 of 3 right"]
    assert figure.get_suptitle() == "Where it errs"
    assert [texts(axis) for axis in figure.axes[:2]] == [["2", "0", "1", "0"], ["0", "2", "1", "0"]]
    figure.draw_without_rendering()


def test_a_data_set_without_views_has_one_confusion_matrix_of_all(predicted):
    assert titles(plots.confusions(predicted.assign(view=""), CLASSES, "")) == ["2 of 6 right"]


def test_a_confusion_matrix_is_drawn_on_the_axis_given_with_mistakes_in_another_color():
    axis = plt.Figure().add_subplot()
    assert plots.confusion(np.array([[9, 1], [0, 0]]), CLASSES, axis) is axis
    colors = {text.get_position(): text.get_color() for text in axis.texts}
    assert colors == {(0, 0): "white", (1, 0): "black", (0, 1): "black", (1, 1): "black"}
    right, wrong = (image.get_array().filled(np.nan) for image in axis.images)
    np.testing.assert_allclose(right, [[0.9, np.nan], [np.nan, 0]])  # a class that is absent is no error
    np.testing.assert_allclose(wrong, [[np.nan, 0.1**0.5], [0, np.nan]])
    assert [image.get_cmap().name for image in axis.images] == ["Greys", "Oranges"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert [tick.get_text() for tick in axis.get_yticklabels()] == CLASSES


def test_a_large_confusion_matrix_goes_without_numbers():
    classes = [f"class {number}" for number in range(13)]
    axis = plots.confusion(np.eye(13, dtype=int), classes, plt.Figure().add_subplot())
    assert texts(axis) == []
    assert axis.get_xticklabels()[0].get_rotation() == 90


def test_accuracies_stand_with_their_intervals_by_view_against_the_most_frequent_class():
    table = pd.DataFrame({"network": ["a", "a", "b", "b"], "view": ["side", "top"] * 2, "accuracy": [0.5, 1, 0.75, 0]})
    table = table.assign(**{"accuracy low": [0.4, 0.9, 0.5, 0], "accuracy high": [0.7, 1, 0.9, 0.2]})
    figure = plots.accuracies(table, 0.6)
    (axis,) = figure.axes
    dots = [container[0].get_xydata()[0] for container in axis.containers]
    np.testing.assert_allclose(dots, [[0.5, -0.2], [1, 0.8], [0.75, 0.2], [0, 1.2]])  # side above top, a above b
    reach = [container[2][0].get_segments()[0][:, 0] for container in axis.containers]
    np.testing.assert_allclose(reach, [[0.4, 0.7], [0.9, 1], [0.5, 0.9], [0, 0.2]])
    assert texts(axis) == [" most frequent class", "0.50 a", "1.00 a", "0.75 b", "0.00 b"]
    assert list(axis.lines[0].get_xdata()) == [0.6, 0.6]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["side", "top"]
    figure.draw_without_rendering()


def test_a_gallery_shows_of_each_image_the_part_in_its_window():
    figure = plots.gallery(photos(2), ["a", "b"], windows=[(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)])
    height, width = photos(1)[0].shape[:2]
    assert [axis.get_xlim() for axis in figure.axes] == [(-0.5, width / 2 - 0.5), (width / 2 - 0.5, width - 0.5)]
    assert [axis.get_ylim() for axis in figure.axes] == [(height / 2 - 0.5, -0.5), (height - 0.5, height / 2 - 0.5)]


def test_attribution_panels_have_the_photo_first_and_then_a_network_each():
    image, maps = photos(1)[0], [np.zeros((6, 10)), np.eye(6, 10)]
    table = pd.DataFrame({"image": [image] * 2, "map": maps, "boxes": [[["tear", 1, 2, 3, 4]]] * 2})
    table["window"] = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.5, 0.6, 1.0)]
    captions = [["a 10 %", "b 90 %"], ["c"]]
    figure = plots.attribution_panels([table, table[:1]], ["first", "second"], captions, "Where", comparable=False)
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
    axis = plots.heat(photos(1, 4, 4)[0], attribution, plt.Figure().add_subplot())
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
    assert strengths(plots.attribution_panels(*given, comparable=True)) == pytest.approx([1, 0.25**0.8])
    assert strengths(plots.attribution_panels(*given, comparable=False)) == [1, 1]


def test_grain_of_both_colors_is_smoothed_away_and_what_belongs_together_stays():
    grain = np.indices((40, 320)).sum(0) % 2 * 2.0 - 1  # red beside blue, pixel by pixel
    grain[:, :40] = 1
    axis = plots.heat(photos(1, 40, 320)[0], grain, plt.Figure().add_subplot())
    red, blue = (image.get_alpha() for image in axis.images[1:])
    assert red[:, :20].min() == pytest.approx(1)
    assert max(red[:, 80:].max(), blue[:, 80:].max()) < 0.1


def test_no_attribution_at_all_shows_the_photo_alone():
    axis = plots.heat(photos(1, 4, 4)[0], np.zeros((4, 4)), plt.Figure().add_subplot())
    assert all((image.get_alpha() == 0).all() for image in axis.images[1:])


def test_an_outline_runs_around_the_mask_and_leaves_the_image_as_it_was():
    image, mask = np.zeros((7, 7, 3), np.uint8), np.zeros((7, 7), bool)
    mask[3, 3] = True
    drawn = plots.outline(image, mask)
    rim = (drawn != 0).any(2)
    rows, columns = np.indices((7, 7))
    distance = abs(rows - 3) + abs(columns - 3)
    assert (rim == ((distance > 0) & (distance <= 2))).all()
    assert same_color(drawn[3, 2] / 255, to_rgba(plots.BOX_COLOR)[:3])
    assert not image.any()


def test_region_times_have_a_panel_for_each_network_and_view_and_a_line_for_each_method():
    rows = [("IG", "a", "side", "damage box", 5.0, 3.0, 8.0), ("IG", "a", "side", "carton", 1.1, 1.0, 1.2)]
    rows += [("CAM", "a", "side", "damage box", 0.5, 0.2, 0.9), ("IG", "a", "top", "belt", 2.0, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["method", "network", "view", "region", "times", "times low", "times high"])
    figure = plots.region_times(table, "Where")
    side, top = figure.axes
    assert titles(figure) == ["a, side", "a, top"]
    assert figure.get_suptitle() == "Where"
    dots = {bars.get_label(): bars[0].get_xydata() for bars in side.containers}
    np.testing.assert_allclose(dots["damage box"], [[5, -0.22], [0.5, 0.78]])
    np.testing.assert_allclose(dots["carton"], [[1.1, 0]])
    np.testing.assert_allclose(side.containers[0][2][0].get_segments()[0][:, 0], [3, 8])
    assert [tick.get_text() for tick in side.get_yticklabels()] == ["IG", "CAM"]
    assert side.get_xlim() == top.get_xlim()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["damage box", "carton", "belt"]
    figure.draw_without_rendering()


def test_without_regions_there_is_a_note_instead_of_panels():
    figure = plots.region_times(pd.DataFrame(columns=["network", "view", "region", "method", "times"]), "Inside")
    assert "No region is known" in " ".join(texts(figure.axes[0]))


def test_the_ways_to_learn_show_what_is_frozen_in_each():
    figure = plots.ways_to_learn(3, frozen=2)
    (axis,) = figure.axes
    colors = [patch.get_facecolor() for patch in axis.patches]
    assert len(colors) == 3 * 4
    scratch, extraction, tuning = colors[:4], colors[4:8], colors[8:]
    assert len(set(scratch)) == 1
    assert extraction[:3] == [*tuning[:2], extraction[2]]  # frozen
    assert len({scratch[0], extraction[0], extraction[3], tuning[2]}) == 4  # random, frozen, solved, learning on
    assert tuning[2] == tuning[3]
    assert texts(axis) == ["stage 1", "stage 2", "stage 3", "head"] * 3
    figure.draw_without_rendering()


def test_gains_show_the_classes_that_gained_most_and_least():
    before = pd.Series({"ant": 0.1, "bee": 0.5, "cat": 0.5, "dog": 0.9}, name="from scratch")
    after = pd.Series({"ant": 0.9, "bee": 0.6, "cat": 0.9, "dog": 0.8}, name="fine-tuned")
    figure = plots.gains(before, after, 1, "Recall")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ant", "dog"]
    old, new = (dots.get_offsets().tolist() for dots in axis.collections)
    assert old == [[0.1, 0], [0.9, 1]]
    assert new == [[0.9, 0], [0.8, 1]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["from scratch", "fine-tuned"]
    figure.draw_without_rendering()


def test_answers_show_photo_attribution_and_the_probability_of_each_class():
    table = pd.DataFrame({"name": ["mine.jpg"], "answer": ["not sure"], "damaged": [0.6], "intact": [0.4]})
    figure = plots.answers(photos(1), [np.ones((6, 10))], table, CLASSES, 0.7, "Mine")
    _, heated, bars = figure.axes
    assert titles(figure) == ["mine.jpg", "what counted for damaged", "not sure"]
    assert [bar.get_width() for bar in bars.patches] == [0.6, 0.4]
    assert texts(bars) == ["60%", "40%"]
    assert [same_color(bar.get_facecolor(), "black") for bar in bars.patches] == [True, False]  # the likeliest
    assert bars.lines[0].get_xdata()[0] == 0.7
    *_, never = plots.answers(photos(1), [np.ones((6, 10))], table, CLASSES, NEVER, "Mine").axes
    assert (len(never.lines), never.get_xlabel()) == (0, "probability")
    assert len(heated.images) == 3
    figure.draw_without_rendering()
