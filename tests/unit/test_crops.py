import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from helpers import crops, images
from helpers.cartons import Crop
from helpers.images import load_images
from helpers.photos import decode

SPLITS = ["train"] * 7 + ["validation", "test"]


def belt(view):
    """(180, 320, 3): stripes down or across."""
    empty = np.full((180, 320, 3), 90, np.uint8)
    empty[:, ::9] = 110
    return empty if view == "side" else np.ascontiguousarray(empty.transpose(1, 0, 2)[:180, :180].repeat(2, 1)[:, :320])


@pytest.fixture(scope="module")
def line(make_dataset, tmp_path_factory):
    """Nine packages at another place each, 40 x 30 px, and their places."""
    generator, pictures, places = np.random.default_rng(0), [], []
    for number, split in enumerate(SPLITS):
        for view in ("side", "top"):
            photo = belt(view).copy()
            top, left = 10 + 15 * number, 5 + 30 * number
            photo[top : top + 30, left : left + 40] = (200, 170, 40 + 10 * number)
            photo = photo + generator.normal(0, 1.5, photo.shape)
            pictures.append(
                (("bad", "good")[number % 2], view, f"item{number}", split, photo.clip(0, 255).astype(np.uint8))
            )
            places.append((left, top))
    return make_dataset(tmp_path_factory.mktemp("line") / "data.zip", pictures), places


@pytest.fixture(scope="module")
def backgrounds(line):
    return crops.find_backgrounds(line[0])


def test_each_photo_is_cut_out_around_its_thing(line, backgrounds):
    dataset, places = line
    found = crops.with_crops(dataset, backgrounds, 1.0)
    for (left, top), (x0, y0, x1, y1, *_) in zip(places, found.catalog["crop"], strict=True):
        assert x0 <= left + 2
        assert y0 <= top + 2
        assert x1 >= left + 38
        assert y1 >= top + 28
        assert x1 - x0 == pytest.approx(y1 - y0)
        assert 40 <= x1 - x0 <= 60
    assert found.backgrounds.keys() == {"side", "top"}
    assert "crop" not in dataset.catalog


def test_what_is_loaded_is_what_was_cut_out(line, backgrounds):
    dataset, _ = line
    found = crops.with_crops(dataset, backgrounds, 1.0)
    pixels = load_images(found, 24, 24)
    assert (pixels[:, 0].float().mean((1, 2)) > load_images(dataset, 24, 24)[:, 0].float().mean((1, 2)) + 20).all()
    middle = pixels[:, :, 12, 12].float()
    assert (middle[:, 0] > 180).all()


def test_what_is_cut_out_may_be_as_high_as_the_photo(line, backgrounds):
    dataset, _ = line
    backgrounds = {view: one | {"straighten": False} for view, one in backgrounds.items()}
    found = crops.with_crops(dataset, backgrounds, 0.2)  # so narrow that it needs all the height there is
    assert {(box[1], box[3]) for box in found.catalog["crop"]} == {(0, 180)}
    assert load_images(found, 50, 10).shape == (18, 3, 50, 10)


def test_one_photo_of_the_line_is_cut_out_as_in_the_data_set(line, backgrounds):
    from helpers.archives import Archive

    dataset, _ = line
    found = crops.with_crops(dataset, backgrounds, 1.5).catalog
    with Archive(dataset.path) as archive:
        for row in found.itertuples():
            photo, _ = decode(archive.read(row.path))
            assert crops.crop_of(photo, backgrounds[row.view], 1.5) == row.crop


def test_a_view_without_a_background_keeps_its_whole_photos(line, backgrounds):
    dataset, _ = line
    found = crops.with_crops(dataset, {"side": backgrounds["side"]}, 1.0).catalog
    assert found.loc[found["view"] == "top", "crop"].tolist() == [Crop(0, 0, 320, 180)] * 9


