import pytest
import torch
from torch.nn import functional as F

from helpers import layers

GRADIENT = torch.arange(8.0).expand(2, 3, 8, 8)  # brighter to the right
AUGMENTATION = [
    layers.RandomFlip(),
    layers.RandomRotation(20.0),
    layers.RandomZoom(0.2),
    layers.RandomShift(2),
    layers.Cutout(3),
]


@pytest.mark.parametrize("layer", AUGMENTATION, ids=lambda layer: type(layer).__name__)
def test_augmentation_changes_images_in_training_only(layer):
    torch.manual_seed(1)
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(layer.eval()(images), images)
    changed = layer.train()(images)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("layer", AUGMENTATION, ids=lambda layer: type(layer).__name__)
def test_a_process_without_a_part_of_the_batch_augments_nothing(layer):
    assert layer.train()(torch.rand(0, 3, 8, 8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("layer", AUGMENTATION, ids=lambda layer: type(layer).__name__)
def test_augmentation_follows_the_seed(layer):
    images = torch.rand(4, 3, 8, 8)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(layer.train()(images))
    assert torch.equal(*found)


def test_a_flip_is_the_image_or_its_mirror():
    torch.manual_seed(0)
    flipped = layers.RandomFlip()(GRADIENT.repeat(8, 1, 1, 1))
    mirrored = [torch.equal(image, GRADIENT[0].flip(2)) for image in flipped]
    kept = [torch.equal(image, GRADIENT[0]) for image in flipped]
    assert sum(mirrored) > 0
    assert sum(kept) > 0
    assert sum(mirrored) + sum(kept) == 16


def test_a_shift_moves_by_whole_pixels_and_mirrors_the_rim():
    torch.manual_seed(0)
    rows = {tuple(image[0, 0].tolist()) for image in layers.RandomShift(1)(GRADIENT.repeat(16, 1, 1, 1))}
    assert rows == {(0, 1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7, 6), (1, 0, 1, 2, 3, 4, 5, 6)}


def test_a_square_is_cut_out_anywhere_and_the_rest_stays():
    torch.manual_seed(0)
    images = torch.rand(400, 3, 12, 12) + 1
    cut = layers.Cutout(4)(images)
    holes = cut == 0
    assert torch.equal(cut[~holes], images[~holes])
    assert torch.equal(holes, holes[:, :1].expand_as(holes))  # the same in all colors
    high, wide = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), high * wide)  # rectangles
    assert set(high.tolist()) == set(wide.tolist()) == {2, 3, 4}  # squares, cut by the rim
    assert holes.any(0).all()


def test_a_quarter_turn_makes_columns_rows(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.ones(*shape))  # the most that may be turned
    turned = layers.RandomRotation(90.0)(GRADIENT.contiguous())
    torch.testing.assert_close(turned[0, 0], GRADIENT[0, 0].T.flip(0), atol=1e-4, rtol=0)


def test_a_zoom_keeps_the_middle(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.zeros(*shape))  # half of what is seen
    seen = layers.RandomZoom(0.5)(GRADIENT.contiguous())[0, 0, 4]
    torch.testing.assert_close(seen, torch.arange(8.0) / 2 + 1.75, atol=1e-4, rtol=0)


def photos(seed):
    """Neighbouring pixels nearly the same, as in photos."""
    rough = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(rough, size=(16, 16), mode="bilinear") + 0.3


def moments(patches):
    patches = patches.transpose(0, 1).flatten(1)
    return patches @ patches.T / patches.shape[1]


def test_whitened_patches_do_not_predict_each_other():
    torch.manual_seed(0)
    layer, images = layers.Whitening(), photos(0) + 0.3 * torch.randn(16, 3, 16, 16)
    filtered = layer(images).detach()
    assert filtered.shape == (16, 24, 15, 15)
    torch.testing.assert_close(moments(filtered[:, :12]), torch.eye(12), atol=0.02, rtol=0)
    torch.testing.assert_close(filtered[:, 12:], -filtered[:, :12])
    plain = moments(F.unfold(images, 2))
    assert (plain - plain.diag().diag()).abs().max() > 0.2


def test_whitening_is_found_in_the_first_batch_of_training_and_kept():
    layer = layers.Whitening().eval()
    before = layer.filters.clone()
    layer(photos(0))
    assert torch.equal(layer.filters, before)
    layer.train()(photos(0))
    found = layer.filters.clone()
    assert not torch.equal(found, before)
    layer(photos(1))
    assert torch.equal(layer.filters, found)
    resumed = layers.Whitening()
    resumed.load_state_dict(layer.state_dict())
    resumed(photos(1))
    assert torch.equal(resumed.filters, found)


def test_whitening_bears_images_without_any_difference_and_half_the_digits():
    layer = layers.Whitening()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.full((2, 3, 8, 8), 0.5)).isfinite().all()
    assert layer.filters.dtype == torch.float32


def test_residual_adds_what_goes_in_and_scale_multiplies():
    body = torch.nn.Conv2d(4, 4, 3, padding=1)
    maps = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(layers.Residual(body)(maps), maps + body(maps))
    assert torch.equal(layers.Scale(0.25)(maps), maps / 4)


def test_a_shift_of_channels_moves_64_times_as_far_as_a_plain_number():
    layer, plain = layers.Shift(2), torch.nn.Parameter(torch.zeros(2, 1, 1))
    maps, wanted = torch.zeros(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    for shifted, number in ((layer(maps), layer.eighth), (maps + plain, plain)):
        (shifted * wanted).sum().backward()
        torch.optim.SGD([number], 0.01).step()
    torch.testing.assert_close(layer(maps), 64 * (maps + plain))


@pytest.mark.parametrize("size", [(9, 9), (4, 6), (2, 3)])
def test_pooling_to_a_size_averages_as_pytorch_does(size):
    maps = torch.rand(2, 3, *size)
    torch.testing.assert_close(layers.PoolTo(4)(maps), F.adaptive_avg_pool2d(maps, 4))


def test_maps_of_the_size_pass_as_they_are():
    maps = torch.rand(2, 3, 4, 4)
    assert layers.PoolTo(4)(maps) is maps


def test_images_are_turned_about_their_middle_either_way_whatever_their_proportions(monkeypatch):
    wide = torch.arange(8.0).expand(1, 3, 4, 8).contiguous()
    turned = []
    for number in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand", lambda *shape, device, number=number: torch.full(shape, number))
        turned.append(layers.RandomRotation(90.0)(wide)[0, 0, :, 4])
    torch.testing.assert_close(turned, [torch.tensor([2.0, 3, 4, 5]), torch.tensor([5.0, 4, 3, 2])], atol=1e-4, rtol=0)


def test_a_shift_goes_up_and_down_as_well():
    torch.manual_seed(0)
    moved = layers.RandomShift(1)(GRADIENT.transpose(2, 3).repeat(16, 1, 1, 1))
    assert len({tuple(image[0, :, 0].tolist()) for image in moved}) == 3


def test_the_strongest_answer_of_each_map_counts():
    maps = torch.randn(2, 3, 5, 7)
    assert torch.equal(layers.GlobalMaxPool()(maps), torch.nn.AdaptiveMaxPool2d(1)(maps))


def test_whitening_follows_the_batches_of_all_processes(monkeypatch):
    images = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    alone, shared = layers.Whitening(), layers.Whitening()
    alone(images)
    monkeypatch.setattr(layers, "total", lambda values: 2 * values)  # another process has the same images
    shared(images)
    torch.testing.assert_close(shared.filters, alone.filters)
