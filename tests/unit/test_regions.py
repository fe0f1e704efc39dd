import numpy as np
import pandas as pd
import pytest

from helpers import regions

MAPS = np.array([[[1.0, 1.0], [1.0, 5.0]], [[2.0, 0.0], [0.0, 0.0]]])
LEFT = np.array([[[True, False], [True, False]]] * 2)
CORNER = np.array([[[False, False], [False, True]], [[False, False], [False, False]]])


def test_boxes_follow_their_image_to_its_new_size():
    catalog = pd.DataFrame({"width": [200, 50], "height": [100, 50], "boxes": [[["tear", 20, 40, 60, 80]], []]})
    assert regions.scale_boxes(catalog, 25, 100) == [[["tear", 10, 10, 30, 20]], []]


def test_the_mask_of_boxes_covers_every_pixel_they_touch():
    boxes = [["tear", 20, 10, 40, 30], ["dent", 55, 71, 66, 100]]
    catalog = pd.DataFrame({"width": [100, 100], "height": [100, 100], "boxes": [boxes, []]})
    masks = regions.box_masks(catalog, 10, 10)
    expected = np.zeros((10, 10), bool)
    expected[1:3, 2:4] = True
    expected[7:10, 5:7] = True
    assert (masks[0] == expected).all()
    assert not masks[1].any()


def test_shares_count_what_speaks_for_the_answer_alone():
    maps = np.array([[[1.0, -3.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, -1.0]]])
    masks = np.array([[[True, True], [False, False]]] * 2)
    assert regions.shares(maps, masks).tolist() == [0.2, 0.0]


def test_the_pointing_game_asks_for_the_pixel_that_counts_most():
    assert regions.pointed(MAPS, LEFT).tolist() == [False, True]
    assert regions.pointed(MAPS, CORNER).tolist() == [True, False]
    assert regions.pointed(0 * MAPS, ~CORNER).tolist() == [False, False]  # nothing counts most


def test_the_overlap_is_that_of_as_many_pixels_as_the_region_has():
    # first image: the two that count most are the corner and, of equals, the last; one of them is on the left
    seen = np.ones_like(LEFT)
    assert regions.ious(MAPS, LEFT, seen).tolist() == pytest.approx([1 / 3, 1 / 3])
    assert regions.ious(MAPS, CORNER, seen).tolist() == [1.0, 0.0]
    assert regions.ious(LEFT.astype(float), LEFT, seen).tolist() == [1.0, 1.0]
    assert regions.ious(0 * MAPS, ~CORNER, seen).tolist() == [0.0, 0.0]


def test_pixels_that_count_nothing_are_no_hits():
    one, seen = np.zeros((1, 4, 4)), np.ones((1, 4, 4), bool)
    one[0, 0, 0] = 1
    rows = [np.arange(4)[:, None].repeat(4, 1)[None] == row for row in (0, 3)]
    assert [regions.ious(one, row, seen).item() for row in rows] == pytest.approx([1 / 7, 0])


def test_what_was_never_seen_does_not_come_before_what_speaks_against_the_class():
    maps = np.array([[[3.0, 0.0], [-1.0, 0.0]]])  # the right half was not seen
    assert regions.ious(maps, LEFT[:1], LEFT[:1]).tolist() == [1.0]
    assert regions.ious(maps, LEFT[:1], np.ones_like(LEFT[:1])).tolist() == pytest.approx([1 / 3])


def test_the_region_table_sets_attribution_beside_area_and_leaves_out_what_an_image_has_not():
    table = regions.region_table(MAPS, {"left": LEFT, "corner": CORNER}, np.ones_like(LEFT))
    assert table[["image", "region", "attribution", "area", "photo_area"]].to_numpy().tolist() == [
        [0, "left", 0.25, 0.5, 0.5],
        [1, "left", 1.0, 0.5, 0.5],
        [0, "corner", 0.625, 0.25, 0.25],
    ]


def test_what_speaks_against_the_class_is_counted_for_itself():
    maps = np.array([[[3.0, -1.0], [1.0, -3.0]]])
    box, seen = np.array([[[True, True], [False, False]]]), np.ones((1, 2, 2), bool)
    table = regions.region_table(maps, {"box": box}, seen).assign(group="a")
    assert table[["attribution", "against"]].to_numpy().tolist() == [[0.75, 0.25]]
    (row,) = regions.summary(table, ["region"], seed=0).to_dict("records")
    assert (row["times"], row["times_against"]) == (1.5, 0.5)
    unsigned = regions.region_table(abs(maps), {"box": box}, seen).assign(group="a")
    (row,) = regions.summary(unsigned, ["region"], seed=0).to_dict("records")
    assert np.isnan([unsigned["against"][0], row["times_against"]]).all()


