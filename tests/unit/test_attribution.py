import copy

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from helpers import attribution, networks

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


def test_gray_is_gray_where_the_normalization_takes_nothing_off(linear):
    bytes_to_one = {"mean": [0.0] * 3, "deviation": [1.0] * 3}
    images = noise(2)
    weights = linear[1].weight.detach().numpy().reshape(2, 3, 4, 5)
    found = explain(linear, images, [1, 0], "gray", bytes_to_one)
    np.testing.assert_allclose(found.maps, (weights[[1, 0]] * (images.numpy() / 255 - 0.5)).sum(1), atol=1e-6)


def test_what_makes_blue_blue_is_spread_evenly_over_a_plain_image(network, halves):
    found = explain(network, plain((0, 0, 255), (0, 0, 255)), [0, 1], "black", halves)
    np.testing.assert_allclose(found.maps[0], np.full((4, 4), 1 / 16), rtol=1e-5)  # the logit rises from 0 to 1
    np.testing.assert_allclose(found.maps[1], np.full((4, 4), -1 / 16), rtol=1e-5)
    assert found.error.max() < 1e-5


def test_of_several_counts_of_steps_the_one_with_the_smallest_error_counts(linear, halves, monkeypatch):
    for errors, best in (({8: 0.5, 16: 0.3, 32: 0.4}, 16), ({8: 0.5, 16: 0.3, 32: 0.05}, 32)):
        monkeypatch.setattr(
            attribution, "_integrate", lambda *what, errors=errors: (np.full((4, 5), what[4]), errors[what[4]])
        )
        found = explain(linear, noise(1), [0], "black", halves, steps=8, error_bound=0.1)
        assert (found.error.tolist(), found.maps[0, 0, 0]) == ([errors[best]], best)


def test_between_baselines_is_the_mean_of_black_and_white(halves):
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    how = {"steps": 8, "error_bound": 1.0, "normalization": halves, "device": CPU}
    between = attribution.between_baselines(bent, noise(1), [0], **how)
    black, gray, white = (explain(bent, noise(1), [0], name, halves).maps for name in ("black", "gray", "white"))
    np.testing.assert_allclose(between, (black + white) / 2, atol=1e-6)
    assert np.abs(between - gray).max() > 1e-3


@pytest.mark.parametrize("method", ["occlusion", "noise tunnel"])
def test_what_looks_like_the_baseline_gets_nothing(linear, halves, method):
    how = {"steps": 8, "normalization": halves, "device": CPU}
    white = torch.full((1, 3, 4, 5), 255, dtype=torch.uint8)
    maps = {name: attribution.explain(method, linear, white, [0], name, **how) for name in ("white", "black")}
    np.testing.assert_allclose(maps["white"], 0, atol=1e-6)
    assert np.abs(maps["black"]).max() > 0.01


@pytest.mark.parametrize("method", attribution.METHODS)
def test_each_image_is_explained_for_its_own_target(halves, method):
    torch.manual_seed(0)
    network, images = networks.build("small_cnn", 2, "none").eval(), noise(2, 32, 32)
    how = {"steps": 8, "normalization": halves, "device": CPU}
    both = attribution.explain(method, network, images, [1, 0], "black", **how)
    alone = attribution.explain(method, network, images[1:], [0], "black", **how)
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)
    other = attribution.explain(method, network, images[1:], [1], "black", **how)
    assert np.abs(other - alone).max() > 1e-5


def test_grad_cam_sees_the_layers_of_a_network_with_norms(halves):
    torch.manual_seed(0)
    network, image = networks.build("mobilenet_v3_small", 2, "none").eval(), noise(1, 64, 64)
    (found,) = maps_of("Grad-CAM", network, image, [0], halves)
    plain = networks.without_inplace(network).eval()
    grad_cam = LayerGradCam(plain, attribution._last_maps(plain))
    maps = grad_cam.attribute(image / 127.5 - 1, 0, relu_attributions=True)
    expected = nn.functional.interpolate(maps, (64, 64), mode="bilinear")[0, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max())
    assert expected.max() > 0


def test_the_noise_tunnel_walks_from_noisy_copies(halves):
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    how = {"normalization": halves, "device": CPU}
    few, many = (
        attribution.explain("noise tunnel", bent, noise(1), [0], "black", steps=steps, **how) for steps in (8, 64)
    )
    alone = attribution.explain("Integrated Gradients", bent, noise(1), [0], "black", steps=2, **how)
    assert np.abs(few - alone).max() > 1e-3
    assert np.abs(few - many).max() > 1e-5


def test_gradients_are_sizes_without_a_sign(linear, halves):
    how = {"steps": 8, "normalization": halves, "device": CPU}
    found = attribution.explain("gradients", linear, noise(1), [1], "black", **how)
    np.testing.assert_allclose(found[0], linear[1].weight[1].detach().view(3, 4, 5).abs().sum(0), atol=1e-6)


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


