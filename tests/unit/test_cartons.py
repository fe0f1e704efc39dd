import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers import backgrounds, cartons
from helpers.cartons import Crop

PLACES = [(4, 6), (6, 70), (48, 4), (50, 76), (24, 40)]  # top and left of a carton of 26 x 40 px, far apart


def photograph(*, light=1.0, shadow=1.0):
    """(5, 3, 80, 128): the same belt, and on it a carton at another place each time, its shadow to the right."""
    generator = np.random.default_rng(0)
    view = np.linspace(70, 110, 128)[None, None] + generator.normal(0, 3, (3, 80, 128))
    images = np.repeat(view[None], len(PLACES), 0)
    for image, (top, left) in zip(images, PLACES, strict=True):
        image[:, top : top + 26, left + 40 : left + 50] *= shadow
        image[:, top : top + 26, left : left + 40] = np.array([205, 160, 110])[:, None, None]
    images = images * light + generator.normal(0, 2, images.shape)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("day", [{}, {"light": 0.8}, {"light": 1.2}, {"shadow": 0.6}])
def test_a_carton_is_found_up_to_its_rim_in_any_light_and_without_its_shadow(day):
    masks, alone = cartons.find_things(photograph(**day), backgrounds.median(photograph()))
    assert alone.all()
    square = np.ones((3, 3), bool)
    for mask, (top, left) in zip(masks, PLACES, strict=True):
        carton = np.zeros((80, 128), bool)
        carton[top : top + 26, left : left + 40] = True
        assert mask[ndimage.binary_erosion(carton, square, 2)].all()
        assert not mask[~ndimage.binary_dilation(carton, square, 2)].any()


def test_a_thing_that_is_darker_than_the_belt_is_found():
    images = photograph()
    for image, (top, left) in zip(images, PLACES, strict=True):
        image[:, top : top + 26, left : left + 40] = 20
    for mask, (top, left) in zip(cartons.find_things(images, backgrounds.median(images)).masks, PLACES, strict=True):
        assert mask[top + 2 : top + 24, left + 2 : left + 38].all()
        assert mask.sum() < 30 * 44


def test_a_thing_that_lies_beside_another_is_not_alone():
    images = photograph()
    for place, size in enumerate((26, 10, 5)):  # as large, and 0.38 and 0.1 of it
        image, (_, left) = images[place], PLACES[place]
        beside = (left + 64) % 128
        image[:, 2 : 2 + size, beside : beside + 40] = 20
    things = cartons.find_things(images, backgrounds.median(photograph()))
    assert things.alone.tolist() == [False, False, *[True] * (len(PLACES) - 2)]
    assert cartons.find_things(images, backgrounds.median(photograph()), roughly=True).alone.all()


def test_each_image_is_compared_with_the_position_of_the_belt_that_it_shows():
    images = photograph()
    moved = images.roll(17, 3)
    background = torch.cat([backgrounds.median(images), backgrounds.median(moved)])
    found = cartons.find_things(torch.cat([images, moved]), background).masks
    alone = [cartons.find_things(*pair).masks for pair in zip((images, moved), background.split(1), strict=True)]
    assert (found == np.concatenate(alone)).all()


def test_where_photos_differ_by_noise_alone_nothing_is_found():
    noise = np.random.default_rng(0).normal(0, 3, (8, 3, 80, 128))
    images = torch.from_numpy((photograph()[:1].numpy() + noise).clip(0, 255).astype(np.uint8))
    masks = cartons.find_things(images, backgrounds.median(images)).masks
    assert not masks.any()
    assert not cartons.look_like_one_thing(masks)


def masks_of(*areas):
    """Masks of 100 x 100 pixels, in percent of them."""
    masks = np.zeros((len(areas), 100, 100), bool)
    for mask, area in zip(masks, areas, strict=True):
        mask[:area] = True
    return masks


@pytest.mark.parametrize(
    ("areas", "one_thing"),
    [
        ((10, 11, 9, 12, 8, 10), True),
        ((8, 8, 8, 32, 32, 32), True),  # boxes of two sizes, the sides of one twice those of the other
        ((10, 11, 9, 12, 8, 10, 0, 0), True),  # an empty belt now and then
        ((10, 11, 9, 12, 97, 98), False),  # too few are left
        ((10, 11, 9, 12), False),
        ((2, 3, 12, 20, 35, 50), False),
        ((10, 11, 9, 12, 8, 0, 0, 0, 0, 0, 0), False),
        ((), False),
    ],
)
def test_one_thing_that_moves_is_found_in_most_photos_and_of_about_the_same_size(areas, one_thing):
    assert cartons.look_like_one_thing(masks_of(*areas)) == one_thing


