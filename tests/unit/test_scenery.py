import numpy as np
import pytest

from helpers import scenery
from helpers.scenery import FACES, HALF_SIZE, Flap, Sticker, Tear, carton_texture, texels_at

STICKER = Sticker("front", (0, 0))
X, Y, Z = HALF_SIZE


def texels(texture, face, *points):
    """The texture's (red, green, blue, damage) at points of the carton's frame, on that face."""
    return texture[texels_at(np.float32(points).T, np.full(len(points), FACES.index(face)))].astype(int)


def test_an_intact_carton_has_no_damaged_texel():
    texture = carton_texture(STICKER, None)
    assert texture.dtype == np.uint8
    assert texture.shape[1] == 4
    assert not texture[:, 3].any()


def test_the_faces_lie_in_the_texture_one_after_the_other():
    corners = np.float32([[sx * X, sy * Y, sz * Z] for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)]).T
    ends = [np.ptp(texels_at(corners * 0.99, np.full(8, face))) for face in range(6)]
    areas = [(2 * Y * 5) * (2 * Z * 5), (2 * X * 5) * (2 * Z * 5), (2 * X * 5) * (2 * Y * 5)]  # 5 texels a mm
    np.testing.assert_allclose(ends, np.repeat(areas, 2), rtol=0.05)
    assert len(carton_texture(STICKER, None)) == 2 * sum(areas)


def test_a_tear_bares_the_cardboard_where_it_is_and_only_there():
    tear = Tear("top", (20, -5), 8, [(0.0, 0.0)] * 5)  # no waves: a circle of 8 mm
    before, after = carton_texture(STICKER, None), carton_texture(STICKER, tear)
    inside, outside, edge = texels(after, "top", (20, -5, Z), (20, 8, Z), (26, -5, Z))
    assert inside[3] == edge[3] == 255
    assert outside[3] == 0
    np.testing.assert_array_equal(after[after[:, 3] == 0], before[after[:, 3] == 0])
    assert abs((after[:, 3] > 0).sum() - np.pi * (8 * 5) ** 2) < 0.1 * np.pi * 40**2


@pytest.mark.parametrize(("side", "face"), [(1, "end"), (-1, "left")])
def test_a_flap_opens_the_upper_part_of_its_end(side, face):
    texture = carton_texture(STICKER, Flap(side, 0.0, 20))
    upper, lower = texels(texture, face, (side * X, 0, Z - 5), (side * X, 0, -Z + 5))
    assert upper[3] == 255
    assert lower[3] == 0
    assert (texture[:, 3] > 0).sum() == 20 * 5 * 2 * Y * 5


def test_a_flap_leaves_the_carton_at_its_upper_edge_in_its_angle():
    hinge, along = scenery.flap_frame(Flap(-1, np.pi / 2, 20))
    np.testing.assert_allclose(hinge, [-X, 0, Z])
    np.testing.assert_allclose(along, [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(scenery.flap_frame(Flap(1, 0.0, 20))[1], [1, 0, 0], atol=1e-6)


def test_the_sticker_is_on_its_face_and_is_no_damage():
    bare, moved = carton_texture(Sticker("top", (0, 0)), None), carton_texture(Sticker("front", (0, 0)), None)
    different = (bare != moved).any(1)
    faces = np.repeat(np.arange(6), scenery._face_sizes()[0].prod(1))
    assert {FACES[face] for face in set(faces[different])} == {"top", "front"}


def test_the_belt_is_darker_in_its_gaps_and_rails_run_beside_it():
    x = np.linspace(0, 30, 300)
    link = scenery.belt_colors(x, np.full(300, 5.0))[:, 0]
    assert link.min() < 50 < 80 < link.max()
    rail = scenery.belt_colors(np.zeros(1), np.array([scenery.BELT_WIDTH / 2 + scenery.RAIL_WIDTH * 0.35]))
    assert rail[0, 0] > 200
    np.testing.assert_allclose(
        scenery.belt_colors(x, np.full(300, 5.0)), scenery.belt_colors(x + 30, np.full(300, 5.0)), atol=1e-3
    )
