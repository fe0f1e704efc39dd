import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from tables import CLASSES, predicted

from helpers import evaluation, fusing, uncertainty


@pytest.fixture
def four():
    """Three bad and one good, of which one bad is found and the good one called good."""
    sure = {"bad": [0.9, 0.1], "good": [0.2, 0.8]}
    answers = [("bad", "bad"), ("bad", "good"), ("bad", "good"), ("good", "good")]
    return predicted([(f"item{i}", "top", label, sure[answer]) for i, (label, answer) in enumerate(answers)])


def test_predictions_name_the_likeliest_class_and_how_sure_it_is():
    catalog = pd.DataFrame(
        {"path": ["a.jpg", "b.jpg"], "item": ["a", "b"], "group": "3", "view": "", "label": "good"}, index=[7, 3]
    )
    table = evaluation.predictions(catalog, np.array([[0.25, 0.75], [0.6, 0.4]]), CLASSES)
    columns = ["path", "item", "group", "view", "label", "predicted", "confidence", "bad", "good"]
    assert table.columns.tolist() == columns
    assert table["path"].tolist() == ["a.jpg", "b.jpg"]
    assert table["predicted"].tolist() == ["good", "bad"]
    assert table["confidence"].tolist() == [0.75, 0.6]
    assert table["bad"].tolist() == [0.25, 0.6]


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (2,)])
def test_probabilities_of_another_shape_are_refused(shape):
    catalog = pd.DataFrame({"path": ["a", "b"], "item": ["a", "b"], "group": "3", "view": "", "label": "good"})
    with pytest.raises(ValueError, match=rf"\({shape[0]}.* probabilities for 2 images and 2 classes"):
        evaluation.predictions(catalog, np.zeros(shape), CLASSES)


def test_scores_are_those_of_the_confusion_matrix(four):
    (row,) = evaluation.scores(four, CLASSES, seed=0).to_dict("records")
    assert row["view"] == "top"
    assert row["tested"] == 4
    assert row["accuracy"] == 2 / 4
    assert row["precision"] == pytest.approx((1 / 1 + 1 / 3) / 2)
    assert row["recall"] == pytest.approx((1 / 3 + 1 / 1) / 2)
    assert row["f1"] == pytest.approx((2 / 4 + 2 / 4) / 2)


def test_scores_have_a_row_for_each_view_in_their_order(four):
    rows = [("a", "top", "bad", [0.9, 0.1]), ("b", "top", "bad", [0.1, 0.9]), ("a", "side", "bad", [0.9, 0.1])]
    table = evaluation.scores(predicted(rows), CLASSES, seed=0)
    assert table[["view", "tested", "accuracy"]].to_numpy().tolist() == [["top", 2, 0.5], ["side", 1, 1.0]]


def test_photos_that_are_there_twice_make_no_figure_of_a_class_surer():
    many = predicted([(f"item{i}", "top", "bad", [0.9, 0.1] if i % 3 else [0.1, 0.9]) for i in range(24)])
    once, twice = (evaluation.class_scores(table, CLASSES, seed=0) for table in (many, pd.concat([many, many])))
    assert twice["recall"][0] == once["recall"][0] == 16 / 24
    for figure in ("recall", "f1"):
        widths = [table[f"{figure} high"][0] - table[f"{figure} low"][0] for table in (once, twice)]
        assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_class_scores_tell_the_classes_apart(four):
    table = evaluation.class_scores(four, CLASSES, seed=0)
    assert table[["view", "label"]].to_numpy().tolist() == [["top", "bad"], ["top", "good"]]
    assert table["precision"].tolist() == pytest.approx([1, 1 / 3])
    assert table["recall"].tolist() == pytest.approx([1 / 3, 1])
    assert table["f1"].tolist() == pytest.approx([0.5, 0.5])
    assert table["images"].tolist() == [3, 1]


def test_a_class_that_is_never_there_has_no_figures_and_does_not_count(four):
    table = evaluation.class_scores(four, [*CLASSES, "odd"], seed=0)
    assert table.iloc[2][["precision", "recall", "f1"]].isna().all()
    assert table.iloc[2]["images"] == 0
    assert table.iloc[2][["f1 low", "f1 high"]].tolist() == [0, 1]
    assert evaluation.headline(four, [*CLASSES, "odd"], seed=0) == evaluation.headline(four, CLASSES, seed=0)


def test_classes_that_the_bootstrap_does_not_draw_do_not_lower_its_ends():
    classes = [f"class {number}" for number in range(20)]
    rows = [(label, "", label, np.eye(20)[number]) for number, label in enumerate(classes)]
    found = evaluation.headline(predicted(rows, classes), classes, seed=0)
    for name in ("precision", "recall", "f1"):
        assert [found[name], found[f"{name} low"], found[f"{name} high"]] == [1, 1, 1]


