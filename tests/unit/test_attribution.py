import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torch import nn

from helpers import attribution

CPU = torch.device("cpu")


def explain(network, images, targets, baseline, normalization, steps=8, error_bound=1.0):
    how = {"steps": steps, "error_bound": error_bound, "normalization": normalization, "device": CPU}
    return attribution.integrated_gradients(network, images, targets, baseline, **how)


def noise(count, height=4, width=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def plain(*colors):
    """(N, 3, 4, 4) uint8."""
    return torch.tensor(colors, dtype=torch.uint8).view(-1, 3, 1, 1).repeat(1, 1, 4, 4)


@pytest.fixture
def linear():
    """Its gradient is its weight, whatever the image."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2))


@pytest.mark.parametrize(("baseline", "level"), [("gray", 0), ("black", -1), ("white", 1)])
def test_of_a_linear_network_it_is_weight_times_difference_summed_over_channels(linear, halves, baseline, level):
    images = noise(2)
    found = explain(linear, images, [1, 0], baseline, halves)
    differences = images.numpy() / 127.5 - 1 - level  # (N, 3, H, W)
    weights = linear[1].weight.detach().numpy().reshape(2, 3, 4, 5)
    np.testing.assert_allclose(found.maps, (weights[[1, 0]] * differences).sum(1), atol=1e-6)
    assert found.error.max() < 1e-4


def test_what_makes_blue_blue_is_spread_evenly_over_a_plain_image(network, halves):
    found = explain(network, plain((0, 0, 255), (0, 0, 255)), [0, 1], "black", halves)
    np.testing.assert_allclose(found.maps[0], np.full((4, 4), 1 / 16), rtol=1e-5)  # the logit rises from 0 to 1
    np.testing.assert_allclose(found.maps[1], np.full((4, 4), -1 / 16), rtol=1e-5)
    assert found.error.max() < 1e-5


def test_too_few_steps_show_in_the_error(network, halves):
    one = explain(network, plain((0, 0, 255)), [0], "black", halves, steps=1)
    assert one.error.tolist() == [1]  # the only step falls on the bend of the ReLU: nothing is seen of the change


@pytest.mark.parametrize(("baseline", "steps"), [("gray", 1), ("black", 2)])
def test_only_an_image_whose_error_needs_it_gets_more_steps(network, halves, baseline, steps):
    """From gray the way to blue is straight; from black it bends in the middle, where a single step would fall."""
    found = explain(network, plain((0, 0, 255)), [0], baseline, halves, steps=1, error_bound=0.2)
    assert found.steps.tolist() == [steps]
    assert found.error.max() < 1e-6


def test_the_network_is_left_as_it_was(network, halves):
    network.train()
    network[0].requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    explain(network, plain((0, 0, 255)), [0], "gray", halves)
    assert network.training
    assert network[1].inplace
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, True, True]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_dropout_rests_while_it_explains(linear, halves):
    images = noise(1)
    dropping = nn.Sequential(nn.Dropout(0.9), *linear).train()
    np.testing.assert_array_equal(
        explain(dropping, images, [0], "gray", halves).maps, explain(linear, images, [0], "gray", halves).maps
    )


@pytest.mark.parametrize(("baseline", "steps"), [("grey", 8), ("gray", 0)])
def test_an_unknown_baseline_or_no_step_is_refused(network, halves, baseline, steps):
    with pytest.raises(ValueError, match=rf"'{baseline}' must be one of gray, black, white, and steps .*: {steps}"):
        explain(network, plain((0, 0, 255)), [0], baseline, halves, steps=steps)


def test_the_internal_batch_grows_with_the_memory_within_bounds():
    image = torch.zeros(1, 3, 4, 5)
    needed = 3 * 4 * 5 * 4  # a sigmoid keeps its output, in bytes of float
    sizes = [attribution.internal_batch_size(nn.Sigmoid(), image, needed * count) for count in (0, 1, 7, 64, 10**6)]
    assert sizes == [1, 1, 7, 16, 16]
    twice = nn.Sequential(nn.Sigmoid(), nn.Sigmoid())
    assert attribution.internal_batch_size(twice, image, needed * 7) == 3


def test_the_internal_batch_changes_nothing_but_the_memory(network, halves, monkeypatch):
    images = noise(1, 4, 4)
    whole = explain(network, images, [0], "black", halves)
    monkeypatch.setattr(attribution, "internal_batch_size", lambda *_: 3)
    parts = explain(network, images, [0], "black", halves)
    assert (whole.internal_batch_size, parts.internal_batch_size) == (16, 3)
    np.testing.assert_allclose(parts.maps, whole.maps, atol=1e-6)


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
    masks = attribution.carton_masks(photograph(**day), attribution.empty_view(photograph()))
    square = np.ones((3, 3), bool)
    for mask, (top, left) in zip(masks, PLACES, strict=True):
        carton = np.zeros((80, 128), bool)
        carton[top : top + 26, left : left + 40] = True
        assert mask[ndimage.binary_erosion(carton, square, 2)].all()
        assert not mask[~ndimage.binary_dilation(carton, square, 2)].any()


def test_things_vanish_from_the_empty_view():
    images = torch.full((5, 3, 4, 6), 90, dtype=torch.uint8)
    for index, image in enumerate(images):
        image[:, :, index] = 250
    assert torch.equal(attribution.empty_view(images), torch.full((3, 4, 6), 90.0))


def test_boxes_follow_their_image_to_its_new_size():
    catalog = pd.DataFrame({"width": [200, 50], "height": [100, 50], "boxes": [[["tear", 20, 40, 60, 80]], []]})
    assert attribution.scale_boxes(catalog, 25, 100) == [[["tear", 10, 10, 30, 20]], []]


def test_the_mask_of_boxes_covers_every_pixel_they_touch():
    boxes = [["tear", 20, 10, 40, 30], ["dent", 55, 71, 66, 100]]
    catalog = pd.DataFrame({"width": [100, 100], "height": [100, 100], "boxes": [boxes, []]})
    masks = attribution.box_masks(catalog, 10, 10)
    expected = np.zeros((10, 10), bool)
    expected[1:3, 2:4] = True
    expected[7:10, 5:7] = True
    assert (masks[0] == expected).all()
    assert not masks[1].any()


def test_shares_count_what_speaks_against_as_well():
    maps = np.array([[[1.0, -3.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = np.array([[[True, True], [False, False]]] * 2)
    assert attribution.shares(maps, masks).tolist() == [0.5, 0.0]


def test_the_region_table_sets_attribution_beside_area_and_leaves_out_what_an_image_has_not():
    maps = np.array([[[1.0, 1.0], [1.0, 5.0]], [[2.0, 0.0], [0.0, 0.0]]])
    left = np.array([[[True, False], [True, False]]] * 2)
    corner = np.array([[[False, False], [False, True]], [[False, False], [False, False]]])
    table = attribution.region_table(maps, {"left": left, "corner": corner})
    assert table.to_dict("split")["data"] == [
        [0, "left", 0.25, 0.5],
        [1, "left", 1.0, 0.5],
        [0, "corner", 0.625, 0.25],
    ]
    assert table.columns.tolist() == ["image", "region", "attribution", "area"]
