import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import decisions
from helpers.decisions import FIXED, INSPECT, NEVER, PASS, REJECT, Costs, Decision, Items

PROBABILITIES = np.array([0.1, 0.4, 0.6, 0.9])
DAMAGED = np.array([False, True, False, True])
ITEMS = Items(PROBABILITIES, DAMAGED, 0.0)
cost = st.floats(0, 100)


def test_between_the_two_thresholds_a_hand_decides():
    found = decisions.actions(PROBABILITIES, Decision(0.4, 0.9))
    assert found.tolist() == [PASS, INSPECT, INSPECT, REJECT]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("always pass", 2 * 10 / 4), ("always inspect", 3.0), ("plain 0.5", (10 + 4) / 4)],  # one missed, one alarm
)
def test_the_mean_cost_of_the_fixed_decisions(name, expected):
    assert decisions.mean_cost(ITEMS, Costs(10, 4, 3), FIXED[name]) == expected


def test_an_account_says_what_is_found_rejected_and_inspected():
    found = decisions.account(ITEMS, Costs(10, 4, 1), Decision(0.5, 0.7))
    assert found == {"cost": 1000 * (10 + 1) / 4, "missed": 1, "found": 0.5, "alarms": 0.0, "inspected": 0.25}


def test_what_is_not_known_is_inspected():
    assert decisions.actions(np.array([math.nan]), Decision(0.5, 0.5)).tolist() == [INSPECT]


def test_without_damage_nothing_can_be_found():
    intact = Items(np.array([0.2]), np.array([False]), 0.0)
    assert math.isnan(decisions.account(intact, Costs(1, 1, 1), Decision(0.5, 0.5))["found"])


def test_the_best_decision_is_found_by_hand():
    found = decisions.choose(ITEMS, Costs(10, 4, 1))  # inspect the two in the middle: 2 in all
    assert decisions.actions(PROBABILITIES, found).tolist() == [PASS, INSPECT, INSPECT, REJECT]
    assert decisions.mean_cost(ITEMS, Costs(10, 4, 1), found) == 0.5


def test_of_equal_decisions_the_one_with_the_fewest_inspections_is_chosen():
    told_apart = Items(np.array([0.1, 0.9]), np.array([False, True]), 0.0)
    found = decisions.choose(told_apart, Costs(10, 4, 0))  # inspecting is free, and nothing needs it
    assert decisions.actions(told_apart.probabilities, found).tolist() == [PASS, REJECT]


def test_where_inspections_are_dear_there_are_none():
    found = decisions.choose(ITEMS, Costs(10, 4, 50))
    assert INSPECT not in decisions.actions(PROBABILITIES, found)
    assert decisions.mean_cost(ITEMS, Costs(10, 4, 50), found) == 1.0  # one false alarm of 4


@given(
    st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 21).tolist()), st.booleans()), min_size=1, max_size=30),
    st.builds(Costs, cost, cost, cost),
    st.just(0.0) | st.floats(0.01, 0.99),
)
def test_no_decision_is_cheaper_on_the_data_it_was_chosen_on(drawn, costs, share):
    damaged = np.array([d for _, d in drawn])
    items = Items(np.array([p for p, _ in drawn]), damaged, share if 0 < damaged.sum() < len(damaged) else 0.0)
    chosen = decisions.mean_cost(items, costs, decisions.choose(items, costs))
    ends = [*np.linspace(0, 1, 21), NEVER]
    others = [Decision(low, high) for low in ends for high in ends if low <= high]
    for other in [*others, *FIXED.values()]:
        assert chosen <= decisions.mean_cost(items, costs, other) + 1e-6


def test_many_items_are_decided_as_well_as_the_fixed_ones():
    generator = np.random.default_rng(0)
    probabilities = generator.random(20_000)
    items = Items(probabilities, generator.random(20_000) < probabilities, 0.0)
    costs = Costs(20, 5, 1)
    chosen = decisions.mean_cost(items, costs, decisions.choose(items, costs))
    ideal = Decision(1 / 20, 1 - 1 / 5)  # where an inspection costs what a mistake is expected to
    assert chosen <= decisions.mean_cost(items, costs, ideal) + 0.005
    assert all(chosen <= decisions.mean_cost(items, costs, fixed) for fixed in FIXED.values())


