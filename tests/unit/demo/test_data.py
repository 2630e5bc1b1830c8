from __future__ import annotations

import numpy as np
import pytest

from academy.demo.data import (
    CLASSES,
    PIXELS,
    SMALLEST_SHARD,
    digits,
    partition,
    shard,
)

TRAINING, TESTS = digits()


def test_digits_are_split_into_two_different_sets() -> None:
    assert len(TRAINING) == 1438
    assert len(TESTS) == 359
    for data in (TRAINING, TESTS):
        assert data.images.shape == (len(data), PIXELS)
        assert data.images.min() == 0.0
        assert data.images.max() == 1.0
        assert set(data.labels) == set(range(CLASSES))
    seen = {row.tobytes() for row in TRAINING.images}
    assert not any(row.tobytes() in seen for row in TESTS.images)


def test_digits_are_always_the_same() -> None:
    again, _ = digits()
    assert np.array_equal(again.images, TRAINING.images)


@pytest.mark.parametrize("sites", [2, 4, 16])
@pytest.mark.parametrize("seed", [0, 7])
def test_every_image_is_at_one_site(sites: int, seed: int) -> None:
    parts = partition(TRAINING.labels, sites, seed)
    assert len(parts) == sites
    assert sorted(np.concatenate(parts)) == list(range(len(TRAINING)))
    assert min(map(len, parts)) >= SMALLEST_SHARD


def test_partition_is_determined_by_its_seed() -> None:
    first, second = (partition(TRAINING.labels, 4, 5) for _ in range(2))
    assert all(map(np.array_equal, first, second))
    other = partition(TRAINING.labels, 4, 6)
    assert not any(map(np.array_equal, first, other))


@pytest.mark.parametrize("seed", range(5))
def test_sites_see_different_digits(seed: int) -> None:
    parts = partition(TRAINING.labels, 4, seed)
    counts = np.array([np.bincount(TRAINING.labels[p], minlength=10) for p in parts])
    shares = counts / counts.sum(axis=1, keepdims=True)
    # Without skew every digit makes up a tenth of every shard, give or take 3 %.
    assert shares.max(axis=1).min() > 0.14
    assert np.abs(shares - 0.1).mean() > 0.03


def test_small_shards_are_filled_up() -> None:
    labels = np.zeros(2 * SMALLEST_SHARD, dtype=np.intp)
    parts = partition(labels, 2, 0)
    assert [len(part) for part in parts] == [SMALLEST_SHARD, SMALLEST_SHARD]


def test_too_many_sites() -> None:
    labels = np.zeros(2 * SMALLEST_SHARD - 1, dtype=np.intp)
    with pytest.raises(ValueError, match="59 images are too few for 2 sites"):
        partition(labels, 2, 0)


def test_shard_is_the_part_of_a_site() -> None:
    part = partition(TRAINING.labels, 3, 1)[2]
    data = shard(2, 3, 1)
    assert np.array_equal(data.images, TRAINING.images[part])
    assert np.array_equal(data.labels, TRAINING.labels[part])
