import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import images
from helpers.archives import Archive, write_zip
from helpers.cartons import Crop
from helpers.photos import PhotoError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_images_come_as_bytes_in_the_order_of_the_catalog(dataset):
    loaded = images.load_images(dataset, 20, 32)
    assert loaded.dtype == torch.uint8
    assert loaded.shape == (32, 3, 20, 32)
    names = dataset.catalog["path"].tolist()
    assert loaded[names.index("images/blue/side/blue0_side.png"), :, 0, 0].tolist() == [0, 0, 255]
    assert loaded[names.index("images/red/top/red3_top.png"), :, 0, 0].tolist() == [224, 9, 0]


def test_a_plain_image_stays_plain_when_it_is_resized(dataset):
    loaded = images.load_images(dataset, 7, 50)
    assert loaded.shape == (32, 3, 7, 50)
    assert (loaded == loaded[:, :, :1, :1]).all()
    assert loaded[0, :, 0, 0].tolist() == [0, 0, 255]


def test_one_photo_becomes_pixels_or_says_why_not():
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (10, 20, 30)).save(buffer, "PNG")
    pixels = images.to_pixels(buffer.getvalue(), "a.png", 2, 3)
    assert (pixels.shape, pixels.dtype) == ((3, 2, 3), torch.uint8)
    assert pixels[:, 1, 2].tolist() == [10, 20, 30]
    with pytest.raises(PhotoError, match="not an image"):
        images.to_pixels(b"no", "a.png", 2, 3)


def test_other_proportions_are_squeezed_so_that_nothing_at_the_edge_is_lost(make_dataset, tmp_path):
    picture = np.zeros((10, 80, 3), np.uint8)
    picture[:, :20] = 255  # a quarter of the width, at the left edge
    dataset = make_dataset(tmp_path / "data.zip", [("red", "", "a", "train", picture)])
    squeezed = images.load_images(dataset, 10, 16)[0, 0]
    assert (squeezed[:, :3] > 250).all()
    assert (squeezed[:, 5:] < 5).all()


def test_what_memory_cannot_hold_is_streamed_from_a_file_that_the_next_run_finds(make_dataset, tmp_path):
    pictures = [("red", "", str(level), "train", np.full((4, 4, 3), level, np.uint8)) for level in range(9)]
    dataset = make_dataset(tmp_path / "data.zip", pictures)
    inside = images.load_images(dataset, 4, 4)
    streamed = images.load_images(dataset, 4, 4, memory_bytes=9 * 48 - 1)
    assert streamed.shape == (9, 3, 4, 4)
    assert torch.equal(streamed[np.array([8, 0, 3])], inside[[8, 0, 3]])
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    seen = []
    images.load_images(dataset, 4, 4, lambda rows: (seen.append(1) or row for row in rows), memory_bytes=0)
    assert file.stat().st_mtime_ns == written
    assert seen == []  # nothing was decoded again
    images.load_images(dataset, 2, 4, memory_bytes=0)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # another size is another file


def test_a_file_belongs_to_its_data_set_and_to_what_is_cut_out(dataset, make_dataset, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8)
    kept = make_dataset(tmp_path / "data.zip", [("a", "", "1", "train", picture), ("b", "", "2", "train", picture)])
    left = kept._replace(catalog=kept.catalog.assign(crop=[Crop(0.0, 0.0, 16.0, 20.0)] * 2))
    right = kept._replace(catalog=kept.catalog.assign(crop=[Crop(16.0, 0.0, 32.0, 20.0)] * 2))
    for number, one in enumerate((kept, left, right, kept._replace(sha256="0" * 64))):
        found = images.load_images(one, 20, 32, memory_bytes=0)[:]
        assert torch.equal(found, images.load_images(one, 20, 32)[:])
        assert len(list((tmp_path / "cache").iterdir())) == number + 1


def test_what_is_made_smaller_is_averaged():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    found = images.resize(Image.fromarray(stripes), 4, 4)
    assert found.float().std() < 20
    assert found.float().mean() == pytest.approx(127.5, abs=5)


def test_progress_sees_every_image(dataset):
    seen = []
    images.load_images(dataset, 4, 4, progress=lambda rows: (seen.append(1) or row for row in rows))
    assert len(seen) == 32


def test_normalize_takes_mean_and_deviation_out_of_each_channel():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    normalized = images.normalize(pixels, [0.0, 0.2, 0.5], [1.0, 0.2, 0.25])
    expected = [[0, 0.2, 1], [-1, 0, 4], [-2, -1.2, 2]]
    np.testing.assert_allclose(normalized[0, :, 0], expected, atol=1e-6)
    assert torch.equal(images.normalize(pixels.float(), [0.0, 0.2, 0.5], [1.0, 0.2, 0.25]), normalized)


def test_the_same_numbers_augment_the_same_way_whatever_else_is_in_the_batch(dataset):
    loaded = images.load_images(dataset, 20, 32)
    numbers, again, other = (images.random_numbers(32, seed, 1) for seed in (3, 3, 4))
    augmented = images.augment(loaded, numbers)
    assert torch.equal(augmented[5:9], images.augment(loaded[5:9], again[5:9]))
    assert not torch.equal(augmented, images.augment(loaded, other))