def test_thresholds_lie_halfway_between_items():
    assert decisions.choose(ITEMS, Costs(10, 4, 1)) == pytest.approx((0.25, 0.75))


def test_the_next_damaged_item_is_below_the_lowest_of_n_in_one_of_n_plus_one_cases():
    generator = np.random.default_rng(0)
    for count in (1, 5, 20):
        drawn = generator.random((4000, count + 1))
        seen = drawn[:, :-1].min(1)
        items = decisions.with_next(Items(drawn[0, :-1], np.ones(count, bool), 0.0))
        passed = decisions.actions(items.probabilities, Decision(seen[0], NEVER))[items.damaged] == PASS
        assert passed.mean() == pytest.approx(1 / (count + 1))
        assert (drawn[:, -1] < seen).mean() == pytest.approx(1 / (count + 1), abs=0.025)


def drawn_items(generator, count, apart=3.0):
    """Half of them damaged; their probabilities are those of the two normal distributions they come from."""
    damaged = np.arange(count) % 2 == 0
    evidence = apart * generator.normal(np.where(damaged, apart / 2, -apart / 2), 1)
    return Items(1 / (1 + np.exp(-evidence)), damaged, 0.0)


@pytest.mark.parametrize(("missed", "without"), [(50.0, 1.3), (500.0, 8.0)])
def test_a_decision_on_few_items_costs_no_more_than_inspecting_all_and_would_without_the_next_ones(missed, without):
    generator, costs = np.random.default_rng(0), Costs(missed, 10.0, 1.0)
    line = drawn_items(generator, 20_000)
    ways = {"as they are": lambda items: items, "with the next": decisions.with_next}
    spent = {
        name: np.mean(
            [
                decisions.mean_cost(line, costs, decisions.choose(way(drawn_items(generator, 24)), costs))
                for _ in range(60)
            ]
        )
        for name, way in ways.items()
    }
    assert spent["with the next"] < costs.inspection
    assert spent["as they are"] > without


@pytest.mark.parametrize("costs", [Costs(-1, 1, 1), Costs(1, 1, -2), Costs(1, np.nan, 1), Costs(np.inf, 1, 1)])
def test_costs_below_0_or_that_are_no_numbers_are_refused(costs):
    with pytest.raises(ValueError, match="Costs must be numbers of 0 or more"):
        decisions.choose(ITEMS, costs)


def test_a_defect_that_is_no_label_is_refused_and_there_may_be_none():
    for defect in ("torn", ""):
        decisions.check_defect(defect, ["fine", "torn"])
    with pytest.raises(ValueError, match="No label is called 'damaged': set defect to one of fine, torn, or to ''"):
        decisions.check_defect("damaged", ["fine", "torn"])


@pytest.mark.parametrize("share", [-0.1, 1.0, np.nan])
def test_a_share_that_is_none_of_a_whole_is_refused(share):
    with pytest.raises(ValueError, match=r"defect_share=.* must be from 0 to below 1"):
        decisions.check_share(pd.Series(["torn", "fine"]), "torn", share)


def table_of(damaged, probabilities):
    labels = np.where(damaged, "torn", "fine")
    return pd.DataFrame({"label": labels, "torn": probabilities, "fine": 1 - np.array(probabilities)})


def test_items_are_those_of_a_table():
    items = decisions.items(table_of(DAMAGED, PROBABILITIES), "torn", 0.0)
    assert items.damaged.tolist() == DAMAGED.tolist()
    assert items.probabilities.tolist() == PROBABILITIES.tolist()


def test_a_line_with_less_damage_than_the_data_is_judged_as_if_the_data_had_as_little():
    generator = np.random.default_rng(0)
    damaged = np.arange(100) < 50
    probabilities = np.clip(np.where(damaged, 0.6, 0.4) + generator.normal(0, 0.3, 100), 0, 1)
    items = Items(probabilities, damaged, 0.02)
    repeated = items.take(np.concatenate([np.arange(50), np.tile(np.arange(50, 100), 49)]))._replace(share=0.0)
    costs = Costs(20, 5, 1)
    assert decisions.choose(items, costs) == decisions.choose(repeated, costs)
    assert decisions.choose(items, costs) != decisions.choose(items._replace(share=0.0), costs)
    for way in [*FIXED.values(), Decision(0.3, 0.8)]:
        assert decisions.account(items, costs, way) == pytest.approx(decisions.account(repeated, costs, way))


