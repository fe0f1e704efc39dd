import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import splits
from helpers.splits import SplitError


def photos(items, *, group=None, annotated=(), split=None):
    """A table of photos with two views for each (label, item), as the checks leave it."""
    rows = [
        {
            "source": f"{label}/{view}/{item}_{view}.jpg",
            "label": label,
            "view": view,
            "item": item,
            "split": (split or {}).get(item, ""),
            "annotated": item in annotated,
            "group": (group or {}).get(item, number),
        }
        for number, (label, item) in enumerate(items)
        for view in ("side", "top")
    ]
    return pd.DataFrame(rows)


def items_of(**counts):
    return [(label, f"{label}{number}") for label, count in counts.items() for number in range(count)]


def divide(table, validation=0.2, test=0.2, seed=0):
    return splits.assign_splits(table, validation_fraction=validation, test_fraction=test, seed=seed)


@settings(max_examples=25)
@given(counts=st.tuples(st.integers(5, 20), st.integers(5, 60)), seed=st.integers(0, 999))
def test_every_label_gives_its_fraction_to_each_split(counts, seed):
    divided, _ = divide(photos(items_of(a=counts[0], b=counts[1])), validation=0.2, test=0.3, seed=seed)
    for label, count in zip("ab", counts, strict=True):
        sizes = divided[divided["label"] == label].groupby("split")["item"].nunique()
        assert sizes["validation"] == max(1, round(0.2 * count))
        assert sizes["test"] == max(1, round(0.3 * count))


@pytest.mark.parametrize("order", [1, -1])
def test_every_label_gives_its_fraction_where_photos_of_both_look_alike(order):
    alike = {f"a{number}": 999 for number in range(12)} | {f"b{number}": 999 for number in range(60)}
    table = photos(items_of(a=40, b=80), group=alike).iloc[::order]
    by_counts = splits.assign_counts(table, train=20, validation=8, seed=0)
    for divided, wanted in ((divide(table)[0], {"a": (8, 8), "b": (4, 16)}), (by_counts, {"a": (8, 12), "b": (8, 12)})):
        for label, (validation, test) in wanted.items():
            sizes = divided[divided["label"] == label].groupby("split")["item"].nunique()
            assert (sizes["validation"], sizes["test"]) == (validation, test)


def test_numbering_that_starts_again_in_each_split_is_named():
    tables = []
    for split, count in {"train": 10, "validation": 3, "test": 3}.items():
        items = items_of(a=count, b=count)
        tables.append(photos(items, split={item: split for _, item in items}))
    table = pd.concat(tables)
    with pytest.raises(SplitError, match="6 items stand in several splits: where numbering starts again in each, make"):
        divide(table.assign(group=table.groupby("item").ngroup()))


def test_the_same_seed_divides_the_same_way_and_another_does_not():
    table = photos(items_of(a=30, b=30))
    first, again, other = (divide(table, seed=seed)[0]["split"].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_annotated_items_count_towards_the_test_split():
    divided, _ = divide(photos(items_of(a=10, b=10), annotated={"a0", "a1"}))
    test = divided[(divided["split"] == "test") & (divided["label"] == "a")]
    assert set(test["item"]) == {"a0", "a1"}


def test_a_set_that_came_divided_stays_so():
    came = {item: {"0": "test", "1": "validation"}.get(item[-1], "train") for _, item in items_of(a=5, b=5)}
    divided, moved = divide(photos(items_of(a=5, b=5), split=came))
    assert divided["split"].tolist() == [came[item] for item in divided["item"]]
    assert moved.empty


def test_a_missing_validation_split_is_drawn_from_train_alone():
    came = {item: "test" if item.endswith(("0", "1")) else "train" for _, item in items_of(a=10, b=10)}
    divided, moved = divide(photos(items_of(a=10, b=10), split=came))
    sizes = divided.groupby(["label", "split"])["item"].nunique()
    assert sizes.unstack().to_dict("index") == {key: {"test": 2, "train": 6, "validation": 2} for key in "ab"}
    assert set(divided[divided["item"].isin(["a0", "a1", "b0", "b1"])]["split"]) == {"test"}
    assert moved.empty  # a split that was drawn is no finding


def test_a_copy_across_given_splits_moves_to_the_more_protected_one_and_is_reported():
    came = dict.fromkeys([item for _, item in items_of(a=6, b=6)], "train")
    came |= {"a4": "validation", "b4": "validation", "a5": "test", "b5": "test"}
    divided, moved = divide(photos(items_of(a=6, b=6), split=came, group={"a0": 77, "a5": 77}))
    assert set(divided.loc[divided["item"] == "a0", "split"]) == {"test"}
    assert moved["source"].tolist() == ["a/side/a0_side.jpg", "a/top/a0_top.jpg"]
    assert moved["problem"].unique().tolist() == ["moved from train to test: its item, a copy or boxes"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (photos(items_of(a=9)), "1 labels are left after the checks, at least 2 are needed"),
        (
            photos(items_of(a=9, b=2)),
            r"(?s)Too few usable.*label needs at least 3 items: add photos, or leave",
        ),
        (photos(items_of(a=9, b=5), group=dict.fromkeys([f"b{n}" for n in range(5)], 50)), "Too few usable items"),
        (photos(items_of(a=9, b=4), annotated={"b0", "b1", "b2"}), r"(?s)usable.*remove the \.xml"),
        (photos(items_of(a=9, b=3), annotated={"b0", "b1", "b2"}), "Too few usable items"),
    ],
    ids=["one label", "two items", "all alike", "all but one with boxes", "all with boxes"],
)
def test_what_cannot_be_divided_stops_with_the_counts(table, message):
    with pytest.raises(SplitError, match=message):
        divide(table)