def mask_of(top, left, height, width):
    mask = np.zeros((90, 160), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def upright(mask, width, height, aspect):
    return cartons.crop_around(mask, width, height, aspect, straighten=False)[:5]


def test_what_is_cut_out_is_the_thing_in_its_middle_with_a_rim():
    box = upright(mask_of(40, 60, 10, 20), 1600, 900, 1.0)  # px of the photo are ten times those of the mask
    assert box == pytest.approx((700 - 120, 450 - 120, 700 + 120, 450 + 120, 0))
    wide = upright(mask_of(40, 60, 10, 20), 1600, 900, 3.0)
    assert wide == pytest.approx((700 - 180, 450 - 60, 700 + 180, 450 + 60, 0))


def test_what_is_cut_out_stays_within_the_photo():
    assert upright(mask_of(0, 140, 10, 20), 1600, 900, 1.0) == pytest.approx((1360, 0, 1600, 240, 0))
    assert upright(mask_of(5, 20, 80, 20), 1600, 900, 1.0)[1:4:2] == pytest.approx((0, 900))


@pytest.mark.parametrize("mask", [mask_of(0, 0, 0, 0), mask_of(0, 0, 1, 5), mask_of(0, 0, 90, 150)])
def test_where_nothing_or_nothing_else_is_seen_the_whole_photo_stays(mask):
    assert cartons.crop_around(mask, 320, 180, 1.0, straighten=True) == Crop(0, 0, 320, 180)


def test_the_thing_stays_visible_with_a_margin_of_a_twentieth_of_its_size_and_nothing_else():
    outline = np.array(cartons.crop_around(mask_of(40, 60, 10, 40), 1600, 900, 1.0, straighten=False).outline)
    margin = 0.05 * 200  # px of the photo: the thing has 400 x 100 of them
    assert outline.min(0) == pytest.approx([600 - margin, 400 - margin])
    assert outline.max(0) == pytest.approx([1000 + margin, 500 + margin])
    corner = np.linalg.norm(outline - [600, 400], axis=1).min()  # rounded off, and not a corner of a larger rectangle
    assert corner == pytest.approx(margin)


def test_a_polygon_is_filled():
    found = cartons.inside(np.array([[2, 1], [7, 1], [7, 4], [2, 4]]), 6, 9)
    assert found.shape == (6, 9)
    assert found[1:5, 2:8].all()
    assert found.sum() == 24


def lying(degrees, *, long=60, short=30, aslant=0):
    """A rectangle that is turned clockwise by so many degrees, or a box seen aslant: its corners cut off."""
    x, y = np.meshgrid(np.arange(160) + 0.5 - 80, np.arange(90) + 0.5 - 45)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, across = cosine * x + sine * y, cosine * y - sine * x
    return (abs(along) < long / 2) & (abs(across) < short / 2) & (abs(along / long + across / short) < 1 - aslant)


@pytest.mark.parametrize("degrees", [-40, -15, -3, 0, 10, 44])
def test_what_is_cut_out_is_turned_as_the_thing_lies(degrees):
    *box, turned = cartons.crop_around(lying(degrees), 320, 180, 2.0, straighten=True)[:5]
    assert turned == pytest.approx(degrees, abs=2)
    width, height = box[2] - box[0], box[3] - box[1]
    assert width == pytest.approx(1.2 * 120, rel=0.06)  # px of the photo are twice those of the mask
    assert width == pytest.approx(2 * height)
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == pytest.approx((160, 90), abs=2)


@pytest.mark.parametrize(("degrees", "straighten"), [(0, False), (0, True), (20, True)])
def test_a_corner_that_was_not_found_is_shown_by_the_opposite_one(degrees, straighten):
    thing = lying(degrees)
    found = thing.copy()
    found[45:, 80:] &= lying(degrees, aslant=0.3)[45:, 80:]
    outline = np.array(cartons.crop_around(found, 160, 90, 2.0, straighten=straighten).outline)
    assert thing.sum() > found.sum() + 50
    assert cartons.inside(outline, 90, 160)[thing].all()


@pytest.mark.parametrize(("degrees", "turned"), [(80, 80), (-80, 100), (60, 60), (88, 88), (92, 92)])
def test_a_long_thing_lies_along_what_is_cut_out(degrees, turned):
    assert cartons.crop_around(lying(degrees), 320, 180, 2.0, straighten=True).degrees == pytest.approx(turned, abs=2)
    along = (turned + 45) % 90 - 45  # where it is as large either way, the least turn does
    assert cartons.crop_around(lying(degrees), 320, 180, 1.0, straighten=True).degrees == pytest.approx(along, abs=2)


def test_a_thing_in_a_photo_of_other_proportions_than_its_mask_lies_as_in_the_photo():
    mask = np.zeros((90, 160), bool)
    x, y = np.meshgrid((np.arange(160) + 0.5) * 2 - 160, (np.arange(90) + 0.5) * 4 - 180)  # a photo of 320 x 360 px
    mask[(abs(x + y) < 100) & (abs(x - y) < 60)] = True
    assert abs(cartons.crop_around(mask, 320, 360, 1.0, straighten=True).degrees) == pytest.approx(45, abs=3)


def test_rectangles_are_told_from_boxes_seen_aslant():
    angles = range(-40, 45, 10)
    assert cartons.look_like_rectangles(np.stack([lying(angle) for angle in angles]), 320, 180)
    assert not cartons.look_like_rectangles(np.stack([lying(angle, aslant=0.45) for angle in angles]), 320, 180)
    assert not cartons.look_like_rectangles(np.zeros((3, 90, 160), bool), 320, 180)


def test_a_dark_photo_is_compared_with_the_background_of_its_own_position():
    bright, dark = torch.full((3, 80, 128), 100.0), torch.full((3, 80, 128), 80.0)
    bright[..., 64:], dark[..., 64:] = 140, 60
    assert cartons._unexplained((0.8 * bright).byte(), torch.stack([bright, dark]), 0.6).max() < 3
