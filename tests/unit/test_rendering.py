import dataclasses

import numpy as np
import pytest

from helpers import rendering, scenery
from helpers.rendering import CAMERAS, Scene, render

PLAIN = Scene((0, 0), 0.0, (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), scenery.Sticker("top", (0, 0)), None)
DENT = scenery.Dent((52, -30, 19), (20, 16, 16))


def colors(view, **changes):
    """The picture, as numbers that can be negative, of the plain scene with these changes."""
    return render(dataclasses.replace(PLAIN, **changes), view)[0].astype(int)


def changed(view, one, other):
    """(540, 960) bool: where two pictures differ clearly."""
    return np.abs(colors(view, **one) - colors(view, **other)).max(2) > 24


def project(view, *points):
    return rendering._project(CAMERAS[view], np.float32(points))


@pytest.mark.parametrize("view", CAMERAS)
def test_every_camera_looks_at_the_middle_of_the_belt(view):
    np.testing.assert_allclose(project(view, (0, 0, 0)), [[480, 270]], atol=0.01)


def test_the_top_camera_shows_a_millimeter_as_large_as_its_height_says():
    scale = 1230 / 440  # focal length over distance
    right, up = project("top", (10, 0, 0), (0, 10, 0))
    np.testing.assert_allclose(right, [480 + 10 * scale, 270], atol=0.01)
    np.testing.assert_allclose(up, [480, 270 - 10 * scale], atol=0.01)


def test_the_side_camera_shows_what_is_near_below_and_larger():
    near, far, high = project("side", (0, -30, 0), (0, 30, 0), (0, 0, 30))
    assert near[1] > 270 > far[1]
    assert high[1] < 270
    lengths = [np.ptp(project("side", (-10, y, 0), (10, y, 0))[:, 0]) for y in (-30, 30)]
    assert lengths[0] > lengths[1]


def test_from_above_the_carton_covers_its_length_and_depth():
    carton = changed("top", {}, {"position": (10_000, 0)})
    rows, columns = (np.flatnonzero(carton.mean(axis) > 0.1) for axis in (1, 0))
    length, depth, height = 2 * scenery.HALF_SIZE
    scale = 1230 / (440 - height)  # the top face is nearer than the belt
    assert abs(len(columns) - length * scale) < 10
    assert abs(len(rows) - depth * scale) < 10
    assert abs(columns.mean() - 480) < 3


def test_a_carton_that_moves_right_moves_right_in_both_pictures():
    for view in CAMERAS:
        carton = changed(view, {"position": (60, 0)}, {"position": (10_000, 0)})
        assert np.flatnonzero(carton.any(0)).mean() > 480 + 60


def test_a_carton_out_of_sight_leaves_the_belt_alone():
    np.testing.assert_array_equal(colors("top", position=(10_000, 0)), colors("top", position=(20_000, 0)))


def test_light_from_above_brightens_the_top_and_low_light_darkens_it():
    middle = (slice(250, 290), slice(440, 520))
    above, low = colors("top"), colors("top", light=(3.0, 0.0, 1.0))
    assert above[middle].mean() > 1.15 * low[middle].mean()


def test_the_tint_colors_everything():
    plain, warm = colors("top", tint=(0.8, 0.8, 0.8)), colors("top", tint=(0.8, 0.8, 0.4))
    np.testing.assert_array_equal(plain[..., :2], warm[..., :2])
    np.testing.assert_allclose(warm[..., 2], plain[..., 2] / 2, atol=1)


@pytest.mark.parametrize(
    ("damage", "views"),
    [
        (DENT, {"side", "top"}),
        (scenery.Tear("top", (0, 0), 10, [(0.1, 0.0)] * 5), {"side", "top"}),
        (scenery.Tear("front", (0, 0), 8, [(0.1, 0.0)] * 5), {"side"}),
        (scenery.Flap(1, 0.3, 20), {"side", "top"}),
        (scenery.Dent((52, 30, -19), (16, 14, 14)), set()),
    ],
    ids=["dented corner", "torn top", "torn front", "open flap", "lower corner behind"],
)
def test_damage_shows_to_the_cameras_that_can_see_it_and_changes_nothing_elsewhere(damage, views):
    shown = {view: render(dataclasses.replace(PLAIN, damage=damage), view)[1] for view in CAMERAS}
    assert {view for view, pixels in shown.items() if pixels.sum() >= 60} == views
    for view in views:
        difference = changed(view, {"damage": damage}, {})
        rows, columns = np.nonzero(shown[view])
        near = np.zeros_like(difference)
        near[max(0, rows.min() - 12) : rows.max() + 13, max(0, columns.min() - 12) : columns.max() + 13] = True
        assert difference.any()
        assert not (difference & ~near).any()


def test_an_intact_carton_shows_no_damage():
    assert not any(render(PLAIN, view)[1].any() for view in CAMERAS)


def test_the_carton_throws_its_shadow_away_from_the_light():
    light, beside = (-1.0, 0.0, 1.0), (slice(250, 290), slice(670, 700))
    shaded, empty = colors("top", light=light), colors("top", light=light, position=(10_000, 0))
    assert shaded[beside].mean() < 0.7 * empty[beside].mean()
