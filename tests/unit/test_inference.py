import math

import numpy as np
import pytest
import torch
from tiny import BLUE, RED, noise, plain, small

from helpers import cards, images, inference, networks

CPU = torch.device("cpu")


def carded(network, normalization=networks.IMAGENET_NORMALIZATION, *, mirrored=False):
    """The network with as much of a card as probabilities need."""
    return cards.Model(network, {"normalization": normalization, "mirrored": mirrored})


def test_probabilities_are_the_softmax_of_the_rows_asked_for(network, halves):
    answers = inference.probabilities(carded(network, halves), plain([BLUE, RED, BLUE]), np.array([1, 0]), CPU)
    sure = 1 / (1 + math.exp(-2))
    np.testing.assert_allclose(answers, [[1 - sure, sure], [sure, 1 - sure]], rtol=1e-6)


def test_probabilities_are_the_plain_path_whatever_the_batches():
    network, pixels = small(), noise(7)
    with torch.no_grad():
        expected = network.eval()(images.normalize(pixels, **networks.IMAGENET_NORMALIZATION)).softmax(1)
    answers = inference.probabilities(carded(network), pixels, np.arange(7), CPU, batch_size=3)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_a_mirrored_look_averages_the_logits_of_both():
    network, pixels = small(), noise(3)
    seen = images.normalize(pixels, **networks.IMAGENET_NORMALIZATION)
    with torch.no_grad():
        expected = ((network.eval()(seen) + network(seen.flip(3))) / 2).softmax(1)
    answers = inference.probabilities(carded(network, mirrored=True), pixels, np.arange(3), CPU)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_images_without_a_number_are_counted_and_refused(network, halves):
    network.register_forward_hook(lambda *_: torch.tensor([[1.0, 2.0], [math.inf, 1.0], [math.nan, 0.0]]))
    with pytest.raises(FloatingPointError, match="gives no number for 2 of 3 images: take device='cpu'"):
        inference.probabilities(carded(network, halves), plain([BLUE, RED, BLUE]), np.arange(3), CPU)


def test_it_pays_to_look_twice_where_the_mirror_image_is_called_better():
    """A network that is right about images that are bright on the left, and wrong about their mirror images."""
    head = torch.nn.Linear(3 * 2 * 2, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, -1.0] * 6, [-1.0, 1.0] * 6])  # left against right
    network = torch.nn.Sequential(torch.nn.Flatten(), head)
    left = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    left[..., 0] = 255
    unscaled = {"mean": [0.0] * 3, "deviation": [1.0] * 3}
    for pixels, label, pays in ((left, 0, False), (left, 1, True)):
        look, other = inference.looks(carded(network, unscaled), pixels, np.arange(1), np.array([label]), CPU)
        assert (look.mirrored, other.mirrored) == (pays, not pays)
        assert look.loss < other.loss
        model = carded(network, unscaled, mirrored=pays)
        expected = inference.probabilities(model, pixels, np.arange(1), CPU)
        np.testing.assert_array_equal(look.probabilities, expected)


def test_a_look_that_is_only_less_sure_does_not_pay():
    """A network that is too sure, right about two of three images; of each mirror image it is as sure of the other."""
    head = torch.nn.Linear(3 * 2 * 2, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, -0.9] * 6, [-1.0, 0.9] * 6])
    network = torch.nn.Sequential(torch.nn.Flatten(), head)
    left = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    left[..., 0] = 255
    unscaled = {"mean": [0.0] * 3, "deviation": [1.0] * 3}
    images, labels = torch.cat([left, left.flip(3)]), np.array([0, 0, 1, 1, 1, 0])
    look, _ = inference.looks(carded(network, unscaled), images, np.arange(6), labels, CPU)
    assert not look.mirrored


def test_the_time_of_an_image_is_its_part_of_that_of_all(network, halves, monkeypatch):
    monkeypatch.setattr(inference.compute, "milliseconds", lambda run: 400.0 * len(run()))
    assert inference.milliseconds_per_image(carded(network, halves), plain([BLUE, RED]), CPU) == 400.0
