import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import catalog
from helpers.archives import Archive, ArchiveError, write_zip
from helpers.catalog import SplitError


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
    return catalog.assign_splits(table, validation_fraction=validation, test_fraction=test, seed=seed)


@settings(max_examples=25)
@given(counts=st.tuples(st.integers(5, 20), st.integers(5, 60)), seed=st.integers(0, 999))
def test_every_label_gives_its_fraction_to_each_split(counts, seed):
    divided, _ = divide(photos(items_of(a=counts[0], b=counts[1])), validation=0.2, test=0.3, seed=seed)
    for label, count in zip("ab", counts, strict=True):
        sizes = divided[divided["label"] == label].groupby("split")["item"].nunique()
        assert sizes["validation"] == max(1, round(0.2 * count))
        assert sizes["test"] == max(1, round(0.3 * count))


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


@pytest.fixture
def raw(tmp_path):
    """A raw archive of ten items of 60 x 40 px, the first with a box."""
    members = []
    for number in range(10):
        label = "ab"[number % 2]
        for view in ("side", "top"):
            pixels = np.random.default_rng([number, view == "top"]).integers(0, 256, (4, 6, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((60, 40)).save(buffer, "PNG")
            members.append((f"{label}/{view}/{number}_{view}.png", buffer.getvalue()))
    corners = b"<xmin>6</xmin><ymin>4</ymin><xmax>30</xmax><ymax>20</ymax>"
    box = b"<annotation><object><name>damage</name><bndbox>" + corners + b"</bndbox></object></annotation>"
    members.append(("a/side/0_side.xml", box))
    return write_zip(tmp_path / "raw.zip", members)


def prepared(raw, path, **changes):
    options = {"name": "tiny", "height": 20, "width": 30, "seed": 0} | changes
    with Archive(raw) as archive:
        table, _ = catalog.scan(archive)
        divided, _ = divide(table, seed=options["seed"])
        return catalog.save(archive, divided, path, **options)


def test_what_is_saved_is_loaded_again_with_all_its_facts(raw, tmp_path):
    dataset = prepared(raw, tmp_path / "data.zip")
    assert (dataset.name, dataset.classes, dataset.views, dataset.seed) == ("tiny", ["a", "b"], ["side", "top"], 0)
    assert dataset.catalog.columns.tolist() == catalog.COLUMNS
    assert len(dataset.catalog) == 20
    row = dataset.catalog.set_index("path").loc["images/a/side/0_side.jpg"]
    assert row[["label", "view", "item", "split", "width", "height"]].tolist() == ["a", "side", "0", "test", 30, 20]
    assert row["boxes"] == [["damage", 3, 2, 15, 10]]  # half the size, half the box
    with Archive(dataset.path) as archive:
        assert Image.open(io.BytesIO(archive.read(row.name))).size == (30, 20)


def test_items_that_look_the_same_are_known_by_it_after_saving_and_an_archive_without_groups_has_items(raw, tmp_path):
    with Archive(raw) as archive:
        table, _ = catalog.scan(archive)
        divided, _ = divide(table.assign(group=pd.factorize(table["label"] + table["item"].str[-1:])[0]))
        saved = catalog.save(archive, divided, tmp_path / "data.zip", name="", height=20, width=30, seed=0)
    groups = divided.sort_values("source", kind="stable")["group"].astype(str)
    assert saved.catalog["group"].tolist() == groups.tolist()
    without = saved.catalog.drop(columns="group").assign(boxes="[]").to_csv(index=False).encode()
    loaded = catalog.load(rewritten(saved.path, tmp_path / "old.zip", **{"catalog.csv": without}))
    assert loaded.catalog["group"].tolist() == loaded.catalog["item"].tolist()


def test_the_same_input_and_parameters_give_the_same_bytes(raw, tmp_path):
    first, again, other = (
        prepared(raw, tmp_path / f"{name}.zip", seed=seed).sha256 for name, seed in (("a", 0), ("b", 0), ("c", 5))
    )
    assert first == again
    assert first != other


def rewritten(path, target, **changes):
    """The archive with members replaced, or left out where the change is None."""
    with Archive(path) as archive:
        members = {name: archive.read(name) for name in archive.names} | changes
    return write_zip(target, [(name, data) for name, data in members.items() if data is not None])


def test_what_is_no_data_archive_says_what_is_missing(raw, tmp_path):
    with pytest.raises(ArchiveError, match=r"holds no catalog\.csv and no dataset\.json: make it with 01"):
        catalog.load(raw)


def test_damaged_facts_old_formats_and_absent_images_are_refused(raw, tmp_path):
    path = prepared(raw, tmp_path / "data.zip").path
    with Archive(path) as archive:
        facts = json.loads(archive.read("dataset.json"))
        table = archive.read("catalog.csv")
    cases = {
        "has format 99, not 2": {"dataset.json": json.dumps(facts | {"format_version": 99}).encode()},
        "has format 3, not 2": {"dataset.json": b'{"format_version": 3, "new": 0}', "catalog.csv": b"other\n"},
        "its catalog is damaged": {"dataset.json": b"{"},
        "its catalog is damaged .*seed": {
            "dataset.json": json.dumps({key: value for key, value in facts.items() if key != "seed"}).encode()
        },
        "its catalog is damaged .*label": {"catalog.csv": table.replace(b"label", b"lapel", 1)},
        "its catalog is damaged .*boxes": {"catalog.csv": table.replace(b"boxes", b"foxes")},
        r"splits that are none \(tset\)": {"catalog.csv": table.replace(b",test,", b",tset,", 1)},
        r"labels that are no class \(b\)": {"dataset.json": json.dumps(facts | {"classes": ["a"]}).encode()},
        "views that are not named": {"dataset.json": json.dumps(facts | {"views": ["side"]}).encode()},
        "items in two splits": {"catalog.csv": table.replace(b",test,", b",train,", 1)},
        "paths that come twice": {"catalog.csv": table + table.splitlines(keepends=True)[1]},
        "its catalog is damaged .*NoneType": {"dataset.json": json.dumps(facts | {"classes": None}).encode()},
        "lacks 1 images of its catalog, 'images/a/side/0_side.jpg' first": {"images/a/side/0_side.jpg": None},
    }
    for message, changes in cases.items():
        with pytest.raises(ArchiveError, match=message):
            catalog.load(rewritten(path, tmp_path / "other.zip", **changes))


def test_overlaps_names_what_stands_in_two_splits():
    table = pd.DataFrame({"item": ["x", "x", "y", "z"], "split": ["train", "test", "train", "test"]})
    assert catalog.overlaps(table, "item") == ["x"]


def test_two_photos_of_one_name_both_find_a_place(tmp_path):
    table = pd.DataFrame({"label": ["a", "a"], "view": ["", ""], "item": ["a/1", "a/1"]})
    assert catalog._stored_paths(table) == ["images/a/1.jpg", "images/a/1.2.jpg"]


def test_a_numbered_place_that_is_taken_is_passed_over():
    table = pd.DataFrame({"label": "a", "view": "", "item": ["a/1", "a/1.2", "a/1"]})
    assert catalog._stored_paths(table) == ["images/a/1.jpg", "images/a/1.2.jpg", "images/a/1.3.jpg"]


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
    assert catalog.overlaps(divided, "item") == catalog.overlaps(divided, "group") == []
    assert set(divided.loc[divided["group"].isin([100 + number for number in boxed]), "split"]) <= {"test"}


@settings(max_examples=25)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=4), st.integers(1, 40), st.integers(1, 10))
def test_splits_by_count_have_so_many_of_each_label_and_leave_a_tenth_to_test(sizes, train, validation):
    table = photos(items_of(**{f"label{number}": size for number, size in enumerate(sizes)}))
    divided = catalog.assign_counts(table, train=train, validation=validation, seed=0)
    assert catalog.overlaps(divided, "item") == []
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
        catalog.assign_counts(photos(items_of(a=9, b=5 if alike else 2), group=alike), train=3, validation=1, seed=0)


