import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from helpers import arrays, heads
from helpers.heads import Features

CPU = torch.device("cpu")


def loss(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum")


def blobs(count, seed, classes=3, size=8):
    """Overlapping clouds of points, one for each class, in features of different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centers = torch.eye(classes, size) * 2
    scales = torch.linspace(0.5, 2, size)
    return Features((torch.randn(count, size, generator=generator) + centers[labels]) * scales, labels)


def objective(features, solution):
    """As the docstring of `solve` defines it, written out anew."""
    mean, deviation = features.values.mean(0), features.values.std(0, correction=0)
    standardized = (features.values - mean) / deviation
    weight = solution.weight * deviation
    bias = solution.bias + solution.weight @ mean
    penalty = solution.regularization / 2 * weight.square().sum()
    return F.cross_entropy(standardized @ weight.T + bias, features.labels) + penalty


def test_the_solution_does_not_depend_on_how_many_rows_are_looked_at_at_once(monkeypatch):
    whole = heads.solve(blobs(300, 0), blobs(200, 1), 3, loss, CPU)
    monkeypatch.setattr(heads, "_CHUNK_ROWS", 64)
    parts = heads.solve(blobs(300, 0), blobs(200, 1), 3, loss, CPU)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-3, rtol=1e-3)
    assert parts.regularization == whole.regularization


def test_the_solution_is_that_of_scikit_learn():
    train, validation = blobs(300, 0), blobs(200, 1)
    solution = heads.solve(train, validation, 3, loss, CPU)
    mean, deviation = train.values.mean(0), train.values.std(0, correction=0)
    reference = LogisticRegression(C=1 / (solution.regularization * 300), tol=1e-8, max_iter=1000)
    reference.fit((train.values - mean) / deviation, train.labels)
    expected = reference.predict_proba((validation.values - mean) / deviation)
    np.testing.assert_allclose(solution.logits(validation.values).softmax(1), expected, atol=2e-3)


def test_no_small_step_away_from_the_solution_is_better():
    train = blobs(120, 0)
    solution = heads.solve(train, blobs(60, 1), 3, loss, CPU)
    lowest = objective(train, solution)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 0.02 * torch.randn(solution.weight.shape, generator=generator)
        assert objective(train, solution._replace(weight=solution.weight + step)) > lowest


def test_the_regularization_is_the_one_that_validation_prefers():
    train, validation = blobs(60, 0, size=40), blobs(300, 1, size=40)
    chosen = heads.solve(train, validation, 3, loss, CPU)
    losses = {}
    for regularization in heads.REGULARIZATIONS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heads, "REGULARIZATIONS", (regularization,))
            only = heads.solve(train, validation, 3, loss, CPU)
        losses[regularization] = loss(only.logits(validation.values), validation.labels).item()
    assert chosen.regularization == min(losses, key=losses.get)
    assert 1e-5 < chosen.regularization < 1  # the noise of 40 features must be held down, the signal not


def test_features_too_many_for_memory_give_the_same_solution(tmp_path, monkeypatch):
    train, validation = blobs(300, 0), blobs(100, 1)
    expected = heads.solve(train, validation, 3, loss, CPU)
    monkeypatch.setattr(heads, "_CHUNK_ROWS", 64)
    monkeypatch.setattr(arrays, "MEMORY_BYTES", 0)
    stored = arrays.collect(iter([train.values]), (300, 8), np.float32, tmp_path / "a.npy", memory_bytes=0)
    streamed = heads.solve(Features(stored, train.labels), validation, 3, loss, CPU)
    torch.testing.assert_close(streamed.weight, expected.weight, rtol=1e-2, atol=1e-3)
    assert streamed.regularization == expected.regularization


def test_features_of_maps_of_one_pixel_are_features():
    train, validation = blobs(90, 0), blobs(60, 1)
    as_maps = (Features(part.values[:, :, None, None], part.labels) for part in (train, validation))
    flat = heads.solve(train, validation, 3, loss, CPU)
    torch.testing.assert_close(heads.solve(*as_maps, 3, loss, CPU).weight, flat.weight)


def test_a_feature_that_hardly_varies_is_not_blown_up():
    train, validation = blobs(90, 0), blobs(60, 1)
    train.values[:, -1] = 0.0
    train.values[0, -1] = 1e-4  # alive in one image only
    solution = heads.solve(train, validation, 3, loss, CPU)
    assert solution.weight[:, -1].abs().max() < solution.weight.abs().max()
    assert torch.isfinite(solution.weight).all()


@pytest.mark.parametrize("split", [0, 1])
def test_features_that_are_no_numbers_are_an_error_that_says_so(split):
    train, validation = both = blobs(90, 0), blobs(60, 1)
    both[split].values[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="The head cannot be solved"):
        heads.solve(train, validation, 3, loss, CPU)
