import copy

import numpy as np
import pytest
import torch
from captum.metrics import infidelity
from torch import nn

from helpers import attribution, faithfulness, networks

CPU = torch.device("cpu")


@pytest.fixture
def subject(halves):
    """A linear network that looks at the upper left quarter of two images of 16 x 16 px, and its truth."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval()
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(2, 3, 16, 16)
    weight[1, :, :8, :8] = torch.rand(3, 8, 8, generator=generator) / 30
    with torch.no_grad():
        layers[1].weight.copy_(weight.view(2, -1))
        layers[1].bias.zero_()
    images = torch.randint(130, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return faithfulness.Subject(layers, images, [1, 1], halves, CPU)


def gradients(network, pixels, targets):
    how = {"steps": 8, "normalization": {"mean": [0.5] * 3, "deviation": [0.5] * 3}, "device": CPU}
    return attribution.explain("Integrated Gradients", network, pixels, targets, "gray", **how)


def test_a_true_map_deletes_and_inserts_faster_than_one_that_points_elsewhere(subject):
    true = gradients(subject.network, subject.images, subject.targets)
    deleted, inserted = faithfulness.deletion_and_insertion(subject, true, "gray")
    wrong_deleted, wrong_inserted = faithfulness.deletion_and_insertion(subject, true[:, ::-1, ::-1].copy(), "gray")
    assert deleted.shape == inserted.shape == (2, faithfulness.POINTS + 1)
    assert (deleted.mean(1) < wrong_deleted.mean(1) - 0.1).all()
    assert (inserted.mean(1) > wrong_inserted.mean(1) + 0.1).all()
    np.testing.assert_allclose(deleted[:, 0], inserted[:, -1], atol=1e-6)  # the image as it is
    np.testing.assert_allclose(deleted[:, -1], 0.5, atol=1e-6)  # gray tells nothing
    np.testing.assert_allclose(deleted[:, 4], 0.5, atol=1e-6)  # a quarter of the pixels was all that counts


def test_a_map_that_explains_a_linear_network_has_no_infidelity_whatever_its_scale(subject):
    true = gradients(subject.network, subject.images, subject.targets)
    assert faithfulness.infidelity(subject, true, "gray", seed=0) == pytest.approx([0, 0], abs=1e-5)
    assert faithfulness.infidelity(subject, 7 * true, "gray", seed=0) == pytest.approx([0, 0], abs=1e-5)
    wrong = true[:, ::-1, ::-1].copy()
    assert (faithfulness.infidelity(subject, wrong, "gray", seed=0) > 0.4).all()
    assert faithfulness.infidelity(subject, 0 * true, "gray", seed=0).tolist() == [1, 1]
    assert faithfulness.infidelity(subject, -true, "gray", seed=0).tolist() == [1, 1]


def test_each_image_is_tested_for_its_own_class_and_against_the_baseline_that_is_asked_for(subject):
    true = gradients(subject.network, subject.images, subject.targets)
    other = subject._replace(targets=[0, 0])  # whose logit nothing changes
    assert faithfulness.infidelity(other, true, "gray", seed=0).tolist() == [1, 1]
    gone = {name: faithfulness.deletion_and_insertion(subject, true, name)[0][:, -1] for name in ("gray", "white")}
    assert (gone["white"] > gone["gray"] + 0.1).all()
    opposite, _ = faithfulness.deletion_and_insertion(other, true, "gray")
    deleted, _ = faithfulness.deletion_and_insertion(subject, true, "gray")
    np.testing.assert_allclose(opposite, 1 - deleted, atol=1e-6)
    black = faithfulness.infidelity(subject, true, "black", seed=0)
    assert (black > faithfulness.infidelity(subject, true, "gray", seed=0) + 1e-4).all()  # true is the map from gray


def test_sensitivity_shows_the_explanation_the_image_that_it_is(subject):
    shown = []

    def noted(network, pixels, targets):
        shown.append(pixels)
        return np.ones((len(pixels), 16, 16), np.float32)

    faithfulness.sensitivity(subject, noted)
    np.testing.assert_allclose(shown[0][0], subject.images[0], atol=1e-3)  # in 0..255


def test_sensitivity_does_not_depend_on_the_random_numbers_before(subject):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(faithfulness.sensitivity(subject, gradients).tolist())
    assert found[0] == found[1]


def test_infidelity_is_that_of_captum_over_the_mean_square_of_the_changes(subject):
    masks = torch.from_numpy(faithfulness._squares(16, 16, np.random.default_rng(4)))[:, None]
    generator = np.random.default_rng(1)
    maps = generator.random((2, 16, 16))
    found = faithfulness.infidelity(subject, maps, "gray", seed=4)
    for number, values in enumerate(maps):
        inputs = (subject.images[number : number + 1] / 255 - 0.5) / 0.5

        def cover(images):
            return masks.float().expand(-1, 3, -1, -1), images * ~masks

        def scalar(images):
            return subject.network(images)[:, 1]

        how = {"n_perturb_samples": len(masks), "normalize": True}
        first = torch.zeros_like(inputs)
        first[0, 0] = torch.from_numpy(values)  # the map stands in one channel, so that it counts once
        reference = infidelity(scalar, cover, inputs, first, **how)
        changes = scalar(inputs) - scalar(inputs * ~masks)
        assert found[number] == pytest.approx((reference / changes.square().mean()).item(), rel=1e-3)


def test_a_map_that_does_not_follow_the_image_is_not_sensitive_and_one_that_does_is(subject):
    def constant(network, pixels, targets):
        return np.ones((len(pixels), 16, 16), np.float32)

    assert faithfulness.sensitivity(subject, constant).tolist() == [0, 0]
    # of a linear network the map is weight times distance from gray, so it moves as its image does
    moved = faithfulness.sensitivity(subject, gradients)
    assert (moved > 0.01).all()
    assert (moved < 0.2).all()


def test_layers_are_spoilt_from_the_top_one_more_each_time_and_keep_their_spread():
    network = networks.build("small_cnn", 8, "none")  # of 8 numbers, chance hardly leaves all in their places
    before = copy.deepcopy(network.state_dict())
    changed = []
    for name, spoilt in faithfulness.randomized(network, seed=0):
        state = spoilt.state_dict()
        changed.append((name, [key for key, tensor in state.items() if not torch.equal(tensor, before[key])]))
        assert all(
            torch.equal(tensor.flatten().sort()[0], before[key].flatten().sort()[0]) for key, tensor in state.items()
        )
    first, keys = changed[0]
    assert (first, {key.split(".")[1] for key in keys}) == ("head", {"weight", "bias"})
    assert [len(keys) for _, keys in changed] == sorted(len(keys) for _, keys in changed)
    assert len(changed[-1][1]) > len(changed[0][1]) + 3
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_maps_of_a_spoilt_network_are_not_like_those_of_the_true_one(subject):
    true = gradients(subject.network, subject.images, subject.targets)
    ((_, spoilt),) = list(faithfulness.randomized(subject.network, seed=0))[:1]
    other = gradients(spoilt, subject.images, subject.targets)
    visible = np.ones(true.shape, bool)
    assert faithfulness.rank_correlation(true, true, visible).tolist() == pytest.approx([1, 1])
    assert (faithfulness.rank_correlation(true, other, visible) < 0.5).all()
    assert faithfulness.rank_correlation(true, np.ones_like(true), visible).tolist() == [0, 0]
    assert np.isnan(faithfulness.rank_correlation(np.ones_like(true), true, visible)).all()  # no map that could change


def test_what_is_hidden_makes_no_maps_alike():
    first, second = np.random.default_rng(0).normal(size=(2, 1, 40, 40))
    hidden = np.arange(40) < 20
    first[..., hidden] = second[..., hidden] = 0
    visible = np.broadcast_to(~hidden, first.shape)
    assert faithfulness.rank_correlation(first, second, np.ones_like(visible))[0] > 0.5
    assert abs(faithfulness.rank_correlation(first, second, visible)[0]) < 0.1
