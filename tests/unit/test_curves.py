import numpy as np
import pandas as pd
import pytest

from helpers import curves


@pytest.fixture
def history():
    """Four epochs in two phases, the third the best."""
    losses = [0.9, 0.8, 0.4, 0.6]
    table = pd.DataFrame({"epoch": [1, 2, 3, 4], "phase": ["frozen"] * 2 + ["fine-tuning"] * 2})
    table = table.assign(train_loss=[0.9, 0.7, 0.3, 0.1], validation_loss=losses, kept=[True, True, True, False])
    return table.assign(train_accuracy=[0.4, 0.5, 0.7, 0.9], validation_accuracy=[0.5, 0.5, 0.75, 0.5])


def test_a_figure_outside_its_interval_is_drawn_all_the_same():
    table = pd.DataFrame({"network": "a", "images": [5], "value": [0.10], "low": [0.11], "high": [0.25]})
    curves.learning(table, "recall", "More").draw_without_rendering()


def test_lines_draw_each_function_over_its_index_with_the_names_of_both():
    falling = pd.Series([3.0, 1.0, 0.5], pd.Index([0.1, 0.5, 1.0], name="probability"), name="loss")
    rising = pd.Series([1.0, 2.0], pd.RangeIndex(1, 3, name="step"), name="rate")
    figure = curves.lines([falling, rising], "Two")
    first, second = figure.axes
    assert first.lines[0].get_xydata().tolist() == [[0.1, 3], [0.5, 1], [1, 0.5]]
    assert (first.get_xlabel(), first.get_ylabel(), first.get_ylim()[0]) == ("probability", "loss", 0)
    assert second.lines[0].get_xydata().tolist() == [[1, 1], [2, 2]]
    assert (second.get_xlabel(), second.get_ylabel(), figure.get_suptitle()) == ("step", "rate", "Two")
    figure.draw_without_rendering()


def test_training_marks_the_epoch_kept_and_where_a_phase_begins(history):
    figure = curves.training({"resnet18": history, "vgg16": history})
    assert [axis.get_title("left") for axis in figure.axes] == ["resnet18", "", "vgg16", ""]
    loss, accuracy = figure.axes[:2]
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["training"] == [[1, 0.9], [2, 0.7], [3, 0.3], [4, 0.1]]
    assert lines["validation"] == [[1, 0.9], [2, 0.8], [3, 0.4], [4, 0.6]]
    assert lines["epoch kept"] == [[3, 0.4]]
    assert [line.get_xydata()[0, 0] for line in loss.lines if line.get_linestyle() == ":"] == [2.5]
    assert [text.get_text() for text in loss.texts] == ["frozen", "fine-tuning"]
    assert (accuracy.get_xlabel(), accuracy.get_ylabel(), accuracy.get_ylim()) == ("epoch", "accuracy", (0, 1.02))
    assert loss.get_ylim()[0] == 0
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training", "validation", "epoch kept"]
    figure.draw_without_rendering()


def test_losses_of_several_networks_have_one_scale(history):
    one, _, other, _ = curves.training({"learns": history, "guesses": history.assign(train_loss=2.3)}).axes
    assert one.get_ylim() == other.get_ylim()
    assert one.get_ylim()[1] > 2.3


def test_training_draws_the_figures_asked_for(history):
    figure = curves.training({"small": history.assign(train_f1=0.5, validation_f1=0.4)}, ("loss", "f1"))
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "f1"]


def test_a_single_phase_needs_no_name(history):
    figure = curves.training({"small": history.assign(phase="training")})
    assert figure.axes[0].texts[:] == []


def test_together_puts_all_networks_on_one_axis_by_the_seconds_spent(history):
    spent = history.assign(seconds=[1.0, 2.0, 3.0, 4.0])
    figure = curves.accuracy_over_time({"one": spent, "other": spent.assign(seconds=1.0)}, "Who is ahead")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["one", "other"]
    assert axis.lines[0].get_xydata().tolist() == [[1, 0.5], [3, 0.5], [6, 0.75], [10, 0.5]]


def test_learning_shows_intervals_and_reaches_to_twice_the_images():
    table = pd.DataFrame({"network": "head", "images": [5, 10], "value": [0.5, 0.7], "low": [0.4, 0.6]})
    figure = curves.learning(table.assign(high=[0.6, 0.9]), "accuracy", "More", lambda numbers: numbers / 20)
    (axis,) = figure.axes
    (bars,) = axis.containers
    points, _, (reach,) = bars
    assert points.get_xydata().tolist() == [[5, 0.5], [10, 0.7]]
    ends = [segment[:, 1].tolist() for segment in reach.get_segments()]
    np.testing.assert_allclose(ends, [[0.4, 0.6], [0.6, 0.9]])
    fitted = next(line for line in axis.lines if line.get_label() == "fitted power law")
    assert fitted.get_xdata()[[0, -1]].tolist() == pytest.approx([5, 20])
    assert [text.get_text() for text in axis.texts] == ["1.00"]  # of twice the images
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["5", "10", "20"]
    assert axis.get_ylim()[0] == pytest.approx(0.35)
    figure.draw_without_rendering()


