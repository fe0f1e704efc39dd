import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from helpers import uncertainty


def test_wilson_is_the_interval_of_the_textbook():
    low, high = uncertainty.wilson(19, 20)  # z = 1.96: center (19 + z^2 / 2) / (20 + z^2)
    assert (low, high) == pytest.approx((0.7639, 0.9911), abs=1e-4)
    assert str(uncertainty.wilson(19, 20)) == "0.76 to 0.99"


@pytest.mark.parametrize("hits", [0, 5])
def test_wilson_stays_within_zero_and_one(hits):
    low, high = uncertainty.wilson(hits, 5)
    assert 0 <= low <= hits / 5 <= high <= 1


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one case"):
        uncertainty.wilson(0, 0)


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    hits = np.random.default_rng(0).binomial(30, 0.8, 2000)
    ends = {count: uncertainty.wilson(count, 30) for count in set(hits.tolist())}
    covered = np.mean([ends[count].low <= 0.8 <= ends[count].high for count in hits])
    assert 0.93 <= covered <= 0.98


def test_the_bootstrap_of_a_mean_is_the_interval_of_its_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = uncertainty.bootstrap(lambda rows: values[rows].mean(), range(400), seed=1)
    reach = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.05)


def test_what_belongs_together_is_drawn_together():
    groups = np.repeat(["a", "b"], 50)  # two items of 50 images each: there are only three outcomes
    seen = set()
    uncertainty.bootstrap(lambda rows: seen.add(tuple(np.bincount(rows // 50, minlength=2))) or 0.0, groups, seed=0)
    assert seen == {(100, 0), (50, 50), (0, 100)}


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(20.0)
    ends = [uncertainty.bootstrap(lambda rows: values[rows].mean(), range(20), seed) for seed in (3, 3, 4)]
    assert ends[0] == ends[1] != ends[2]


def test_a_power_law_is_found_again():
    images = np.array([10, 20, 40, 80])
    law = uncertainty.fit_learning_curve(images, 0.8 * images**-0.5)
    assert law == pytest.approx((0.8, 0.5))
    assert law.error(160) == pytest.approx(0.8 * 160**-0.5)
    assert law.doubling(80) == pytest.approx(0.8 * (80**-0.5 - 160**-0.5))
    assert law.error(np.array([0.01, 40])).tolist() == pytest.approx([1.0, 0.8 * 40**-0.5])  # never above 1


def test_no_mistake_at_all_can_be_fitted():
    assert np.isfinite(law := uncertainty.fit_learning_curve([5, 10], [0.1, 0.0])).all()
    assert law == uncertainty.fit_learning_curve([5, 10], [0.1, 0.001])  # the least share of mistakes that counts


def test_from_one_number_of_images_nothing_is_foretold():
    law = uncertainty.fit_learning_curve([12], [0.25])
    assert (law.error(12), law.error(24)) == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(("p", "told"), [(0.049, "is better than"), (0.05, "is not shown to be better than")])
def test_the_verdict_names_the_one_that_is_right_more_often(p, told):
    more, less, alone = np.array([True, True, False]), np.array([True, False, False]), range(3)
    assert uncertainty.verdict("a", "b", more, less, alone, p) == f"a {told} b with 3 cases"
    assert uncertainty.verdict("b", "a", less, more, alone, p) == f"a {told} b with 3 cases"


def test_the_verdict_names_the_one_that_the_test_found_ahead_where_many_cases_look_the_same():
    first = np.array([True] * 30 + [False] * 8)
    groups = [0] * 30 + list(range(1, 9))
    p = uncertainty.mcnemar(first, ~first, groups)
    assert p < 0.05
    assert uncertainty.verdict("a", "b", first, ~first, groups, p) == "b is better than a with 38 cases"


def test_the_interval_of_cases_that_look_the_same_is_that_of_so_few():
    assert uncertainty.wilson(10, 40, 8) == pytest.approx(uncertainty.wilson(2, 8))
    assert uncertainty.wilson(10, 40, 40) == uncertainty.wilson(10, 40)
    assert uncertainty.wilson(1, 20, 8) == pytest.approx((0.0044, 0.3884), abs=1e-3)  # not that of none of eight


def test_mcnemar_counts_only_the_cases_that_one_got_right():
    first = np.array([True] * 5 + [False] + [True] * 20)
    second = np.array([False] * 5 + [True] + [True] * 20)
    alone = range(26)
    assert uncertainty.mcnemar(first, second, alone) == pytest.approx(2 * (1 + 6) / 2**6)  # 1 or 0 of 6, on either side
    assert uncertainty.mcnemar(second, first, alone) == uncertainty.mcnemar(first, second, alone)
    assert uncertainty.mcnemar(first, first, alone) == 1.0


def test_networks_that_are_equally_good_seldom_seem_to_differ():
    generator = np.random.default_rng(0)
    right = generator.random((500, 2, 60)) < 0.8
    assert np.mean([uncertainty.mcnemar(*pair, range(60)) < 0.05 for pair in right]) <= 0.05


def test_photos_of_one_thing_prove_no_more_than_one():
    generator = np.random.default_rng(0)
    groups = np.repeat(range(60), generator.integers(1, 5, 60))
    right = (generator.random((500, 2, 60)) < 0.8)[..., groups]  # all photos of a thing are answered alike
    assert np.mean([uncertainty.mcnemar(*pair, groups) < 0.05 for pair in right]) <= 0.05
    assert np.mean([uncertainty.mcnemar(*pair, range(len(groups))) < 0.05 for pair in right]) > 0.1


def test_several_figures_are_drawn_together():
    values = np.arange(40.0).reshape(20, 2)
    low, high = uncertainty.bootstrap(lambda rows: values[rows].mean(0), range(20), seed=0)
    alone = uncertainty.bootstrap(lambda rows: values[rows, 1].mean(), range(20), seed=0)
    assert (low[1], high[1]) == alone


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(uncertainty, "_ROUNDS", 300)
    generator, covered = np.random.default_rng(0), []
    for seed in range(200):
        values = generator.exponential(1.0, 60)  # skew, as costs are
        low, high = uncertainty.bootstrap(lambda rows, values=values: values[rows].mean(), range(60), seed)
        covered.append(low <= 1.0 <= high)
    assert 0.88 <= np.mean(covered) <= 0.98


def test_one_group_has_no_interval():
    values = np.array([[0.2, 1.0], [0.4, 1.0]])
    low, high = uncertainty.bootstrap(lambda rows: values[rows].mean(0), ["a", "a"], seed=0)
    assert np.isnan([low, high]).all()
    assert np.shape(low) == (2,)
    assert np.isnan(uncertainty.bootstrap(lambda rows: values[rows, 0].mean(), ["a", "a"], seed=0)).all()


def test_holm_raises_the_lowest_most_and_keeps_the_order():
    assert uncertainty.holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert uncertainty.holm([0.9, 0.8]).tolist() == [1, 1]
    assert uncertainty.holm([0.02]).tolist() == [0.02]
    assert uncertainty.holm([]).tolist() == []


def test_after_holm_a_series_of_tests_between_equals_seldom_shows_a_difference():
    series = np.random.default_rng(0).random((4000, 6))
    alarms = np.mean([(uncertainty.holm(values) < 0.05).any() for values in series])
    assert alarms == pytest.approx(1 - (1 - 0.05 / 6) ** 6, abs=0.012)
    assert (series < 0.05).any(1).mean() > 0.2  # as they are


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_mcnemar_is_the_binomial_test_of_the_cases_that_tell(first_only, second_only, both):
    first = np.repeat([True, False, True], [first_only, second_only, both])
    second = np.repeat([False, True, True], [first_only, second_only, both])
    tails = 2 * binom.cdf(min(first_only, second_only), first_only + second_only, 0.5)
    assert uncertainty.mcnemar(first, second, range(len(first))) == pytest.approx(min(1.0, tails))


def test_rounds_in_which_a_figure_is_not_defined_do_not_count():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan]])

    def first_row(rows):
        return values[rows[0]]

    low, high = uncertainty.bootstrap(first_row, range(3), seed=0)
    assert (low[0], high[0]) == (1, 2)
    assert np.isnan([low[1], high[1]]).all()
