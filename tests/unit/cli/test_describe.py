from __future__ import annotations

import pytest

from academy.cli.describe import signature
from academy.describe import ActionDescription


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ({}, "act()"),
        ({"x": "<class 'int'>", "return": "<class 'str'>"}, "act(x: int) -> str"),
        (
            {"x": "list[int]", "y": "float | None", "return": "<class 'NoneType'>"},
            "act(x: list[int], y: float | None) -> None",
        ),
        ({"x": "<class 'package.Kind'>"}, "act(x: package.Kind)"),
    ],
)
def test_signature(types: dict[str, str], text: str) -> None:
    action = ActionDescription(name="act", type_signature=types, doc="")
    assert signature(action) == text


def test_idempotent_actions_are_marked() -> None:
    action = ActionDescription(
        name="put", type_signature={"return": "str"}, doc="", idempotent=True
    )
    assert signature(action) == "put() -> str  # idempotent"
