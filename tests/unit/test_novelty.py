import math
from functools import partial

import numpy as np
import pytest
import torch

from helpers import cards, compute, images, networks, novelty

CPU = torch.device("cpu")
BLUE, RED, WHITE, BLACK = (0, 0, 255), (255, 0, 0), (255, 255, 255), (0, 0, 0)
HALFWAY = math.sqrt(0.5)  # the cosine between white and either of blue and red


def plain(*colors):
    """(N, 3, 4, 4) uint8, an image of each color."""
    return torch.tensor(colors, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)


@pytest.fixture
def model(network, halves):
    """Its features are how red and how blue an image is: those of blue and red have a right angle between them."""
    card = {"normalization": halves, "mirrored": False, "views": ["side", "top"], "novelty_thresholds": {}}
    return cards.Model(network, card)


def fit(model, train, validation):
    """train, validation: (view, color) pairs; each of validation twice, so that they have a spread, which is 0."""
    validation = [pair for pair in validation for _ in range(2)]
    pairs, count = [*train, *validation], len(train)
    views = np.array([view for view, _ in pairs])
    pixels = plain(*(color for _, color in pairs))
    return novelty.fit(model, pixels, views, np.arange(count), np.arange(count, len(pairs)), CPU)


def strange(model, *pairs, corruption=None):
    views = np.array([view for view, _ in pairs])
    pixels = plain(*(color for _, color in pairs))
    return novelty.answers(model, pixels, views, np.arange(len(pairs)), CPU, corruption)[1].tolist()


def test_an_image_is_compared_with_the_nearest_of_its_own_view(model):
    train, validation = [("side", BLUE), ("side", RED), ("top", RED)], [("side", BLUE), ("top", RED)]
    fitted = fit(model, train, validation)
    asked = [("side", BLUE), ("side", RED), ("top", BLUE), ("top", RED), ("side", WHITE), ("top", BLACK)]
    assert strange(fitted, *asked) == [False, False, True, False, True, True]


def test_an_image_is_judged_by_its_own_view_in_whatever_batch_it_comes(model, monkeypatch):
    fitted = fit(model, [("side", BLUE), ("top", RED)], [("side", BLUE), ("top", RED)])
    monkeypatch.setattr(novelty, "normalized_batches", partial(images.normalized_batches, batch_size=2))
    views, rows = np.array(["side", "side", "top", "top"]), np.array([3, 2, 1, 0])
    _, unfamiliar = novelty.answers(fitted, plain(BLUE, RED, BLUE, RED), views, rows, CPU)
    assert unfamiliar.tolist() == [False, True, True, False]


def test_one_in_a_hundred_of_the_next_images_is_below_the_threshold_however_few_set_it():
    generator = np.random.default_rng(0)
    for count in (3, 23, 101):
        drawn = generator.normal(0.9, 0.003, (4000, count + 1))
        below = np.mean([row[-1] < novelty._threshold(row[:-1]) for row in drawn])
        assert below == pytest.approx(0.01, abs=0.005)  # three standard errors


def test_of_99_validation_images_on_the_threshold_is_the_one_below_which_one_in_a_hundred_lies():
    similar = np.append(np.full(197, 0.9), [0.1, 0.2])
    assert novelty._threshold(similar) == 0.2  # the second lowest of 199: the next is below it in 2 of 200 cases
    assert novelty._threshold(similar[:-1]) == 0.1  # the lowest of 198
    assert novelty._threshold(similar[:98]) == pytest.approx(0.9)  # of 98, by their mean and deviation


def test_one_validation_image_tells_nothing_of_the_spread_and_no_cosine_is_below_the_least():
    assert novelty._threshold(np.array([0.9])) == -1
    assert novelty._threshold(np.array([0.9, 0.2])) == -1
    assert novelty._threshold(np.array([0.9, 0.9])) == pytest.approx(0.9)


def test_the_model_that_was_fitted_is_another_one_and_keeps_features_by_view(model):
    fitted = fit(model, [("side", BLUE), ("top", RED)], [("side", BLUE), ("top", RED)])
    assert (model.features, model.card["novelty_thresholds"]) == (None, {})
    assert fitted.network is model.network
    assert {view: own.tolist() for view, own in fitted.features.items()} == {"side": [[0, 1]], "top": [[1, 0]]}
    assert fitted.features["side"].dtype == torch.float16


def test_a_view_without_validation_images_has_no_threshold(model):
    assert list(fit(model, [("side", BLUE), ("top", RED)], [("side", BLUE)]).features) == ["side"]


def test_an_image_of_no_known_view_is_unfamiliar_if_it_would_be_in_all(model):
    fitted = fit(model, [("side", BLUE), ("top", RED)], [("side", BLUE), ("top", RED)])
    assert strange(fitted, ("", RED), ("", BLUE), ("", BLACK)) == [False, False, True]


def test_a_large_set_is_remembered_by_images_evenly_spread(model, monkeypatch):
    monkeypatch.setattr(novelty, "_MOST_FEATURES", 3)
    train = [("side", color) for color in (BLUE, RED, RED, RED, WHITE)]
    kept = fit(model, train, [("side", BLUE)]).features["side"]
    np.testing.assert_allclose(kept, [[0, 1], [1, 0], [HALFWAY, HALFWAY]], atol=1e-3)


def test_a_corruption_comes_before_the_comparison(model):
    fitted = fit(model, [("side", RED)], [("side", RED)])
    assert strange(fitted, ("side", RED), corruption=lambda batch: 255 - batch) == [True]


def test_to_a_model_without_features_nothing_is_unfamiliar(model):
    assert strange(model, ("side", BLUE), ("top", BLACK)) == [False, False]


def test_features_that_are_no_numbers_are_refused_and_always_unfamiliar(model):
    fitted = fit(model, [("side", BLUE)], [("side", BLUE)])
    with torch.no_grad():
        model.network[0].weight.fill_(math.nan)
    assert strange(fitted, ("side", BLUE)) == [True]
    with pytest.raises(FloatingPointError, match="not finite"):
        fit(model, [("side", BLUE)], [("side", BLUE)])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("architecture", ["small_cnn", "squeezenet1_1"])
def test_the_logits_and_probabilities_are_those_of_plain_inference(architecture, mirrored):
    torch.manual_seed(0)
    network = networks.build(architecture, 2, "none").eval()
    card = {"normalization": networks.IMAGENET_NORMALIZATION, "mirrored": mirrored, "views": [""], "temperature": 3.0}
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = novelty.fit(cards.Model(network, card), pixels, np.array([""] * 3), np.arange(2), np.arange(2), CPU)
    seen = images.normalize(pixels, **networks.IMAGENET_NORMALIZATION)
    logits, _ = novelty.answering(model, CPU)(seen, [""] * 3)
    expected = compute.as_function(network, CPU, mirrored=mirrored)(seen)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    probabilities, _ = novelty.answers(model, pixels, np.array([""] * 3), np.array([2, 0]), CPU)
    np.testing.assert_allclose(probabilities, expected[[2, 0]].softmax(1), atol=1e-5)
    assert model.card["novelty_thresholds"][""] == pytest.approx(1, abs=0.01)