def test_things_that_do_not_move_are_not_cut_out(make_dataset, tmp_path):
    generator, pictures = np.random.default_rng(0), []
    part = generator.integers(60, 200, (9, 14, 3)).repeat(12, 0).repeat(12, 1)  # lies at one place, as in a fixture
    for number in range(20):
        photo = belt("side").copy()
        photo[30 + number % 2 : 138 + number % 2, 70:238] = part
        top, left = generator.integers(40, 110), generator.integers(80, 200)
        photo[top : top + 18, left : left + 22] = 250  # a label that is stuck elsewhere each time
        photo = photo + generator.normal(0, 1.5, photo.shape)
        pictures.append(("good", "side", f"item{number}", "train", photo.clip(0, 255).astype(np.uint8)))
    fixed = make_dataset(tmp_path / "data.zip", pictures)
    assert crops.find_backgrounds(fixed) == {}
    assert crops.with_crops(fixed, {}, 1.0) is fixed
    assert crops.find_backgrounds(fixed, forced=True).keys() == {"side"}
    alone = fixed._replace(views=[], catalog=fixed.catalog.assign(view=""))
    assert crops.find_backgrounds(alone) == {}
    assert crops.find_backgrounds(alone, forced=True).keys() == {""}


def test_the_background_is_made_of_photos_of_all_labels(line, monkeypatch):
    dataset, _ = line
    catalog = dataset.catalog.sort_values(["label", "view"])  # as `catalog.save` leaves it
    seen = []
    monkeypatch.setattr(crops, "_FOR_BACKGROUND", 4)
    monkeypatch.setattr(
        crops, "load_images", lambda some, *size: seen.append(some.catalog["label"]) or load_images(some, *size)
    )
    crops.find_backgrounds(dataset._replace(catalog=catalog.reset_index(drop=True)))
    assert [labels.value_counts().to_dict() for labels in seen] == [{"bad": 2, "good": 2}] * 2


def test_a_view_without_photos_to_learn_from_is_not_cut_out(line):
    dataset, _ = line
    catalog = dataset.catalog.assign(split=np.where(dataset.catalog["view"] == "top", "test", "train"))
    assert crops.find_backgrounds(dataset._replace(catalog=catalog)).keys() == {"side"}


def test_maps_are_laid_where_they_were_cut_out_and_keep_their_sum(line, backgrounds):
    dataset, places = line
    found = crops.with_crops(dataset, backgrounds, 1.0)
    maps = np.ones((len(places), 16, 16))
    whole = crops.to_photos(maps, found.catalog, 90, 160)  # photos at half their size
    assert whole.sum((1, 2)) == pytest.approx(256, rel=1e-4)
    for values, (x0, y0, x1, y1, *_) in zip(whole, found.catalog["crop"], strict=True):
        inside = np.zeros((90, 160), bool)
        inside[round(y0 / 2) : round(y1 / 2), round(x0 / 2) : round(x1 / 2)] = True
        assert (values[inside] > 0).all()
        assert (values[~inside] == 0).all()
    uncut = crops.to_photos(maps, dataset.catalog, 90, 160)
    assert uncut == pytest.approx(256 / (90 * 160), rel=1e-4)


@pytest.mark.parametrize("size", [(2, 4), (1, 2), (3, 7), (4, 9)])
def test_each_pixel_of_a_map_counts_the_same_wherever_it_falls(line, size):
    maps = np.eye(6).reshape(6, 2, 3)
    laid = crops.to_photos(maps, line[0].catalog[:6], *size)
    assert laid.sum((1, 2)) == pytest.approx(1)
    assert laid.sum(0) == pytest.approx(6 / np.prod(size))


def test_a_window_holds_what_was_cut_out_in_the_photos_proportions_and_lies_within_it(line):
    dataset, _ = line
    assert crops.windows(dataset.catalog).tolist() == [[0, 0, 1, 1]] * 18
    cut = [Crop(0, 0, 40, 20), Crop(100, 90, 180, 180), Crop(100, 60, 180, 120, 30), Crop(-40, -40, 80, 80, 45)]
    left, top, right, bottom = crops.windows(dataset.catalog[:4].assign(crop=cut)).T  # of photos of 320 x 180 px
    assert left[:2] == pytest.approx([0, 140 / 320 - 0.25])
    assert top[:2] == pytest.approx([0, 0.5])
    high = 80 * np.sin(np.pi / 6) + 60 * np.cos(np.pi / 6)
    middle = [(left[2] + right[2]) / 2, (top[2] + bottom[2]) / 2]
    assert [right[2] - left[2], *middle] == pytest.approx([high / 180, 140 / 320, 90 / 180])
    assert right - left == pytest.approx(bottom - top)
    assert (np.stack([left, top]) >= 0).all()
    assert (np.stack([right, bottom]) <= 1).all()


