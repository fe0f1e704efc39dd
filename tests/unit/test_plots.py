import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figures import texts, titles

from helpers import evaluation, fusing, plots

CLASSES = ["damaged", "intact"]


def heights(axis):
    """Heights of the bars of an axis, a list for each series."""
    return [[bar.get_height() for bar in container] for container in axis.containers]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


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
