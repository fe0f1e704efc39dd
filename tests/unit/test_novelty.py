import math

import numpy as np
import pytest
import torch

from helpers import compute, images, networks, novelty

CPU = torch.device("cpu")
BLUE, RED, WHITE, BLACK = (0, 0, 255), (255, 0, 0), (255, 255, 255), (0, 0, 0)


def plain(*colors):
    """(N, 3, 4, 4) uint8, an image of each color."""
    return torch.tensor(colors, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)


@pytest.fixture
def model(network, halves):
    """Its features are how red and how blue an image is: those of blue and red have a right angle between them."""
    return networks.Model(network, {"normalization": halves, "mirrored": False, "familiar_from": 0.0})


def learned(model, known, validation=(BLUE,)):
    pixels = plain(*known, *validation)
    return novelty.learned(model, pixels, np.arange(len(known)), np.arange(len(known), len(pixels)), CPU)


def test_an_image_is_as_similar_as_the_nearest_that_was_learned_from(model):
    pixels = plain(BLUE, WHITE, RED, BLACK)
    only_blue = novelty.similarities(learned(model, [BLUE]), pixels, np.arange(4), CPU)
    assert only_blue == pytest.approx([1, math.sqrt(0.5), 0, 0], abs=1e-3)
    both = novelty.similarities(learned(model, [BLUE, RED]), pixels, np.array([2, 1]), CPU)
    assert both == pytest.approx([1, math.sqrt(0.5)], abs=1e-3)


def test_as_familiar_as_the_least_similar_of_a_few_validation_images(model):
    assert learned(model, [BLUE], [BLUE, WHITE]).card["familiar_from"] == pytest.approx(math.sqrt(0.5), abs=1e-3)


def test_of_a_hundred_validation_images_the_oddest_is_unfamiliar(model):
    assert learned(model, [BLUE], [BLUE] * 100 + [WHITE]).card["familiar_from"] == pytest.approx(1, abs=1e-3)


def test_the_model_that_learned_is_another_one_and_what_it_answers_stays(model):
    known = learned(model, [BLUE])
    assert model.known is None
    assert model.card["familiar_from"] == 0
    assert known.network is model.network
    assert known.known.tolist() == [[0, 1]]  # not red, and blue
    assert known.known.dtype == torch.float16


def test_a_large_set_is_remembered_by_images_evenly_spread(model, monkeypatch):
    monkeypatch.setattr(novelty, "_MOST_KNOWN", 3)
    known = learned(model, [BLUE, RED, RED, RED, WHITE])
    assert known.known.tolist() == pytest.approx(np.array([[0, 1], [1, 0], [0.5**0.5, 0.5**0.5]]), abs=1e-3)


def test_a_corruption_comes_before_the_comparison(model):
    inverted = novelty.similarities(learned(model, [RED]), plain(RED), np.arange(1), CPU, lambda batch: 255 - batch)
    assert inverted == pytest.approx([0])


def test_a_model_that_knows_nothing_calls_nothing_unfamiliar(model):
    assert novelty.similarities(model, plain(BLUE, BLACK), np.arange(2), CPU).tolist() == [1, 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("architecture", ["small_cnn", "mobilenet_v2", "squeezenet1_1", "googlenet"])
def test_the_logits_are_those_of_plain_inference(architecture, mirrored):
    torch.manual_seed(0)
    network = networks.build(architecture, 2, "none").eval()
    card = {"normalization": networks.IMAGENET_NORMALIZATION, "mirrored": mirrored, "familiar_from": 0.0}
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = novelty.learned(networks.Model(network, card), pixels, np.arange(3), np.arange(3), CPU)
    seen = images.normalize(pixels, **networks.IMAGENET_NORMALIZATION)
    logits, similar = novelty.inference(model, CPU)(seen)
    expected = compute.inference(network, CPU, mirrored=mirrored)(seen)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(similar, torch.ones(3), atol=1e-3, rtol=0)