def test_copy_zero_is_the_image_as_it_is_and_no_two_copies_are_alike(dataset):
    loaded = images.load_images(dataset, 20, 32)
    assert torch.equal(images.augment(loaded, images.random_numbers(32, 0, 0)), loaded.float())
    first, second = (images.augment(loaded, images.random_numbers(32, 0, copy)) for copy in (1, 2))
    assert (first - second).abs().mean((1, 2, 3)).min() > 0


def test_the_numbers_that_change_nothing_change_nothing_on_the_long_way_either():
    pixels = torch.randint(0, 256, (2, 3, 12, 20), dtype=torch.uint8, generator=seeded(0))
    numbers = images.random_numbers(2, 0, 0)
    numbers[1] += 1e-9 * torch.arange(7)  # so little that nothing is seen of it, but no longer all 0.5
    numbers[1, 3] = 0.5 + 1e-6
    torch.testing.assert_close(images.augment(pixels, numbers)[0], pixels[0].float(), atol=0.01, rtol=0)


def test_strong_augmentation_goes_further_the_same_way_and_an_unmoved_image_stays(dataset):
    loaded = images.load_images(dataset, 20, 32)
    numbers = images.random_numbers(32, 0, 1)
    gentle, strong = (images.augment(loaded, numbers, name) for name in ("gentle", "strong"))
    assert (strong - loaded).abs().mean() > 1.5 * (gentle - loaded).abs().mean()
    assert torch.equal(images.augment(loaded, images.random_numbers(32, 0, 0), "strong"), loaded.float())


def test_what_is_unmirrored_moves_the_same_way_and_keeps_left_and_right():
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(64, 3, 20, 32)  # darker on the left
    numbers = images.random_numbers(64, 0, 1)
    rises = {}
    for name in ("strong", "strong unmirrored"):
        augmented = images.augment(ramp, numbers, name)
        rises[name] = augmented[..., 16:].mean((1, 2, 3)) > augmented[..., :16].mean((1, 2, 3))
    assert rises["strong unmirrored"].all()
    assert rises["strong"].tolist() == (numbers[:, 0] >= 0.5).tolist()
    kept = rises["strong"]
    plain, unmirrored = (images.augment(ramp[kept], numbers[kept], name) for name in rises)
    assert torch.equal(plain, unmirrored)


def test_an_unknown_augmentation_is_refused_with_those_there_are(dataset):
    loaded = images.load_images(dataset, 20, 32)
    names = "gentle, strong, gentle unmirrored, strong unmirrored"
    with pytest.raises(ValueError, match=rf"no augmentation 'Strong': choose one of {names}"):
        images.augment(loaded, images.random_numbers(32, 0, 1), "Strong")


def test_augmenting_keeps_shape_and_range_and_the_images_themselves():
    pixels = torch.randint(0, 256, (16, 3, 12, 20), dtype=torch.uint8, generator=seeded(0))
    before = pixels.clone()
    augmented = images.augment(pixels, images.random_numbers(16, 0, 1))
    assert augmented.shape == pixels.shape
    assert augmented.dtype == torch.float32
    assert 0 <= augmented.min() < augmented.max() <= 255
    assert torch.equal(pixels, before)


def test_a_white_image_stays_plain_whatever_the_turn_and_changes_its_light_alone():
    augmented = images.augment(torch.full((64, 3, 18, 32), 255, dtype=torch.uint8), images.random_numbers(64, 0, 1))
    levels = augmented.mean((1, 2, 3))
    assert (augmented - levels.view(-1, 1, 1, 1)).abs().max() < 0.01  # no corner is uncovered
    assert levels.min() >= 255 * 0.85 - 0.01
    assert levels.max() <= 255
    assert len(levels.unique()) > 16


def test_an_augmented_image_is_as_sharp_as_before():
    down, across = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    waves = 128 + 100 * torch.sin(2 * torch.pi * (across + down / 2) / 4)  # 4 px along a row: bilinear takes 0.22
    pixels = waves.byte().expand(32, 3, 96, 128)
    augmented = images.augment(pixels, images.random_numbers(32, 0, 1))
    contrast = augmented[..., 16:-16, 16:-16].std((1, 2, 3)) / pixels.float()[..., 16:-16, 16:-16].std((1, 2, 3))
    assert contrast.mean() > 0.95  # on average: augmentation changes each image's contrast, too


