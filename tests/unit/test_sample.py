import io

import defusedxml.ElementTree
import numpy as np
import pytest
from PIL import Image

from helpers import rendering, sample
from helpers.layouts import read_layout
from helpers.scenery import HALF_SIZE, Dent, Flap, Tear

SEEDS = range(24)


@pytest.fixture(scope="module")
def damaged():
    return [sample.draw_item(seed, damaged=True) for seed in SEEDS]


@pytest.fixture(scope="module")
def members():
    return list(sample.draw_sample(6, annotated=2, seed=3))


def test_pictures_are_those_of_the_cameras(damaged):
    for item in damaged[:3]:
        assert sorted(item) == ["side", "top"]
        assert all(picture.image.shape == (540, 960, 3) for picture in item.values())
        assert all(picture.image.dtype == np.uint8 for picture in item.values())


def test_the_same_seed_draws_the_same_archive_and_another_seed_another(members):
    again = list(sample.draw_sample(6, annotated=2, seed=3))
    other = dict(sample.draw_sample(6, annotated=2, seed=4))
    assert members == again
    assert all(other.get(name) != data for name, data in members if name.endswith(".png"))


def test_the_archive_has_the_layout_of_the_real_one(members):
    table, misfits = read_layout(name for name, _ in members)
    assert misfits == []
    assert sorted(set(table["view"])) == ["side", "top"]
    assert table.groupby("item")["view"].nunique().tolist() == [2] * 6  # both views share the serial
    assert table.drop_duplicates("item")["label"].value_counts().to_dict() == {"damaged": 3, "intact": 3}
    assert all(len(item) == 13 and item.isdigit() for item in table["item"])
    assert (table["annotation"] != "").sum() == 4
    assert all(name.startswith("annotated/") for name in table.loc[table["annotation"] != "", "source"])


def test_photos_are_png_of_960_by_540(members):
    for name, data in members:
        if name.endswith(".png"):
            image = Image.open(io.BytesIO(data))
            assert (image.format, image.size, image.mode) == ("PNG", (960, 540), "RGB")


def test_annotations_box_the_damage_and_are_empty_where_there_is_none(members):
    found = {"damaged": 0, "intact": 0}
    for name, data in members:
        if name.endswith(".xml"):
            root = defusedxml.ElementTree.fromstring(data)
            for thing in root.iter("object"):
                found[name.split("/")[1]] += 1
                left, top, right, bottom = (int(corner.text) for corner in thing.find("bndbox"))
                assert thing.findtext("name") == "damage"
                assert 0 <= left < right <= 960
                assert 0 <= top < bottom <= 540
    assert found["damaged"] >= 1
    assert found["intact"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_box_holds_what_damage_changed_and_little_else(seed, damaged):
    """Drawn again without the damage, the picture differs inside the box; outside, at most by what the bulge hides."""
    scene = sample._draw_scene(np.random.default_rng(seed), True)
    whole = rendering.Scene(scene.position, scene.yaw, scene.light, scene.tint, scene.sticker, damage=None)
    for view, (image, box) in damaged[seed].items():
        intact, shows = rendering.render(whole, view)
        changed = np.abs(image.astype(int) - intact).max(2) > 24
        assert not shows.any()
        if box is None:
            assert changed.sum() < 400  # of half a million
            continue
        left, top, right, bottom = box
        inside = changed[top:bottom, left:right]
        assert inside.sum() > 0.6 * changed.sum()
        assert inside.any(0).mean() > 0.5
        assert inside.any(1).mean() > 0.5


def test_some_damage_is_seen_by_one_camera_only_and_most_by_both(damaged):
    seen = [tuple(item[view].box is not None for view in ("side", "top")) for item in damaged]
    assert seen.count((True, True)) > len(seen) / 2
    assert seen.count((True, False)) >= 1


def test_all_kinds_of_damage_occur_at_every_place_that_they_can():
    damages = [sample._draw_damage(np.random.default_rng(seed)) for seed in range(200)]
    dents = [np.abs(one.center) - HALF_SIZE > 0 for one in damages if isinstance(one, Dent)]
    assert {int(outside.sum()) for outside in dents} == {2, 3}  # on edges, and on corners
    assert {one.face for one in damages if isinstance(one, Tear)} == {"top", "front", "end"}
    assert {one.side for one in damages if isinstance(one, Flap)} == {1, -1}


def test_an_intact_item_has_no_box_and_differs_from_the_damaged_one_of_its_seed():
    intact, damaged = (sample.draw_item(0, damaged=value) for value in (False, True))
    assert all(picture.box is None for picture in intact.values())
    assert any((intact[view].image != damaged[view].image).any() for view in ("side", "top"))
