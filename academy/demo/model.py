"""The model: a neural network with one hidden layer, trained in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from academy.demo.data import CLASSES, PIXELS, Dataset, Floats, Indices

Weights = tuple[Floats, ...]
"""Weights and offsets of the hidden layer, then those of the output layer."""

HIDDEN = 512
BATCH = 16
STEP = 0.02
MOMENTUM = 0.9


def initial(seed: int) -> Weights:
    """Return the weights to begin with."""
    random = np.random.default_rng(seed)
    return (
        random.normal(0, np.sqrt(2 / PIXELS), (PIXELS, HIDDEN)),
        np.zeros(HIDDEN),
        random.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, CLASSES)),
        np.zeros(CLASSES),
    )


def train(weights: Weights, data: Dataset, epochs: int, seed: Sequence[int]) -> Weights:
    """Return weights improved by gradient descent with momentum.

    Args:
        weights: What to start from; it is not changed.
        data: The images to learn from.
        epochs: How often to go through all images.
        seed: Determines the order of the images.
    """
    random = np.random.default_rng(seed)
    trained = tuple(part.copy() for part in weights)
    speeds = tuple(np.zeros_like(part) for part in weights)
    for _ in range(epochs):
        order = random.permutation(len(data))
        for start in range(0, len(data), BATCH):
            batch = data.take(order[start : start + BATCH])
            slopes = _gradient(trained, batch)
            for part, speed, slope in zip(trained, speeds, slopes, strict=True):
                speed *= MOMENTUM
                speed -= STEP * slope
                part += speed
    return trained


def average(weights: Sequence[Weights], sizes: Sequence[int]) -> Weights:
    """Return the mean of several models, weighted by the sizes of their data."""
    return tuple(
        np.average(np.stack(parts), axis=0, weights=sizes)
        for parts in zip(*weights, strict=True)
    )


def predict(weights: Weights, images: Floats) -> Indices:
    """Return the digit that the model sees on each image."""
    _, scores = _forward(weights, images)
    best: Indices = scores.argmax(axis=1)
    return best


def accuracy(weights: Weights, data: Dataset) -> float:
    """Return the share of the images that the model gets right."""
    return float(np.mean(predict(weights, data.images) == data.labels))


def _forward(weights: Weights, images: Floats) -> tuple[Floats, Floats]:
    """Return the activity of the hidden layer, and the scores of the digits."""
    hidden_weights, hidden_offsets, output_weights, output_offsets = weights
    hidden = np.maximum(images @ hidden_weights + hidden_offsets, 0)
    return hidden, hidden @ output_weights + output_offsets


def _gradient(weights: Weights, batch: Dataset) -> Weights:
    """Return the slope of the mean cross entropy of a batch."""
    hidden, scores = _forward(weights, batch.images)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    errors = scores / scores.sum(axis=1, keepdims=True)
    errors[np.arange(len(batch)), batch.labels] -= 1
    errors /= len(batch)
    hidden_errors = (errors @ weights[2].T) * (hidden > 0)
    return (
        batch.images.T @ hidden_errors,
        hidden_errors.sum(axis=0),
        hidden.T @ errors,
        errors.sum(axis=0),
    )
