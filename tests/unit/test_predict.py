import copy
import math

import numpy as np
import pytest
import torch

from helpers import images, networks, predict

CPU = torch.device("cpu")
BLUE, RED = 0, 1


def small():
    torch.manual_seed(0)
    return networks.build("small_cnn", 2, "none")


def noise(count):
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plain(colors):
    """(N, 3, 4, 4) uint8, blue where a color is 0 and red where it is 1."""
    pixels = torch.zeros(len(colors), 3, 4, 4, dtype=torch.uint8)
    for index, color in enumerate(colors):
        pixels[index, 0 if color == RED else 2] = 255
    return pixels


def test_predict_is_the_softmax_of_the_rows_asked_for(network, halves):
    answers = predict.probabilities(network, plain([BLUE, RED, BLUE]), np.array([1, 0]), CPU, normalization=halves)
    sure = 1 / (1 + math.exp(-2))
    np.testing.assert_allclose(answers, [[1 - sure, sure], [sure, 1 - sure]], rtol=1e-6)


def test_predict_is_the_plain_path_whatever_the_batches():
    network, pixels = small(), noise(7)
    normalization = networks.IMAGENET_NORMALIZATION
    with torch.no_grad():
        expected = network.eval()(images.normalize(pixels, **normalization)).softmax(1)
    answers = predict.probabilities(network, pixels, np.arange(7), CPU, normalization=normalization, batch_size=3)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_predict_leaves_the_mode_and_the_statistics(mode):
    network = small().train(mode)
    before = copy.deepcopy(network.state_dict())
    predict.probabilities(network, noise(4), np.arange(4), CPU, normalization=networks.IMAGENET_NORMALIZATION)
    assert all(layer.training is mode for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_time_of_an_image_is_the_median_of_five_after_a_warm_up(network, halves, monkeypatch):
    clock = iter([0, 9.0, 10, 10.2, 20, 20.6, 30, 30.4, 40, 40.1, 50, 50.5])  # the first is the warm-up
    monkeypatch.setattr(predict.time, "perf_counter", lambda: next(clock))
    spent = predict.milliseconds_per_image(network, plain([BLUE, RED]), CPU, normalization=halves)
    assert spent == pytest.approx(400 / 2)