def test_the_interval_of_the_mean_class_recall_lies_around_it():
    generator, classes = np.random.default_rng(0), [f"class {number}" for number in range(30)]
    rows = []
    for number, label in enumerate(classes):
        for photo in range(3):
            called = number if generator.random() < 0.8 else int(generator.integers(30))
            rows.append((f"{label} {photo}", "", label, np.eye(30)[called]))
    found = evaluation.headline(predicted(rows, classes), classes, seed=0)
    below, above = found["recall"] - found["recall low"], found["recall high"] - found["recall"]
    assert 0.5 < below / above < 2


def test_the_majority_of_the_train_split_is_what_any_network_must_beat():
    train, test = pd.Series(["good", "bad", "good"]), pd.Series(["good", "bad", "bad", "bad"])
    assert evaluation.majority_accuracy(train, test) == 1 / 4


def test_log_loss_is_the_mean_over_images_of_what_the_truth_was_given(four):
    expected = -(math.log(0.9) + 2 * math.log(0.2) + math.log(0.8)) / 4
    assert evaluation.log_loss(four, CLASSES) == pytest.approx(expected)


def test_log_loss_counts_items_where_their_views_are_fused():
    images = predicted([("a", "side", "bad", [0.9, 0.1]), ("a", "top", "bad", [0.4, 0.6])])
    fused = fusing.with_fused(images, CLASSES)
    assert evaluation.log_loss(fused, CLASSES) == pytest.approx(-math.log(0.710102), abs=1e-6)


def test_log_loss_of_a_sure_mistake_is_large_but_finite():
    assert evaluation.log_loss(predicted([("a", "", "bad", [0.0, 1.0])]), CLASSES) == pytest.approx(7 * math.log(10))


def test_the_worst_mistakes_are_images_called_wrong_most_surely():
    rows = [("a", "side", "bad", [0.3, 0.7]), ("a", "top", "bad", [0.05, 0.95]), ("b", "side", "good", [0.01, 0.99])]
    rows += [("c", "side", "good", [0.8, 0.2]), ("c", "top", "good", [0.4, 0.6])]
    table = fusing.with_fused(predicted(rows), CLASSES)
    assert (table["view"] == "fused").sum() == 3
    assert evaluation.worst_mistakes(table, 9)["path"].tolist() == ["a_top.jpg", "c_side.jpg", "a_side.jpg"]
    assert evaluation.worst_mistakes(table, 2)["path"].tolist() == ["a_top.jpg", "c_side.jpg"]
    assert len(evaluation.worst_mistakes(table[table["item"] == "b"], 2)) == 0


def test_figures_from_a_confusion_matrix_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth, called = generator.integers(0, 4, 200), generator.integers(0, 3, 200)  # class 3 is never called
    found = evaluation.from_confusion(metrics.confusion_matrix(truth, called, labels=range(4)))
    means = metrics.precision_recall_fscore_support(truth, called, labels=range(4), average="macro", zero_division=0)
    expected = dict(zip(("precision", "recall", "f1"), means[:3], strict=True))
    assert found == pytest.approx({"accuracy": metrics.accuracy_score(truth, called)} | expected)


def test_each_figure_has_the_ends_of_its_interval(four):
    (row,) = evaluation.scores(four, CLASSES, seed=0).to_dict("records")
    assert (row["accuracy low"], row["accuracy high"]) == pytest.approx((0.150, 0.850), abs=1e-3)  # Wilson, 2 of 4
    for name in ("precision", "recall", "f1"):
        assert 0 <= row[f"{name} low"] <= row[name] <= row[f"{name} high"] <= 1
    table = evaluation.class_scores(four, CLASSES, seed=0)
    assert table["recall low"].tolist() == pytest.approx([0.0615, 0.2065], abs=1e-3)  # Wilson, 1 of 3 and 1 of 1
    assert table["precision low"].tolist() == pytest.approx([0.2065, 0.0615], abs=1e-3)  # 1 of 1 and 1 of 3


