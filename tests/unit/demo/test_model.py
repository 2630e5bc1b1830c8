from __future__ import annotations

import numpy as np
import pytest

from academy.demo import model
from academy.demo.data import CLASSES, PIXELS, Dataset, digits

TRAINING, TESTS = digits()
SOME = TRAINING.take(np.arange(200))


def loss(weights: model.Weights, data: Dataset) -> float:
    _, scores = model._forward(weights, data.images)
    scores = scores - scores.max(axis=1, keepdims=True)
    sums = np.log(np.exp(scores).sum(axis=1))
    return float(np.mean(sums - scores[np.arange(len(data)), data.labels]))


def test_initial_weights_depend_on_the_seed_only() -> None:
    first, same, other = model.initial(1), model.initial(1), model.initial(2)
    assert [w.shape for w in first] == [(PIXELS, 512), (512,), (512, CLASSES), (10,)]
    assert all(map(np.array_equal, first, same))
    assert not np.array_equal(first[0], other[0])


def test_gradient_is_the_slope_of_the_loss() -> None:
    weights = model.initial(3)
    slopes = model._gradient(weights, SOME)
    random = np.random.default_rng(0)
    step = 1e-6
    for part, slope in zip(weights, slopes, strict=True):
        for _ in range(5):
            where = tuple(int(random.integers(size)) for size in part.shape)
            value = part[where]
            part[where] = value + step
            above = loss(weights, SOME)
            part[where] = value - step
            below = loss(weights, SOME)
            part[where] = value
            assert (above - below) / (2 * step) == pytest.approx(slope[where], abs=1e-6)


def test_training_learns_the_digits() -> None:
    before = model.initial(0)
    kept = [part.copy() for part in before]
    after = model.train(before, TRAINING, 10, [0])
    assert model.accuracy(before, TESTS) < 0.4
    assert model.accuracy(after, TESTS) > 0.95
    assert all(map(np.array_equal, before, kept))


def test_training_is_determined_by_its_seed() -> None:
    start = model.initial(0)
    first, same, other = (model.train(start, SOME, 1, [s]) for s in (1, 1, 2))
    assert all(map(np.array_equal, first, same))
    assert not np.array_equal(first[0], other[0])


def test_average_is_weighted_by_sizes() -> None:
    zeros = tuple(np.zeros_like(part) for part in model.initial(0))
    ones = tuple(np.ones_like(part) for part in zeros)
    mean = model.average([zeros, ones], [1, 3])
    assert [part.shape for part in mean] == [part.shape for part in zeros]
    assert all(np.allclose(part, 0.75) for part in mean)


def test_accuracy_counts_what_is_right() -> None:
    weights = model.initial(0)
    labels = model.predict(weights, SOME.images)
    assert model.accuracy(weights, Dataset(SOME.images, labels)) == 1.0
    labels[:50] = (labels[:50] + 1) % CLASSES
    assert model.accuracy(weights, Dataset(SOME.images, labels)) == 0.75
