import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import catalog, splits
from helpers.archives import Archive, ArchiveError, write_zip


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
        divided, _ = splits.assign_splits(table, validation_fraction=0.2, test_fraction=0.2, seed=options["seed"])
        return catalog.save(archive, divided, path, **options)


def test_what_is_saved_is_loaded_again_with_all_its_facts(raw, tmp_path):
    dataset = prepared(raw, tmp_path / "data.zip")
    assert (dataset.name, dataset.classes, dataset.views, dataset.seed) == ("tiny", ["a", "b"], ["side", "top"], 0)
    assert dataset.catalog.columns.tolist() == catalog.COLUMNS
    assert dataset.stored == {"height": 20, "width": 30}
    assert prepared(raw, tmp_path / "other.zip", seed=7).seed == 7
    assert len(dataset.catalog) == 20
    row = dataset.catalog.set_index("path").loc["images/a/side/0_side.jpg"]
    assert row[["label", "view", "item", "split", "width", "height"]].tolist() == ["a", "side", "0", "test", 30, 20]
    assert row["boxes"] == [["damage", 3, 2, 15, 10]]  # half the size, half the box
    smaller = prepared(raw, tmp_path / "smaller.zip", height=10, width=15).catalog
    assert smaller["boxes"].sum() == [["damage", 1, 1, 8, 5]]  # 1.5 to 7.5: never smaller, or a thin one would vanish
    with Archive(dataset.path) as archive:
        assert Image.open(io.BytesIO(archive.read(row.name))).size == (30, 20)


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
        "has format 99, not 4": {"dataset.json": json.dumps(facts | {"format_version": 99}).encode()},
        "has format 5, not 4": {"dataset.json": b'{"format_version": 5, "new": 0}', "catalog.csv": b"other\n"},
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


def test_two_photos_of_one_name_both_find_a_place(tmp_path):
    table = pd.DataFrame({"label": ["a", "a"], "view": ["", ""], "item": ["a/1", "a/1"]})
    assert catalog._stored_paths(table) == ["images/a/1.jpg", "images/a/1.2.jpg"]


def test_a_numbered_place_that_is_taken_is_passed_over():
    table = pd.DataFrame({"label": "a", "view": "", "item": ["a/1", "a/1.2", "a/1"]})
    assert catalog._stored_paths(table) == ["images/a/1.jpg", "images/a/1.2.jpg", "images/a/1.3.jpg"]


def test_limits_keep_the_other_splits_and_add_images_to_those_of_a_smaller_limit(dataset):
    def learned(limited):
        return set(limited.catalog.query("split == 'train'")["path"])

    two, three = catalog.limit(dataset, 2, seed=0), catalog.limit(dataset, 3, seed=0)
    assert two.catalog.query("split == 'train'")["label"].value_counts().to_dict() == {"blue": 2, "red": 2}
    assert learned(two) < learned(three) < learned(dataset)
    for split in ("validation", "test"):
        assert (two.catalog["split"] == split).sum() == (dataset.catalog["split"] == split).sum()
    assert learned(catalog.limit(dataset, 99, seed=0)) == learned(dataset)
    assert len({frozenset(learned(catalog.limit(dataset, 2, seed))) for seed in range(5)}) > 1  # drawn, not the first


def test_classes_are_in_their_own_order_and_not_in_that_of_the_photos(raw, tmp_path):
    with Archive(raw) as archive:
        table, _ = catalog.scan(archive)
        table["label"] = table["label"].replace("a", "z")  # the first photo now has the last label
        divided, _ = splits.assign_splits(table, validation_fraction=0.2, test_fraction=0.2, seed=0)
        saved = catalog.save(archive, divided, tmp_path / "data.zip", name="", height=20, width=30, seed=0)
    assert saved.classes == ["b", "z"]


def test_rows_where_takes_one_value_or_several_and_all_conditions_at_once():
    table = pd.DataFrame({"split": ["train", "test", "test", "train"], "view": ["top", "top", "side", ""]})
    assert catalog.rows_where(table, split="test").tolist() == [1, 2]
    assert catalog.rows_where(table, view=["top", ""]).tolist() == [0, 1, 3]
    assert catalog.rows_where(table, split="test", view=["top"]).tolist() == [1]
    assert catalog.rows_where(table, split="validation").tolist() == []
    assert catalog.rows_where(table).tolist() == [0, 1, 2, 3]


def test_items_that_look_the_same_are_known_by_it_after_saving_and_an_archive_without_groups_has_items(raw, tmp_path):
    with Archive(raw) as archive:
        table, _ = catalog.scan(archive)
        table["group"] = pd.factorize(table["label"] + table["item"].str[-1:])[0]
        divided, _ = splits.assign_splits(table, validation_fraction=0.2, test_fraction=0.2, seed=0)
        saved = catalog.save(archive, divided, tmp_path / "data.zip", name="", height=20, width=30, seed=0)
    groups = divided.sort_values("source", kind="stable")["group"].astype(str)
    assert saved.catalog["group"].tolist() == groups.tolist()
    without = saved.catalog.drop(columns="group").assign(boxes="[]").to_csv(index=False).encode()
    loaded = catalog.load(rewritten(saved.path, tmp_path / "old.zip", **{"catalog.csv": without}))
    assert loaded.catalog["group"].tolist() == loaded.catalog["item"].tolist()


def test_photos_that_stay_in_their_archive_are_a_data_set_too(dataset, tmp_path):
    with Archive(dataset.path) as archive:
        found, _ = catalog.scan(archive)
        found["group"] = pd.factorize(found["item"])[0]  # plain colors all look alike
        divided, _ = splits.assign_splits(found, validation_fraction=0.2, test_fraction=0.2, seed=0)
        in_place = catalog.in_place(archive, divided, name="tiny", seed=0)
    assert in_place.catalog.columns.tolist() == catalog.COLUMNS
    assert set(in_place.catalog["path"]) == set(dataset.catalog["path"])
    assert (in_place.classes, in_place.views) == (["blue", "red"], ["side", "top"])
    assert in_place.sha256 == dataset.sha256


def test_look_alikes_in_two_splits_are_refused(raw, tmp_path):
    saved = prepared(raw, tmp_path / "data.zip")
    table = saved.catalog.assign(group="1", boxes="[]").to_csv(index=False).encode()
    with pytest.raises(ArchiveError, match="look-alikes in two splits"):
        catalog.load(rewritten(saved.path, tmp_path / "b.zip", **{"catalog.csv": table}))
