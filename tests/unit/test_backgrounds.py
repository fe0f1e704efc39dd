import numpy as np
import pytest
import torch

from helpers import backgrounds

PLACES = [(4, 6), (6, 70), (48, 4), (50, 76), (24, 40), (30, 80)]  # top and left of a thing of 20 x 30 px


def photographs(positions, places=PLACES):
    """A belt of slots at these positions, something bright on it at another place each time, and where that lies."""
    generator = np.random.default_rng(0)
    images, masks = np.full((len(positions), 3, 80, 128), 140.0), np.zeros((len(positions), 80, 128), bool)
    for number, (image, mask, position) in enumerate(zip(images, masks, positions, strict=True)):
        image[:, :, position::16] = image[:, :, position + 1 :: 16] = 40
        top, left = places[number % len(places)]
        mask[top : top + 20, left : left + 30] = True
        image[:, mask] = 230
        image += generator.normal(0, 1, image.shape)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)), masks


def test_things_that_move_vanish_from_the_median():
    images = torch.full((5, 3, 4, 6), 90, dtype=torch.uint8)
    for index, image in enumerate(images):
        image[:, :, index] = 250
    assert torch.equal(backgrounds.median(images), torch.full((1, 3, 4, 6), 90.0))


def test_a_belt_that_stands_still_has_one_picture():
    images, masks = photographs([3] * 12)
    (picture,) = backgrounds.by_position(images, masks)
    assert picture[:, :, 3::16].mean() == pytest.approx(40, abs=1)
    assert picture[:, :, 8::16].mean() == pytest.approx(140, abs=1)
    assert picture.max() < 150  # nothing lies on it


def test_each_position_of_the_belt_has_its_picture_without_things():
    positions = [1, 6, 11] * 6
    images, masks = photographs(positions)
    found = backgrounds.by_position(images, masks)
    assert len(found) == 3
    assert found.max() < 150
    slots = {int(picture.mean((0, 1)).argmin()) % 16 // 5 for picture in found}
    assert slots == {0, 1, 2}


def test_what_no_photo_of_a_position_shows_is_left_to_the_median_of_all():
    images, masks = photographs([1] * 9 + [6] * 3, PLACES + PLACES[:3] + PLACES[:1] * 3)  # the last three at one place
    found = backgrounds.by_position(images, masks)
    hidden = torch.from_numpy(masks[9])
    assert len(found) == 2
    usual = backgrounds.median(images)[0][:, hidden]
    assert [torch.equal(picture[:, hidden], usual) for picture in found].count(True) == 1


def test_the_shadow_beside_a_thing_is_no_part_of_the_background():
    images, masks = photographs([1] * 9 + [6] * 3, PLACES + PLACES[:3] + PLACES[:1] * 3)
    images[9:, :, 4:24, 36:38] = 60  # beside the thing that lies at one place
    assert backgrounds.by_position(images, masks)[:, :, 4:24, 36:38].min() > 100


@pytest.mark.parametrize("positions", [[1, 6], [0, 2, 4, 6, 8, 10, 12, 14], [1, 1, 6, 6], [1, 1, 1, 6, 11, 3, 8]])
def test_a_belt_that_stops_anywhere_has_no_picture(positions):
    images, masks = photographs(positions)
    assert backgrounds.by_position(images, masks).shape == (0, 3, 80, 128)


def test_a_position_of_too_few_photos_has_no_picture():
    images, masks = photographs([1] * 9 + [6] * 2)
    assert len(backgrounds.by_position(images, masks)) == 1


def test_a_belt_that_is_white_to_the_limit_is_told_as_well():
    images, masks = photographs([3] * 12)
    images[:, 0][images[:, 0] > 120] = 255
    (picture,) = backgrounds.by_position(images, masks)
    assert picture.isfinite().all()
    assert picture[0, :, 8::16].mean() == pytest.approx(255, abs=1)


def test_unlikeness_is_a_mean_of_known_pixels_and_bounded_for_each():
    image, others = torch.full((3, 2, 2), 100.0), torch.full((2, 3, 2, 2), 104.0)
    image[:, 0, 0] = torch.nan
    others[1, :, 1, 1] = 255
    assert backgrounds.unlikeness(image, others).tolist() == pytest.approx([4, (4 + 4 + 30) / 3])


def test_shrunk_images_are_unknown_where_any_of_their_pixels_is():
    image = torch.arange(8.0).repeat(3, 4, 1)
    image[:, 0, 0] = torch.nan
    assert backgrounds.shrink(image)[:, 0, 0].isnan().all()
    assert backgrounds.shrink(image)[:, 0, 1].tolist() == [5.5] * 3


def test_a_belt_that_stands_still_in_changing_light_has_one_picture():
    images, masks = photographs([3] * 12)
    brightness = torch.linspace(0.7, 1.1, 12)[:, None, None, None]
    assert len(backgrounds.by_position((images * brightness).byte(), masks)) == 1


def test_light_is_measured_for_each_channel_and_not_by_what_lies_there():
    images, _ = photographs([3] * 2)
    warmer = images.float()
    warmer[:, 0] = (warmer[:, 0] + 1) * 1.2 - 1
    found = backgrounds.light(warmer, images.float())
    assert found.shape == (2, 3, 1, 1)
    assert found.flatten(1).tolist() == [pytest.approx([1.2, 1, 1])] * 2
    across = backgrounds.light(images[0], images.float())  # another thing elsewhere
    assert across.flatten() == pytest.approx(1, abs=0.03)
