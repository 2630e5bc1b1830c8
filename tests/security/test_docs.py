"""Each claim of docs/security.md names a test that exists."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text()
CITED = sorted(set(re.findall(r"`(tests/[\w/.]+(?:::\w+)+)`", TEXT)))


def test_something_is_claimed() -> None:
    assert len(CITED) > 30


@pytest.mark.parametrize("cited", CITED)
def test_the_test_is_there(cited: str) -> None:
    path, *names = cited.split("::")
    node: ast.AST = ast.parse((ROOT / path).read_text())
    for name in names:
        kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        found = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, kinds) and child.name == name
        ]
        assert found, f"{cited} is not there"
        node = found[0]


def test_claims_have_tests() -> None:
    """Each row of a table of claims."""
    for table in re.findall(r"\| claim \| test \|\n.*\n((?:\|.*\n)+)", TEXT):
        for row in table.splitlines():
            assert "`tests/" in row, row