@pytest.mark.parametrize(("validation", "test"), [(0, 0.2), (0.2, 0), (0.5, 0.5), (-0.1, 0.2)])
def test_impossible_fractions_are_refused(validation, test):
    with pytest.raises(ValueError, match="must each be over 0, and together below 1"):
        divide(photos(items_of(a=9, b=9)), validation, test)


def test_overlaps_names_what_stands_in_two_splits():
    table = pd.DataFrame({"item": ["x", "x", "y", "z"], "split": ["train", "test", "train", "test"]})
    assert splits.overlaps(table, "item") == ["x"]


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=12),
    boxed=st.sets(st.integers(0, 11)),
    validation=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
    seed=st.integers(0, 99),
)
def test_nothing_straddles_two_splits_and_three_groups_are_enough(sizes, boxed, validation, test, seed):
    """Neither items nor copies nor boxes do; two of the groups have none, and groups and fractions have any size."""
    boxed = sorted(number for number in boxed if number < len(sizes))[: len(sizes) - 2]
    members = [(number, copy) for number, size in enumerate(sizes) for copy in range(size)]
    items = [(label, f"{label}{number}.{copy}") for label in "ab" for number, copy in members]
    group = {item: 100 * (label == "a") + int(item[1:].split(".")[0]) for label, item in items}
    divided, _ = divide(
        photos(items, group=group, annotated={f"a{number}.0" for number in boxed}), validation, test, seed
    )
    assert divided.groupby("label")["split"].nunique().tolist() == [3, 3]
    assert splits.overlaps(divided, "item") == splits.overlaps(divided, "group") == []
    assert set(divided.loc[divided["group"].isin([100 + number for number in boxed]), "split"]) <= {"test"}


@settings(max_examples=25)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=4), st.integers(1, 40), st.integers(1, 10))
def test_splits_by_count_have_so_many_of_each_label_and_leave_a_tenth_to_test(sizes, train, validation):
    table = photos(items_of(**{f"label{number}": size for number, size in enumerate(sizes)}))
    divided = splits.assign_counts(table, train=train, validation=validation, seed=0)
    assert splits.overlaps(divided, "item") == []
    counts = divided.groupby(["label", "split"])["item"].nunique().unstack(fill_value=0)
    for number, size in enumerate(sizes):
        row = counts.loc[f"label{number}"]
        assert row.sum() == size
        assert 1 <= row["train"] <= train
        assert 1 <= row["validation"] <= validation
        assert row["test"] >= max(1, size // 10)
        if size >= 2 * (train + validation) and size >= 5 * validation:
            assert (row["train"], row["validation"]) == (train, validation)


@pytest.mark.parametrize("alike", [{}, dict.fromkeys([f"b{number}" for number in range(5)], 50)])
def test_what_cannot_be_split_by_count_stops_with_the_counts(alike):
    with pytest.raises(SplitError, match="Too few usable items"):
        splits.assign_counts(photos(items_of(a=9, b=5 if alike else 2), group=alike), train=3, validation=1, seed=0)


def test_what_looks_alike_stays_together_when_splitting_by_count():
    table = photos(items_of(a=12, b=12), group={f"a{number}": 100 + number // 3 for number in range(12)})
    divided = splits.assign_counts(table, train=6, validation=3, seed=1)
    assert splits.overlaps(divided, "group") == []


def test_a_label_of_few_large_groups_is_in_all_splits_by_count():
    table = photos(items_of(a=30, b=30), group={f"a{number}": 100 + number // 10 for number in range(30)})
    divided = splits.assign_counts(table, train=5, validation=2, seed=0)
    sizes = divided[divided["label"] == "a"].groupby("split")["item"].nunique()
    assert sizes.to_dict() == {"train": 10, "validation": 10, "test": 10}


@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="must be at least 1 item of each label"):
        splits.assign_counts(photos(items_of(a=5, b=5)), train=counts[0], validation=counts[1], seed=0)


def test_a_missing_test_is_drawn_from_two_items_to_learn_from():
    items = items_of(a=3, b=3)
    came = {item: "validation" if item[-1] == "2" else "train" for _, item in items}
    divided, _ = divide(photos(items, split=came))
    assert divided.groupby("label")["split"].nunique().tolist() == [3, 3]