def test_the_headline_counts_all_views_as_one_and_a_rare_class_as_much_as_a_frequent_one(four):
    found = evaluation.headline(four.assign(view=["side", "side", "top", "top"]), CLASSES, seed=0)
    assert found["accuracy"] == 0.5  # 2 of 4
    assert found["recall"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["tested"] == 4


def test_views_of_one_item_and_items_that_look_the_same_do_not_count_as_two_cases():
    right = pd.DataFrame({"label": ["a"] * 20, "predicted": ["a"] * 16 + ["b"] * 4})
    right["group"] = [str(number) for number in range(20)]
    once = evaluation.headline(right, ["a", "b"], seed=0)
    twice = evaluation.headline(pd.concat([right, right], ignore_index=True), ["a", "b"], seed=0)
    assert (once["accuracy low"], once["accuracy high"]) == tuple(uncertainty.wilson(16, 20))
    alone = uncertainty.wilson(32, 40)  # as if there were forty items
    assert twice["accuracy high"] - twice["accuracy low"] > 1.2 * (alone.high - alone.low)
    for end in ("precision low", "recall high", "f1 low", "f1 high"):
        assert twice[end] == pytest.approx(once[end])


def test_an_interval_holds_its_own_figure_though_rare_classes_are_seldom_drawn():
    classes = list("abcdefghij")
    table = pd.DataFrame({"label": ["a"] * 10 + classes[1:], "predicted": "a", "group": range(19)})
    row = evaluation.headline(table, classes, seed=0)
    for name in ("recall", "precision", "f1"):
        assert row[f"{name} low"] <= row[name] <= row[f"{name} high"]
    assert row["recall low"] <= 0.1  # always the same answer is not better than guessing


def test_a_table_for_reading_has_each_figure_with_its_ends_in_one_column():
    table = pd.DataFrame({"view": ["top"], "f1": [0.5], "f1 low": [0.25], "f1 high": [0.75], "tested": [4]})
    assert evaluation.as_text(table).to_dict("records") == [{"view": "top", "f1": "0.50 (0.25 to 0.75)", "tested": 4}]


def test_confused_pairs_come_most_often_first_with_their_share_of_the_class(four):
    (pair,) = evaluation.confused_pairs(four).to_dict("records")
    assert pair == {"label": "bad", "predicted": "good", "images": 2, "share": pytest.approx(2 / 3)}
    assert len(evaluation.confused_pairs(four[four["label"] == "good"])) == 0


def test_labels_that_networks_contradict_come_first_and_unsure_ones_not_at_all():
    rows = [(f"g{number}", "", "good", [0.1, 0.9]) for number in range(3)]
    rows += [(f"b{number}", "", "bad", [0.9, 0.1]) for number in range(3)]
    rows += [
        ("wrong", "", "good", [0.97, 0.03]),
        ("worse", "", "bad", [0.02, 0.98]),
        ("unsure", "", "bad", [0.45, 0.55]),
    ]
    found = evaluation.contradicted(predicted(rows), CLASSES)
    assert found[["item", "label", "suggested"]].to_numpy().tolist() == [
        ["worse", "bad", "good"],
        ["wrong", "good", "bad"],
    ]
    assert found["probability"].tolist() == pytest.approx([0.02, 0.03])
    assert found["margin"].tolist() == pytest.approx([0.96, 0.94])


def test_a_label_that_is_likelier_than_what_a_rare_class_usually_has_is_not_contradicted():
    rows = [("a", "", "good", [0.48, 0.52]), ("b", "", "good", [0.1, 0.9]), ("c", "", "bad", [0.4, 0.6])]
    found = evaluation.contradicted(predicted(rows), CLASSES)  # "bad" has 0.4 as a rule, and a has more of it
    assert found["item"].tolist() == []


def test_a_pair_that_looks_the_same_does_not_make_certain_of_a_test_without_mistakes():
    labels = ["a"] * 46 + ["b"] * 4
    table = pd.DataFrame({"label": labels, "predicted": labels, "view": "", "group": [0, *range(49)]})
    figures = evaluation.scores(table, ["a", "b"], 0).iloc[0]
    alone = uncertainty.wilson(49, 49)
    assert (figures["accuracy low"], figures["accuracy high"]) == (alone.low, alone.high)
    by_class = evaluation.class_scores(table, ["a", "b"], 0).set_index("label")
    assert by_class.loc["b", "recall low"] == uncertainty.wilson(4, 4).low
    assert by_class.loc["a", "recall low"] == uncertainty.wilson(45, 45).low


def test_an_image_that_was_answered_several_times_counts_with_its_mean():
    rows = [("a", "", "good", [0.9, 0.1]), ("a", "", "good", [0.1, 0.9]), ("b", "", "bad", [0.8, 0.2])]
    assert len(evaluation.contradicted(predicted(rows), CLASSES)) == 0


def test_a_label_is_contradicted_by_an_answer_as_sure_as_is_usual():
    rows = [("a", "", "good", [0.8, 0.2]), ("b", "", "bad", [0.8, 0.2]), ("c", "", "good", [0.1, 0.9])]
    assert evaluation.contradicted(predicted(rows), CLASSES)["item"].tolist() == ["a"]