def test_a_resized_crop_is_the_part_of_the_photo(line):
    ramp = np.zeros((10, 20, 3), np.uint8)
    ramp[:, 10:] = 200
    part = images.resize(Image.fromarray(ramp), 5, 5, Crop(10, 0, 20, 10))
    assert torch.equal(part[..., 1:], torch.full((3, 5, 4), 200, dtype=torch.uint8))  # the first is mixed


@pytest.fixture(scope="module")
def turned(make_dataset, tmp_path_factory):
    """Nine flat things of 60 x 30 px, red on their left half, that lie at another place and angle each time."""
    generator, pictures, places = np.random.default_rng(0), [], []
    x, y = np.meshgrid(np.arange(320) + 0.5, np.arange(180) + 0.5)
    for number, split in enumerate(SPLITS):
        photo, angle, middle = belt("top").astype(float), 8.0 * number - 32, (60 + 25 * number, 45 + 11 * number)
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        along = cosine * (x - middle[0]) + sine * (y - middle[1])
        across = cosine * (y - middle[1]) - sine * (x - middle[0])
        thing = (abs(along) < 30) & (abs(across) < 15)
        photo[thing] = np.where((along < 0)[..., None], (220, 30, 40), (230, 230, 200))[thing]
        photo = (photo + generator.normal(0, 1.5, photo.shape)).clip(0, 255).astype(np.uint8)
        pictures.append((("bad", "good")[number % 2], "top", f"item{number}", split, photo))
        places.append((angle, thing))
    return make_dataset(tmp_path_factory.mktemp("turned") / "data.zip", pictures), places


@pytest.fixture(scope="module")
def found(turned):
    """The turned things, cut out."""
    dataset, _ = turned
    return crops.with_crops(dataset, crops.find_backgrounds(dataset), 2.0)


def test_flat_things_lie_straight_in_what_is_loaded(turned, found):
    dataset, places = turned
    assert [crop.degrees for crop in found.catalog["crop"]] == pytest.approx([angle for angle, _ in places], abs=2)
    pixels = load_images(found, 36, 72)  # the rim is six pixels wide, or three, and the thing is found up to two
    assert (pixels[:, 0, 8:-8, 12:30] > 180).all()
    assert (pixels[:, 1, 8:-8, 12:30] < 90).all()
    assert (pixels[:, :, 8:-8, 42:-12] > 160).all()
    upright = crops.with_crops(dataset, {"top": found.backgrounds["top"] | {"straighten": False}}, 2.0)
    assert {crop.degrees for crop in upright.catalog["crop"]} == {0}


def test_maps_of_what_was_turned_lie_where_the_thing_lies(turned, found):
    _, places = turned
    maps = np.zeros((len(places), 36, 72))
    maps[:, 3:-3, 6:-6] = 1  # what is left when the rim is taken away: the thing
    for values, (_, thing) in zip(crops.to_photos(maps, found.catalog, 180, 320), places, strict=True):
        assert values.sum() == pytest.approx(maps[0].sum(), rel=0.03)
        assert values[ndimage.binary_dilation(thing, iterations=4)].sum() > 0.99 * values.sum()
        assert (values[ndimage.binary_erosion(thing, iterations=3)] > 0).all()


def test_maps_of_what_was_turned_are_not_upside_down(turned, found):
    dataset, places = turned
    maps = np.zeros((len(places), 36, 72))
    maps[:, 3:-3, 6:36] = 1  # the red half
    for values, path in zip(crops.to_photos(maps, found.catalog, 180, 320), found.catalog["path"], strict=True):
        photo = images.read_image(dataset, path)
        red, white = (photo[..., 0] > 180) & (photo[..., 1] < 100), photo[..., 1] > 200
        assert values[red].sum() > 5 * values[white].sum()


def test_what_is_turned_may_reach_beyond_the_photo_where_nothing_is_shown():
    photo = Image.new("RGB", (100, 60), (200, 100, 50))
    part = images.resize(photo, 20, 40, Crop(-20, 10, 60, 50, 30))
    assert (part[:, 8:12, 18:30] == torch.tensor([200, 100, 50])[:, None, None]).all()
    assert (part[:, -5:, :5] == torch.tensor(images.HIDDEN)[:, None, None]).all()


@pytest.mark.parametrize("degrees", [0, 30])
def test_what_lies_outside_the_outline_is_hidden(degrees):
    photo = Image.new("RGB", (100, 60), (200, 100, 50))
    outline = ((40, 25), (60, 25), (60, 35), (40, 35))
    part = images.resize(photo, 40, 80, Crop(30, 20, 70, 40, degrees, outline))  # twice as large as in the photo
    hidden = (part == torch.tensor(images.HIDDEN)[:, None, None]).all(0)
    assert not hidden[18:22, 36:44].any()
    assert (~hidden).sum() == pytest.approx(40 * 20, rel=0.1)
    assert (part[:, ~hidden] == torch.tensor([200, 100, 50])[:, None]).all()


