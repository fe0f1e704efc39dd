import math

import boxes_drawn as drawn
import numpy as np
import pytest
import torch

from helpers import boxes

LYING = drawn.lying(24, seed=1)
PRINT = drawn.print_of(0)


@pytest.fixture(scope="module", autouse=True)
def few_cameras():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_CAMERAS", boxes._CAMERAS[:3])  # the others take time
        yield


def photographs(lying, prints):
    """(N, 3, 180, 320) uint8 and (N, 180, 320) bool."""
    photos, masks = zip(*map(drawn.photograph, lying, prints), strict=True)
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2), np.stack(masks)


@pytest.fixture(scope="module")
def box():
    return boxes.fit(*photographs(LYING, [PRINT] * len(LYING)))


def places(found):
    """(N, F, 4, 2): the corners of the faces in the photos, in px."""
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1.0]]).T
    points = found.faces @ corners
    return (points[..., :2, :] / points[..., 2:, :]).swapaxes(2, 3)


def test_camera_and_proportions_are_those_of_the_drawing(box):
    focal, distance, tilt, roll, width, height = box["camera"]
    assert box["faces"] == ["top", "front"]
    assert (width, height) == pytest.approx((drawn.WIDE, drawn.HIGH), abs=0.02)
    assert (tilt, roll) == pytest.approx((drawn.TILT, 0), abs=0.02)
    assert distance / focal == pytest.approx(drawn.DISTANCE / drawn.FOCAL, rel=0.03)  # both together: the size


def test_each_box_is_found_where_it_lies_also_a_new_one(box):
    new = drawn.lying(6, seed=2)
    found = boxes.find(*photographs(new, [PRINT] * 6), box)
    truth = np.array([[drawn.corners(one, face) for face in box["faces"]] for one in new])
    assert np.abs(places(found) - truth).max() < 2.5
    assert found.costs.max() < 0.1


def test_the_same_is_found_one_by_one(box):
    photos, masks = photographs(LYING[:3], [PRINT] * 3)
    together = boxes.find(photos, masks, box)
    alone = boxes.find(photos[1:2], masks[1:2], box)
    assert places(alone)[0] == pytest.approx(places(together)[1], abs=0.2)


def test_damage_does_not_move_the_box(box):
    bent = {name: face.copy() for name, face in PRINT.items()}
    bent["top"][20:44, 20:44] = 0
    found = boxes.find(*photographs(LYING[:3], [bent] * 3), box)
    truth = np.array([[drawn.corners(one, face) for face in box["faces"]] for one in LYING[:3]])
    assert np.abs(places(found) - truth).max() < 2.5


def test_a_box_of_another_kind_costs_more(box):
    found = boxes.find(*photographs(LYING[:4], [drawn.print_of(7)] * 4), box)
    assert found.costs.min() > 0.6


def test_boxes_that_all_show_something_else_are_of_no_kind():
    prints = [drawn.print_of(seed) for seed in range(len(LYING))]
    assert boxes.fit(*photographs(LYING, prints)) is None


def test_what_is_no_box_is_of_no_kind():
    rows, columns = np.mgrid[:180, :320]
    masks = [
        (columns - 100 - 5 * n) ** 2 + (rows - 60 - 3 * n) ** 2 < (15 + 25 * (n % 3)) ** 2 for n in range(24)
    ]  # disks of three sizes
    photos = torch.from_numpy(np.stack(masks)[:, None] * np.uint8(200)).expand(-1, 3, -1, -1)
    assert boxes.fit(photos, np.stack(masks)) is None


def test_a_point_is_seen_where_a_pinhole_camera_sees_it():
    camera = torch.tensor([2.0, 10.0, math.pi / 2, 0.0, 1.0, 0.5], dtype=torch.float64)  # from straight above
    pose = torch.tensor([[0.5, 0.25, 0.0]], dtype=torch.float64)
    matrix = boxes.matrices(camera, pose)[0]
    corner = matrix @ torch.tensor([0.5, 1.0, 1.0, 1.0], dtype=torch.float64)  # at x 1, y 2.25, 9.5 below the camera
    assert (corner[:2] / corner[2]).tolist() == pytest.approx([2 * 1 / 9.5, -2 * 2.25 / 9.5])
    turned = boxes.matrices(camera, torch.tensor([[0.0, 0.0, math.pi / 2]], dtype=torch.float64))[0]
    corner = turned @ torch.tensor([0.5, 0.0, 0.0, 1.0], dtype=torch.float64)  # its right is now the back
    assert (corner[:2] / corner[2]).tolist() == pytest.approx([0, -2 * 0.5 / 10])


def test_photos_of_other_proportions_are_looked_at_with_their_own(box):
    higher = box | {"stretch": 1.25}  # as if the photos had been 225 px high
    flat = torch.nn.functional.interpolate
    photos, masks = photographs(LYING[:2], [PRINT] * 2)
    padded = torch.full((2, 3, 225, 320), 90, dtype=torch.uint8)
    padded[:, :, 22:202] = photos
    around = np.zeros((2, 225, 320), bool)
    around[:, 22:202] = masks
    squeezed = flat(padded.float(), (180, 320), mode="area").byte()
    squeezed_masks = flat(torch.from_numpy(around)[:, None].float(), (180, 320), mode="area")[:, 0].numpy() > 0.5
    found = places(boxes.find(squeezed, squeezed_masks, higher))
    expected = places(boxes.find(photos, masks, box))
    assert found[..., 0] == pytest.approx(expected[..., 0], abs=1.5)
    assert found[..., 1] * 1.25 - 22 == pytest.approx(expected[..., 1], abs=1.5)


def test_where_the_photo_ends_the_outline_is_not_known():
    mask = np.zeros((180, 320), bool)
    mask[80:120, :60] = mask[120, 40] = True
    reach = boxes._outline(mask, 1.0)
    assert math.isnan(reach[24])  # to the left
    assert reach[0] == pytest.approx((59.5 - 160) / 320)  # to the right
    assert reach[12] == pytest.approx((120.5 - 90) / 320)  # down
