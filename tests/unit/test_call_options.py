from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from academy.call_options import DEFAULT_OPTIONS, CallOptions


def test_defaults() -> None:
    assert CallOptions(timeout=None, retry=None, offline="queue") == DEFAULT_OPTIONS
    assert DEFAULT_OPTIONS.override() == DEFAULT_OPTIONS


def test_only_what_is_given_is_overridden() -> None:
    options = DEFAULT_OPTIONS.override(timeout=3)
    options = options.override(retry=True)
    options = options.override(offline="fail")
    assert options == CallOptions(timeout=3.0, retry=True, offline="fail")
    options = options.override(timeout=None, retry=False, offline="queue")
    assert options == CallOptions(timeout=None, retry=False, offline="queue")


@pytest.mark.parametrize("timeout", [0, 3, 2.5, np.float32(0.5), np.int64(2)])
def test_numbers(timeout: Any) -> None:
    kept = DEFAULT_OPTIONS.override(timeout=timeout).timeout
    assert type(kept) is float
    assert kept == timeout


@pytest.mark.parametrize("timeout", [True, "3", [3], 3j])
def test_timeouts_of_the_wrong_type(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout is a number of seconds, or None"):
        DEFAULT_OPTIONS.override(timeout=timeout)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf])
def test_timeouts_that_are_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="seconds from 0 on, or None"):
        DEFAULT_OPTIONS.override(timeout=timeout)


@pytest.mark.parametrize("retry", [None, 1, "yes"])
def test_retry_is_true_or_false(retry: Any) -> None:
    with pytest.raises(TypeError, match="retry is True or False"):
        DEFAULT_OPTIONS.override(retry=retry)


@pytest.mark.parametrize("offline", [None, "wait", True])
def test_offline(offline: Any) -> None:
    with pytest.raises(ValueError, match="offline is 'queue' or 'fail', not"):
        DEFAULT_OPTIONS.override(offline=offline)