def test_what_is_shown_is_known_in_the_whole_photo(turned, found):
    dataset, places = turned
    for mask, (_, thing) in zip(crops.visible(found.catalog, 180, 320), places, strict=True):
        assert mask[ndimage.binary_erosion(thing)].all()
        assert not mask[~ndimage.binary_dilation(thing, iterations=6)].any()
    for mask, (_, thing) in zip(crops.visible(found.catalog, 90, 160), places, strict=True):
        assert mask[ndimage.binary_erosion(thing[::2, ::2], iterations=2)].all()
        assert not mask[~ndimage.binary_dilation(thing[::2, ::2], iterations=5)].any()
    assert crops.visible(dataset.catalog, 18, 32).all()


def test_what_is_cut_out_of_larger_photos_is_larger(turned, found, make_dataset, tmp_path):
    dataset, _ = turned
    pictures = [
        (row.label, row.view, row.item, row.split, images.read_image(dataset, row.path).repeat(2, 0).repeat(2, 1))
        for row in dataset.catalog.itertuples()
    ]
    large = crops.with_crops(make_dataset(tmp_path / "data.zip", pictures), found.backgrounds, 2.0)
    for twice, once in zip(large.catalog["crop"], found.catalog["crop"], strict=True):
        assert twice[:4] == pytest.approx(2 * np.array(once[:4]), abs=4)


def moving_belt(make_dataset, path, positions):
    """A line whose belt of slats stands at these positions, with a package as gray as it, and where that lies."""
    generator, pictures, places = np.random.default_rng(0), [], np.zeros((len(positions), 180, 320), bool)
    for number, position in enumerate(positions):
        photo = np.full((180, 320, 3), 150, np.uint8)
        for row in range(3):
            photo[position + row :: 12] = 30  # slots between the slats
        top, left = int(generator.integers(5, 130)), int(generator.integers(5, 260))
        places[number, top : top + 44, left : left + 50] = True
        photo[top : top + 44, left : left + 50] = 150
        photo[top : top + 12, left : left + 50] = (90, 200, 90)
        photo = photo + generator.normal(0, 1.5, photo.shape)
        pictures.append(("good", "side", f"item{number:02}", "train", photo.clip(0, 255).astype(np.uint8)))
    line = make_dataset(path, pictures)
    return line, places[line.catalog["item"].str[4:].astype(int)]


def test_a_belt_that_moves_does_not_blur_what_is_found(make_dataset, tmp_path):
    line, places = moving_belt(make_dataset, tmp_path / "data.zip", [number % 4 * 3 for number in range(24)])
    backgrounds = crops.find_backgrounds(line)
    assert len(backgrounds["side"]["pictures"]) == 4
    assert not backgrounds["side"]["roughly"]
    for mask, package in zip(crops.masks(line, backgrounds, 180, 320), places, strict=True):
        assert (mask & package).sum() > 0.75 * package.sum()
        assert not mask[~ndimage.binary_dilation(package, np.ones((3, 3)), 4)].any()


def test_before_a_belt_that_stops_anywhere_things_are_found_roughly_and_nothing_else(make_dataset, tmp_path):
    line, places = moving_belt(make_dataset, tmp_path / "data.zip", [0, 0, 0, *range(1, 12)])
    backgrounds = crops.find_backgrounds(line, forced=True)
    assert (len(backgrounds["side"]["pictures"]), backgrounds["side"]["roughly"]) == (1, True)
    for mask, package in zip(crops.masks(line, backgrounds, 180, 320), places, strict=True):
        assert mask[package].mean() > 0.2
        assert not mask[~ndimage.binary_dilation(package, np.ones((3, 3)), 4)].any()


@pytest.mark.parametrize("corner", [(700, 350), (250, 125)])  # 7.5 and 1.875 px of the photo in one
def test_large_photos_are_shrunk_and_not_sampled_where_they_are_turned(corner):
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 200
    part = images.resize(Image.fromarray(stripes), 40, 80, Crop(100, 50, *corner, 10)).float()
    assert part.mean() == pytest.approx(100, abs=3)
    assert part.std() < 10
