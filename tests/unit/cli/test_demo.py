from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from academy.cli.demo import check_packages
from academy.cli.error import UsageError


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        ({"numpy"}, "needs NumPy."),
        ({"sklearn"}, "needs scikit-learn."),
        ({"numpy", "sklearn"}, "needs NumPy and scikit-learn."),
    ],
)
def test_missing_packages(
    absent: set[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name in absent else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    with pytest.raises(UsageError) as caught:
        check_packages()
    assert named in str(caught.value)
    assert 'pip install "academy-hybrid[demo]"' in str(caught.value)


def test_nothing_is_missing_here() -> None:
    check_packages()