def test_what_looks_alike_stays_together_when_splitting_by_count():
    table = photos(items_of(a=12, b=12), group={f"a{number}": 100 + number // 3 for number in range(12)})
    divided = catalog.assign_counts(table, train=6, validation=3, seed=1)
    assert catalog.overlaps(divided, "group") == []


@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="must be at least 1 item of each label"):
        catalog.assign_counts(photos(items_of(a=5, b=5)), train=counts[0], validation=counts[1], seed=0)


def test_limits_keep_the_other_splits_and_add_images_to_those_of_a_smaller_limit(dataset):
    def learned(limited):
        return set(limited.catalog.query("split == 'train'")["path"])

    two, three = catalog.limit(dataset, 2, seed=0), catalog.limit(dataset, 3, seed=0)
    assert two.catalog.query("split == 'train'")["label"].value_counts().to_dict() == {"blue": 2, "red": 2}
    assert learned(two) < learned(three) < learned(dataset)
    for split in ("validation", "test"):
        assert (two.catalog["split"] == split).sum() == (dataset.catalog["split"] == split).sum()
    assert learned(catalog.limit(dataset, 99, seed=0)) == learned(dataset)


def test_photos_that_stay_in_their_archive_are_a_data_set_too(dataset, tmp_path):
    with Archive(dataset.path) as archive:
        found, _ = catalog.scan(archive)
        found["group"] = pd.factorize(found["item"])[0]  # plain colors all look alike
        divided, _ = catalog.assign_splits(found, validation_fraction=0.2, test_fraction=0.2, seed=0)
        in_place = catalog.in_place(archive, divided, name="tiny", seed=0)
    assert in_place.catalog.columns.tolist() == catalog.COLUMNS
    assert set(in_place.catalog["path"]) == set(dataset.catalog["path"])
    assert (in_place.classes, in_place.views) == (["blue", "red"], ["side", "top"])
    assert in_place.sha256 == dataset.sha256


def test_rows_where_takes_one_value_or_several_and_all_conditions_at_once():
    table = pd.DataFrame({"split": ["train", "test", "test", "train"], "view": ["top", "top", "side", ""]})
    assert catalog.rows_where(table, split="test").tolist() == [1, 2]
    assert catalog.rows_where(table, view=["top", ""]).tolist() == [0, 1, 3]
    assert catalog.rows_where(table, split="test", view=["top"]).tolist() == [1]
    assert catalog.rows_where(table, split="validation").tolist() == []
    assert catalog.rows_where(table).tolist() == [0, 1, 2, 3]
