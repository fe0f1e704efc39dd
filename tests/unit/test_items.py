import math

import pandas as pd
import pytest

from helpers import items

CARD = {"classes": ["bad", "good"], "fusing": {}, "threshold": 0.0, "unrolled": {}}
DECISION = {"defect": "bad", "views": ["side", "top"], "pass_below": 0.2, "reject_from": 0.9}


def answered(*rows):
    """Photos as `predict.answers` gives them, from (name, probability of bad, remark, problem)."""
    table = pd.DataFrame(rows, columns=["name", "bad", "remark", "problem"])
    return table.assign(good=1 - table["bad"], answer="", confidence=math.nan)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1_side.jpg", ("1", "side")),
        ("day1/1_SIDE.JPG", ("1", "side")),
        ("top/1.png", ("1", "top")),
        ("1_left_side.jpg", ("1", "left_side")),
        ("a_b_top.jpg", ("a_b", "top")),
        ("1.jpg", ("1.jpg", "")),
        ("1_side.txt", ("1_side.txt", "")),
        ("side/_side.jpg", ("side/_side.jpg", "")),  # a scanner that read nothing
        ("1_side", ("1", "side")),
    ],
)
def test_a_name_says_the_item_and_the_view(name, found):
    assert items.item_and_view(name, {"side", "top", "left_side"}) == found


def test_each_item_has_one_row_with_its_action_and_what_is_odd():
    table = items.from_photos(
        answered(
            *(("1_side.jpg", 0.1, "", ""), ("1_top.jpg", 0.1, "", "")),
            *(("2_side.jpg", 0.95, "", ""), ("2_top.jpg", 0.95, "", "")),
            *(("3_side.jpg", 0.1, "", ""), ("3_top.jpg", math.nan, "", "empty file")),
            *(("day1/4_side.jpg", 0.1, "", ""), ("day2/4_top.jpg", 0.1, "", "")),
            *(("5_side.jpg", 0.1, "dark", ""), ("5_top.jpg", 0.1, "", "")),
            *(("6_side.jpg", math.nan, "", "empty file"), ("6_top.jpg", math.nan, "", "no image")),
        ),
        {"side", "top"},
        CARD | {"decision": DECISION},
    ).set_index("item")
    assert table["photos"].to_dict() == {"1": 2, "2": 2, "3": 1, "4": 2, "5": 2, "6": 0}
    assert table["action"].tolist() == ["pass", "reject", "inspect", "inspect", "inspect", "inspect"]
    assert table["answer"].tolist() == ["good", "bad", "good", items.NOT_SURE, items.NOT_SURE, ""]
    assert table["remark"].tolist() == ["", "", "top cannot be read: empty file", items.APART, "side: dark", ""]
    assert table["problem"].tolist() == [""] * 5 + ["side: empty file; top: no image"]
    assert table["bad"].tolist()[:2] == pytest.approx([0.1, 0.95])  # the mean of equal views


def test_without_views_and_a_decision_each_photo_is_an_item_without_an_action():
    table = items.from_photos(answered(("a/1.jpg", 0.3, "", ""), ("b/1.jpg", 0.6, "", "")), set(), CARD)
    assert table[["item", "answer", "action"]].to_numpy().tolist() == [["a/1.jpg", "good", ""], ["b/1.jpg", "bad", ""]]
