"""The data: 1,797 images of handwritten digits, shared out unevenly among sites.

The images (8 x 8 pixels, from the UCI repository) come with scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

CLASSES = 10
PIXELS = 64
TEST_SHARE = 0.2
SKEW = 1.0
"""Concentration of the Dirichlet distribution: the smaller, the more uneven."""

SMALLEST_SHARD = 30
_SPLIT_SEED = 8


@dataclass(frozen=True)
class Dataset:
    """Images and what they show.

    Attributes:
        images: One row of pixels, from 0 to 1, per image.
        labels: The digit on each image.
    """

    images: Floats
    labels: Indices

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Indices) -> Dataset:
        """Return some of the images."""
        return Dataset(self.images[which], self.labels[which])


def digits() -> tuple[Dataset, Dataset]:
    """Return the images to train with and those to test with; always the same."""
    # Only the processes of the agents load this; it takes a second.
    from sklearn.datasets import load_digits

    raw: Any = load_digits()
    everything = Dataset(raw.data / 16.0, raw.target.astype(np.intp))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything))
    tests = round(TEST_SHARE * len(everything))
    return everything.take(order[tests:]), everything.take(order[:tests])


def shard(site: int, sites: int, seed: int) -> Dataset:
    """Return the training images of one site."""
    training, _ = digits()
    return training.take(partition(training.labels, sites, seed)[site])


def partition(labels: Indices, sites: int, seed: int) -> list[Indices]:
    """Share out images among sites, so that each site sees other digits more often.

    For every digit, the shares of the sites are drawn from a Dirichlet distribution.

    Args:
        labels: What the images show.
        sites: How many sites there are.
        seed: The same seed gives the same shares.

    Returns:
        The positions of each site's images. Every image is at exactly one site, and
        no site has fewer than `SMALLEST_SHARD`.

    Raises:
        ValueError: There are not enough images for so many sites.
    """
    if len(labels) < sites * SMALLEST_SHARD:
        raise ValueError(f"{len(labels)} images are too few for {sites} sites.")
    random = np.random.default_rng([seed, sites])
    shares: list[list[int]] = [[] for _ in range(sites)]
    for digit in range(CLASSES):
        images = random.permutation(np.flatnonzero(labels == digit))
        shares_of_digit = random.dirichlet([SKEW] * sites)
        cuts = (shares_of_digit.cumsum()[:-1] * len(images)).astype(int)
        for share, part in zip(shares, np.split(images, cuts), strict=True):
            share.extend(part)
    while len(smallest := min(shares, key=len)) < SMALLEST_SHARD:
        smallest.append(max(shares, key=len).pop())
    return [np.sort(np.array(share, dtype=np.intp)) for share in shares]