def test_the_internal_batch_grows_with_the_memory_within_bounds(monkeypatch):
    image = torch.zeros(1, 3, 4, 5)
    needed = 3 * 4 * 5 * 4  # a sigmoid keeps its output, in bytes of float
    for layers, count, size in ((1, 0, 1), (1, 1, 1), (1, 7, 7), (1, 64, 16), (1, 10**6, 16), (2, 7, 3)):
        monkeypatch.setattr(attribution, "_BATCH_BYTES", needed * count)
        assert attribution.internal_batch_size(nn.Sequential(*[nn.Sigmoid()] * layers), image) == size


def test_what_all_images_share_and_what_is_kept_twice_counts_once(monkeypatch):
    image = torch.zeros(1, 3, 4, 4)
    network = nn.Sequential(nn.Sigmoid(), nn.Conv2d(3, 64, 3))  # the sigmoid keeps what the convolution keeps, too
    monkeypatch.setattr(attribution, "_BATCH_BYTES", 7 * 3 * 4 * 4 * 4)
    assert attribution.internal_batch_size(network.requires_grad_(False), image) == 7


def test_the_internal_batch_changes_nothing_but_the_memory(network, halves, monkeypatch):
    images = noise(1, 4, 4)
    whole = explain(network, images, [0], "black", halves)
    monkeypatch.setattr(attribution, "internal_batch_size", lambda *_: 3)
    parts = explain(network, images, [0], "black", halves)
    assert (whole.internal_batch_size, parts.internal_batch_size) == (16, 3)
    np.testing.assert_allclose(parts.maps, whole.maps, atol=1e-6)


EVERYWHERE = ("Integrated Gradients", "noise tunnel", "occlusion", "gradients")  # Grad-CAM needs a convolution


@pytest.fixture
def corner():
    """A network that looks at the upper left quarter of 8 x 8 px alone, and there at red: white has the logit 1."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with torch.no_grad():
        weight = torch.zeros(2, 3, 8, 8)
        weight[1, 0, :4, :4] = 1 / 16
        layers[1].weight.copy_(weight.view(2, -1))
        layers[1].bias.zero_()
    return layers.eval()


def maps_of(method, network, images, targets, halves):
    how = {"steps": 8, "normalization": halves, "device": torch.device("cpu")}
    return attribution.explain(method, network, images, targets, "gray", **how)


@pytest.mark.parametrize("method", EVERYWHERE)
def test_every_method_finds_where_a_network_looks(corner, halves, method):
    (found,) = maps_of(method, corner, torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), [1], halves)
    assert (found[:4, :4] > 0).all()
    assert np.abs(found[5:, 5:]).max() < 1e-6  # the windows of occlusion reach one pixel over
    assert found.argmax() in [8 * row + column for row in range(4) for column in range(4)]


def test_grad_cam_is_the_last_maps_weighed_by_their_gradients(network, halves):
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[0, 0, :, :2] = 255  # red on the left
    image[0, 2, :, 2:] = 255  # blue on the right
    (found,) = maps_of("Grad-CAM", network, image, [0], halves)
    # before its ReLU the red map is 1 left and -1 right, the blue one the reverse; a sixteenth of the head's weight
    # of each pixel: blue speaks for the class blue
    np.testing.assert_allclose(found[:, 2:], 1 / 16, atol=1e-6)
    assert (found[:, :2] == 0).all()


@pytest.mark.parametrize(
    ("architecture", "last"),
    [
        ("mobilenet_v3_small", "features.12"),
        ("squeezenet1_1", "features.12"),
        ("googlenet", "inception5b"),
        ("densenet121", "features.denseblock4"),
        ("small_cnn", "12"),
    ],
)
def test_grad_cam_knows_the_last_maps_of_every_convolutional_network(architecture, last):
    network = networks.build(architecture, 2, "none")
    assert attribution._last_maps(network) is network.get_submodule(last)


def test_grad_cam_of_a_network_without_maps_and_an_unknown_method_are_refused(corner, halves):
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="the last stage of this network has none"):
        maps_of("Grad-CAM", corner, image, [0], halves)
    with pytest.raises(ValueError, match="choose one of Integrated Gradients, noise tunnel, Grad-CAM"):
        maps_of("tea leaves", corner, image, [0], halves)
    with pytest.raises(ValueError, match="grey"):
        attribution.explain("gradients", corner, image, [0], "grey", steps=8, normalization=halves, device=CPU)
    with pytest.raises(ValueError, match="There is no image to explain"):
        maps_of("Integrated Gradients", corner, image[:0], [], halves)


def test_the_noise_tunnel_leaves_the_random_numbers_of_others_alone(corner, halves):
    image = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = maps_of("noise tunnel", corner, image, [1], halves)
    assert torch.equal(torch.rand(1), expected)
    assert (maps_of("noise tunnel", corner, image, [1], halves) == first).all()


def test_between_two_baselines_lies_the_mean_of_both(linear, halves):
    images = noise(2)
    how = {"steps": 8, "error_bound": 1.0, "normalization": halves, "device": CPU}
    between = attribution.between_baselines(linear, images, [1, 0], **how)
    np.testing.assert_allclose(between, explain(linear, images, [1, 0], "gray", halves).maps, atol=1e-5)
