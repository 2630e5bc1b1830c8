from __future__ import annotations

from typing import Any

import pytest

from academy.cli.arguments import parse_arguments, parse_value
from academy.cli.error import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ("[1, {}]", [1, {}]),
        ('"3"', "3"),
        ("three", "three"),
        ("True", "True"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("", ""),
        ("[1", "[1"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_value_is_json_or_text(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_words_become_positional_and_keyword_arguments() -> None:
    args, kwargs = parse_arguments(["1", "x", "a=2", "-3", "b_2=x=y", "c="])
    assert args == [1, "x", -3]
    assert kwargs == {"a": 2, "b_2": "x=y", "c": ""}


@pytest.mark.parametrize("word", ['"a=b"', "=b", "1a=b", "a b=c", "é+=1"])
def test_only_a_name_makes_a_keyword(word: str) -> None:
    args, kwargs = parse_arguments([word])
    assert args == [parse_value(word)]
    assert not kwargs


def test_value_may_have_lines() -> None:
    assert parse_arguments(["text=a\nb"]) == ([], {"text": "a\nb"})


def test_keyword_given_twice() -> None:
    with pytest.raises(UsageError, match="argument a is given twice"):
        parse_arguments(["a=1", "a=2"])


@pytest.mark.parametrize("word", ["--timeot", "-x", "--a=1"])
def test_unknown_option_is_no_value(word: str) -> None:
    with pytest.raises(UsageError, match=f"No such option: {word}.*'\"{word}\"'"):
        parse_arguments([word])