def test_reliability_has_a_diagonal_to_compare_with():
    table = pd.DataFrame({"confidence": [0.6, 0.9], "accuracy": [0.5, 0.8], "images": [2, 20], "different": [2, 10]})
    figure = curves.reliability({"before": table, "after": table}, "Sure and right")
    assert [axis.get_title() for axis in figure.axes] == ["before", "after"]
    (diagonal,) = figure.axes[0].lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    ends, dots = figure.axes[0].collections
    assert dots.get_offsets().tolist() == [[0.6, 0.5], [0.9, 0.8]]
    assert dots.get_sizes().tolist() == [20 + 200 * 2 / 22, 20 + 200 * 20 / 22]
    np.testing.assert_allclose([end[:, 1] for end in ends.get_segments()], [[0.095, 0.905], [0.490, 0.943]], atol=1e-3)
    figure.draw_without_rendering()


def test_costs_show_what_each_way_costs_and_finds():
    thresholds = pd.DataFrame({"cost": [100.0, 40, 90], "found": [1.0, 0.8, 0], "alarms": [1.0, 0.1, 0]}, [0, 0.5, 1])
    ways = pd.DataFrame({"cost": [30.0], "found": [0.9], "alarms": [0.05]}, ["chosen"])
    cost, trade = curves.costs(thresholds, ways, "torn", "What each costs").axes
    assert cost.get_xlabel() == "threshold on the probability of torn"
    assert trade.get_ylabel() == "share of torn that is not passed"
    assert cost.lines[0].get_xydata().tolist() == [[0, 100], [0.5, 40], [1, 90]]
    assert cost.lines[1].get_ydata() == [30, 30]
    assert trade.lines[0].get_xydata().tolist() == [[1, 1], [0.1, 0.8], [0, 0]]
    assert trade.lines[1].get_xydata().tolist() == [[0.05, 0.9]]
    assert [text.get_text() for text in trade.get_legend().get_texts()] == [
        "one threshold, no inspection",
        "chosen: 30",
    ]
    assert cost.get_ylim() == pytest.approx((21, 140))
    assert [tick for tick in cost.get_yticks() if 21 <= tick <= 140] == [50, 100]
    free = curves.costs(thresholds, ways.assign(cost=0.0), "torn", "What each costs").axes[0]
    assert free.get_ylim() == pytest.approx((0, 140))


def test_robustness_draws_each_corruption_with_the_intervals_of_its_accuracies_and_what_is_unfamiliar():
    table = pd.DataFrame([[0.9, 0.8, 0.5], [0.9, 0.9, 0.9]], ["blur", "noise"], [0, 1, 2])
    figure = curves.robustness(table, 1 - table, 10, 0.4, "Spoilt")
    blur, noise, *others = figure.axes
    assert blur.lines[0].get_xydata().tolist() == [[0, 0.9], [1, 0.8], [2, 0.5]]
    assert blur.lines[1].get_ydata() == pytest.approx([0.1, 0.2, 0.5])
    assert blur.lines[2].get_ydata() == [0.4, 0.4]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["accuracy of items", "unfamiliar images", "most frequent class"]
    assert (blur.get_title(), noise.get_title()) == ("blur", "noise")
    heights = blur.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.237, 0.982), abs=1e-3)  # Wilson, 5 and 9 of 10
    assert not any(axis.axison for axis in others)


def test_deletion_and_insertion_are_drawn_for_each_method_with_their_means():
    curve = np.array([1.0, 0.5, 0.0])
    both = {"one": (curve, curve[::-1]), "two": (curve * 0.2, curve), "chance": (curve, curve)}
    figure = curves.deletion_and_insertion(both, "By importance")
    deletion, insertion = figure.axes
    assert deletion.lines[0].get_xydata().tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    assert insertion.lines[0].get_ydata().tolist() == [0, 0.5, 1]
    assert deletion.get_xlabel() == "share of the pixels taken away"
    assert insertion.get_xlabel() == "share of the pixels put back"
    assert [text.get_text() for text in deletion.get_legend().get_texts()] == ["one: 0.50", "two: 0.10", "chance: 0.50"]
    assert [line.get_linestyle() for line in insertion.lines] == ["-", "-", "--"]