def test_the_share_of_the_line_holds_whatever_is_drawn():
    items = Items(PROBABILITIES, DAMAGED, 0.02)
    for rows in ([0, 1], [0, 1, 1, 3], [0, 2, 3]):
        assert decisions.mean_cost(items.take(rows), Costs(10, 4, 3), FIXED["always pass"]) == pytest.approx(0.02 * 10)
    assert math.isnan(decisions.mean_cost(items.take([0, 2]), Costs(10, 4, 3), FIXED["always pass"]))


@pytest.mark.parametrize("labels", [["fine", "fine"], ["torn"], []])
def test_a_share_needs_items_of_both_kinds(labels):
    decisions.check_share(pd.Series(labels, dtype=object), "torn", 0.0)
    with pytest.raises(ValueError, match="there must be some, and some others"):
        decisions.check_share(pd.Series(labels, dtype=object), "torn", 0.02)


def test_a_decision_that_never_rejects_is_plain_json():
    chosen = decisions.choose(ITEMS._replace(damaged=np.zeros_like(DAMAGED)), Costs(1, 1, 1))
    assert chosen == FIXED["always pass"]
    assert Decision(*json.loads(json.dumps(chosen, allow_nan=False))) == chosen


def test_without_validation_data_there_is_no_decision():
    with pytest.raises(ValueError, match="there are none"):
        decisions.choose(Items(np.array([]), np.array([], bool), 0.0), Costs(1, 1, 1))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ((0.12, 0.8), "pass below 0.12, reject from 0.80 on, inspect the rest"),
        ((0.5, 0.5), "pass below 0.50, reject from 0.50 on"),
        ((0.3, NEVER), "pass below 0.30, inspect the rest"),
        ((0.0, 0.7), "reject from 0.70 on, inspect the rest"),
        ((0.0, NEVER), "inspect everything"),
        ((0.0, 0.0), "reject everything"),
        ((NEVER, NEVER), "pass everything"),
    ],
)
def test_a_decision_is_told_in_words(way, words):
    assert decisions.in_words(Decision(*way)) == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.12, 0.5, "pass below 0.12, reject from 0.50 on, inspect the rest"),
        (0.0034, NEVER, "pass below 0.0034, inspect the rest"),
        (0.997, 0.9985, "pass below 0.9970, reject from 0.9985 on, inspect the rest"),
        (1.0, NEVER, "pass below 1.00, inspect the rest"),
        (0.49983, 0.5, "pass below 0.49983, reject from 0.50000 on, inspect the rest"),
        (0.1884, 0.5123, "pass below 0.18, reject from 0.52 on, inspect the rest"),
        (0.1884, 0.1884, "pass below 0.18, reject from 0.18 on"),
    ],
)
def test_thresholds_near_the_ends_or_each_other_are_told_from_them(low, high, words):
    assert decisions.in_words(Decision(low, high)) == words


def test_among_many_items_the_plain_threshold_is_tried_as_well():
    probabilities = np.linspace(0, 1, 5000) ** 2
    items, costs = Items(probabilities, probabilities >= 0.5, 0.0), Costs(10, 10, 100)
    assert decisions.mean_cost(items, costs, decisions.choose(items, costs)) == 0


def test_items_that_are_always_inspected_have_no_part_in_the_choice():
    costs = Costs(50, 10, 1)
    items = Items(np.array([0.05] * 80 + [0.9] * 19 + [0.02]), np.array([False] * 80 + [True] * 20), 0.0)
    alone = decisions.with_next(items.inspecting(items.probabilities == 0.02))
    assert decisions.choose(decisions.with_next(items), costs).pass_below == 0
    chosen = decisions.choose(alone, costs)
    assert 0.05 < chosen.pass_below < 0.9
    assert decisions.mean_cost(alone, costs, chosen) == pytest.approx(
        (50 + 10 + 1) / 102
    )  # two imagined, one inspected