def test_an_even_look_at_what_was_cut_out_is_chance_however_small_the_cut():
    seen, box = np.zeros((4, 20, 20), bool), np.zeros((4, 20, 20), bool)
    seen[:, 4:12, 6:16], box[:, 8:10, 7:11] = True, True
    found = regions.region_table(seen.astype(float), {"box": box}, seen).assign(group=range(4))
    (row,) = regions.summary(found, ["region"], seed=0).to_dict("records")
    assert (row["times"], row["photo_times"]) == pytest.approx((1, 5))  # 80 of 400 pixels were seen


def test_what_a_map_has_where_nothing_was_seen_is_left_out():
    seen, carton = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    seen[:, :2], carton[:, 0] = True, True
    found = regions.region_table(np.ones((1, 4, 4)), {"carton": carton, "belt": ~carton}, seen)
    assert (found["attribution"] / found["area"]).tolist() == [1, 1]


def test_a_region_that_was_cut_off_is_counted_as_missed():
    seen, box = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    seen[:, :2], box[:, 3] = True, True
    (row,) = regions.region_table(seen.astype(float), {"box": box}, seen).to_dict("records")
    assert (row["attribution"], row["area"], row["photo_area"]) == (0, 0, 0.25)
    rows = pd.DataFrame([row | {"group": item} for item in "ab"])
    (mean,) = regions.summary(rows, ["region"], seed=0).to_dict("records")
    assert (mean["times"], mean["times low"], mean["photo_times"]) == (0, 0, 0)


def table(attribution, area, region="box", pointed=False):
    figures = [(value, value, area, area / 2, pointed, 0.5) for value in attribution]
    rows = [(f"item {number}", region, *row) for number, row in enumerate(figures)]
    return pd.DataFrame(rows, columns=["group", "region", *regions.FIGURES])


def test_the_summary_is_the_share_of_attribution_over_that_of_the_area_with_its_interval():
    (row,) = regions.summary(table([0.4, 0.6] * 20, 0.1, pointed=True), ["region"], seed=0).to_dict("records")
    assert (row["images"], row["attribution"], row["times"]) == pytest.approx((40, 0.5, 5))
    reach = 1.96 * 0.1 / np.sqrt(40) / 0.1  # of the mean of 40, each 0.1 from it, over the area
    assert (row["times low"], row["times high"]) == pytest.approx((5 - reach, 5 + reach), abs=0.1)
    assert (row["pointed"], row["pointed low"]) == pytest.approx((1, 0.912), abs=1e-3)  # Wilson, 40 of 40


def test_two_photos_of_one_item_are_no_further_evidence():
    twice = pd.concat([table([0.4, 0.6] * 10, 0.1, pointed=True)] * 2, ignore_index=True)
    (row,) = regions.summary(twice, ["region"], seed=0).to_dict("records")
    assert row["pointed low"] == pytest.approx(0.839, abs=1e-3)  # Wilson, 20 of 20
    assert row["times low"] == pytest.approx(5 - 1.96 / np.sqrt(20), abs=0.08)


def test_without_any_region_there_is_nothing_to_sum_up():
    nowhere = np.zeros((2, 2, 2), bool)
    empty = regions.region_table(MAPS, {"damage box": nowhere}, LEFT).assign(group="", method="")
    found = regions.summary(empty, ["method", "region"], seed=0)
    assert found.empty
    assert {"method", "region", "times low", "pointed"} <= set(found)
    assert regions.looked_at(found, ["method"]).empty


def test_it_looks_at_the_region_with_most_for_its_area_if_that_is_surely_more_than_chance():
    rows = [table([0.5, 0.6] * 9, 0.1), table([0.4, 0.5] * 9, 0.3, "carton"), table([0.0, 0.1] * 9, 0.6, "belt")]
    found = regions.summary(pd.concat(rows).assign(method="a"), ["method", "region"], seed=0)
    assert regions.looked_at(found, ["method"])["a"] == "box"
    vague = regions.summary(table([0.0, 0.7, 0.1], 0.25).assign(method="a"), ["method", "region"], seed=0)
    assert regions.looked_at(vague, ["method"])["a"] == "nothing in particular"


def test_of_one_item_it_is_not_known_what_it_looks_at():
    found = regions.summary(table([0.9], 0.1).assign(method="a"), ["method", "region"], seed=0)
    assert regions.looked_at(found, ["method"])["a"] == "not known"
