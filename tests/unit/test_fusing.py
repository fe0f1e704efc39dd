import math

import numpy as np
import pytest
from tables import CLASSES, predicted

from helpers import evaluation, fusing


def line(count, sides, tops, seed=0):
    """Items seen from two sides, each view right with its own probability and always equally sure."""
    generator, rows = np.random.default_rng(seed), []
    for number in range(count):
        label = CLASSES[number % 2]
        for view, right in (("side", sides), ("top", tops)):
            says = label if generator.random() < right else CLASSES[1 - number % 2]
            rows.append((f"item {number}", view, label, [0.8, 0.2] if says == "bad" else [0.2, 0.8]))
    return predicted(rows)


def test_a_sure_view_outweighs_an_unsure_one():
    images = predicted([("a", "side", "bad", [0.9, 0.1]), ("a", "top", "bad", [0.4, 0.6])])
    fused = fusing.fuse_views(images, CLASSES)
    bad, good = math.sqrt(0.9 * 0.4), math.sqrt(0.1 * 0.6)  # 0.600 and 0.245
    assert fused[["item", "label", "view", "predicted"]].to_numpy().tolist() == [["a", "bad", "fused", "bad"]]
    assert fused["bad"][0] == pytest.approx(bad / (bad + good))
    assert fused["confidence"][0] == pytest.approx(0.710102, abs=1e-6)
    assert fused[CLASSES].sum(axis=1).tolist() == pytest.approx([1])


def test_fusing_keeps_each_item_with_its_own_label_in_any_order():
    images = predicted(
        [
            ("b", "side", "good", [0.1, 0.9]),
            ("a", "top", "bad", [0.8, 0.2]),
            ("b", "top", "good", [0.1, 0.9]),
            ("a", "side", "bad", [0.8, 0.2]),
        ]
    )
    fused = fusing.fuse_views(images, CLASSES)
    assert fused[["item", "label", "predicted"]].to_numpy().tolist() == [["a", "bad", "bad"], ["b", "good", "good"]]
    assert fused["confidence"].tolist() == pytest.approx([0.8, 0.9])


def test_a_probability_of_nothing_is_no_veto():
    images = predicted([("a", "side", "bad", [0.0, 1.0]), ("a", "top", "bad", [1.0, 0.0])])
    assert fusing.fuse_views(images, CLASSES)["bad"].tolist() == pytest.approx([0.5])


def test_fused_items_come_below_the_images_where_there_are_views():
    rows = [("a", "side", "bad", [0.9, 0.1]), ("a", "top", "bad", [0.4, 0.6])]
    assert fusing.with_fused(predicted(rows), CLASSES)["view"].tolist() == ["side", "top", "fused"]
    assert fusing.with_fused(predicted(rows[:1]), CLASSES)["view"].tolist() == ["side"]


@pytest.mark.parametrize("weights", [{}, {"side": 2.0, "top": 1.0}, {"side": 0.0}])
def test_an_item_that_was_seen_from_one_side_only_keeps_that_answer(weights):
    rows = [("a", "side", "bad", [0.7, 0.3]), ("b", "top", "bad", [0.7, 0.3])]
    assert fusing.fuse_views(predicted(rows), CLASSES, weights)["bad"].tolist() == pytest.approx([0.7, 0.7])


def test_twice_the_weight_counts_twice():
    images = predicted([("a", "side", "bad", [0.9, 0.1]), ("a", "top", "bad", [0.4, 0.6])])
    fused = fusing.fuse_views(images, CLASSES, {"side": 2.0})  # and 1 for the top, where nothing is said
    bad, good = math.sqrt(0.9**2 * 0.4), math.sqrt(0.1**2 * 0.6)
    assert fused["bad"][0] == pytest.approx(bad / (bad + good))
    alone = fusing.fuse_views(images, CLASSES, {"side": 2.0, "top": 0.0})
    assert alone["bad"][0] == pytest.approx(0.9)


def test_few_items_leave_the_weights_nearly_equal():
    assert fusing.learn(line(2, 1.0, 1.0), CLASSES) == pytest.approx({"side": 1, "top": 1}, abs=0.2)


def test_two_photos_of_one_side_are_one_side():
    images = predicted([("a", "side", "bad", [0.9, 0.1]), ("a", "side", "bad", [0.6, 0.4])])
    weighed, plain = (fusing.fuse_views(images, CLASSES, weights)["bad"][0] for weights in ({"side": 2.0}, None))
    assert weighed == pytest.approx(plain)


def test_a_view_that_knows_nothing_loses_its_weight():
    weights = fusing.learn(line(200, 0.9, 0.5), CLASSES)
    assert weights["side"] > 1.2
    assert weights["top"] < 0.3


def test_learned_weights_are_taken_only_where_they_do_better_on_items_they_were_not_learned_from():
    helped = line(80, 0.9, 0.5)
    losses = fusing.compare(helped, CLASSES, seed=0)
    assert losses["learned"] < losses["mean"] - 0.05
    assert fusing.compare(helped, CLASSES, seed=0) == losses
    assert fusing.choose(helped, CLASSES, seed=0)[0] == fusing.learn(helped, CLASSES)
    luck = line(20, 0.75, 0.75, seed=0)  # two views that are equally good
    assert fusing.choose(luck, CLASSES, seed=0)[0] == {}


def test_with_few_items_or_one_view_the_mean_stays():
    assert fusing.choose(line(9, 0.9, 0.5), CLASSES, seed=0) == ({}, {})
    one = line(40, 0.9, 0.5)
    assert fusing.choose(one[one["view"] == "side"], CLASSES, seed=0) == ({}, {})
    assert fusing.choose(one.assign(group=0), CLASSES, seed=0) == ({}, {})  # forty that look the same are one


def test_learned_weights_are_never_worse_than_equal_ones_where_they_were_learned():
    for seed in range(3):
        images = line(30, 0.8, 0.6, seed)
        learned = fusing.fuse_views(images, CLASSES, fusing.learn(images, CLASSES))
        assert evaluation.log_loss(learned, CLASSES) <= evaluation.log_loss(fusing.fuse_views(images, CLASSES), CLASSES)


def test_the_images_of_a_group_are_found_by_their_group():
    helped = line(80, 0.9, 0.5)
    other = helped.assign(group="group of " + helped["item"])
    assert fusing.compare(other, CLASSES, seed=0) == fusing.compare(helped, CLASSES, seed=0)