def test_about_half_of_the_images_are_flipped():
    pixels = torch.zeros(400, 3, 8, 16, dtype=torch.uint8)
    pixels[..., :4] = 200  # a mark at the left
    augmented = images.augment(pixels, images.random_numbers(400, 0, 1))
    left, right = augmented[..., :8].mean((1, 2, 3)), augmented[..., 8:].mean((1, 2, 3))
    assert (left - right).abs().min() > 50  # the mark is always at one side
    assert 160 < (right > left).sum() < 240  # four standard deviations


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_a_turn_keeps_distances_and_right_angles_in_images_that_are_not_square(mirror):
    image = torch.zeros(1, 3, 81, 161, dtype=torch.uint8)
    image[:, 0, 38:43, 118:123] = 255  # red: 40 px to the right of the middle
    image[:, 1, 58:63, 78:83] = 255  # green: 20 px below it
    numbers = torch.full((1, 7), 0.5)
    numbers[0, :2] = torch.tensor([mirror, 1.0])
    moved = images.augment(image, numbers, "strong")[0]
    places = (torch.arange(81.0)[:, None] - 40, torch.arange(161.0) - 80)
    red, green = ([(moved[color] * place).sum() / moved[color].sum() for place in places] for color in (0, 1))
    assert math.hypot(*red) == pytest.approx(40, abs=0.3)
    assert math.hypot(*green) == pytest.approx(20, abs=0.3)
    assert red[0] * green[0] + red[1] * green[1] == pytest.approx(0, abs=10)  # of 800
    assert abs(math.degrees(math.atan(red[0] / red[1]))) == pytest.approx(12, abs=0.5)


def test_a_mark_hardly_moves_but_for_the_flip():
    pixels = torch.zeros(64, 3, 100, 100, dtype=torch.uint8)
    pixels[..., 48:52, 48:52] = 255  # in the middle, where a flip changes nothing
    weight = images.augment(pixels, images.random_numbers(64, 0, 1)).mean(1)
    weight = weight * (weight > 60)
    rows = (weight.sum(2) * torch.arange(100)).sum(1) / weight.sum((1, 2))
    columns = (weight.sum(1) * torch.arange(100)).sum(1) / weight.sum((1, 2))
    furthest = max((rows - 49.5).abs().max(), (columns - 49.5).abs().max())
    assert 1 < furthest < 2.5  # up to 4 % of half the side


@given(
    rows=st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True),
    size=st.integers(1, 70),
    seed=st.none() | st.integers(0, 99),
)
def test_batches_hold_every_row_once_and_are_as_even_as_can_be(rows, size, seed):
    parts = images.batches(np.array(rows), size, None if seed is None else seeded(seed))
    assert sorted(torch.cat(parts).tolist()) == sorted(rows)
    lengths = [len(part) for part in parts]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-len(rows) // size)


@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_the_same_seed_gives_the_same_batches(rows, seed):
    first, again = (torch.cat(images.batches(np.array(rows), 7, seeded(seed))) for _ in range(2))
    assert torch.equal(first, again)


def test_no_rows_at_all_are_refused():
    with pytest.raises(ValueError, match="There are no images to go through: is a split empty"):
        images.batches(np.arange(0), 8)


def test_batches_are_shuffled_only_with_a_generator():
    in_order = torch.cat(images.batches(np.arange(20), 8)).tolist()
    shuffled = torch.cat(images.batches(np.arange(20), 8, seeded(0))).tolist()
    assert in_order == list(range(20))
    assert shuffled != in_order


def test_no_batch_of_one_image_is_left_over():
    assert [len(part) for part in images.batches(np.arange(17), 16)] == [9, 8]


def test_an_image_to_look_at_has_its_stored_size(dataset):
    image = images.read_image(dataset, "images/red/side/red1_side.png")
    assert image.shape == (20, 32, 3)
    assert image.dtype == np.uint8
    assert (image == [245, 3, 0]).all()


def test_a_photo_of_a_data_set_that_cannot_be_read_is_named(dataset, tmp_path):
    with Archive(dataset.path) as archive:
        members = [(name, archive.read(name)) for name in archive.names]
    path = dataset.catalog["path"].iloc[3]
    spoilt = write_zip(tmp_path / "data.zip", [(name, b"no" if name == path else data) for name, data in members])
    with pytest.raises(PhotoError, match=f"data.zip: {path}: not an image"):
        images.load_images(dataset._replace(path=spoilt), 20, 32)


def test_a_shift_down_is_not_the_shift_across():
    mark, numbers = torch.zeros(1, 3, 100, 100, dtype=torch.uint8), torch.full((1, 7), 0.5)
    mark[..., 48:52, 48:52], numbers[0, 4] = 255, 1.0  # 6 % of half the height
    seen = images.augment(mark, numbers, "strong")[0, 0]
    row, column = ((seen.sum(axis) * torch.arange(100)).sum() / seen.sum() for axis in (1, 0))
    assert (row, column) == pytest.approx((46.5, 49.5), abs=0.2)


def test_contrast_is_changed_around_the_mean():
    pixels, numbers = (
        torch.randint(80, 170, (1, 3, 20, 32), dtype=torch.uint8, generator=seeded(0)),
        torch.full((1, 7), 0.5),
    )
    numbers[0, 6] = 1.0
    stronger = images.augment(pixels, numbers, "strong")
    assert stronger.std().item() == pytest.approx(1.3 * pixels.float().std().item(), rel=0.02)
    assert stronger.mean().item() == pytest.approx(pixels.float().mean().item(), abs=0.5)
