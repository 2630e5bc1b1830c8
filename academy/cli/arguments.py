"""Arguments of an action, as people type them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from academy.cli.error import UsageError

_KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-{1,2}[^\W\d]")


def parse_arguments(words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments.

    `name=value` is a keyword argument, all else is positional. A value that is JSON
    (`3`, `true`, `null`, `[1, 2]`, `"a=b"`) is what it says; any other is a string.

    Raises:
        UsageError: A keyword comes twice, or a word looks like an option.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if _OPTION.match(word):
            raise UsageError(
                f"No such option: {word}. If it is a value, write it as a JSON "
                f"""string: '"{word}"'."""
            )
        keyword = _KEYWORD.fullmatch(word)
        if keyword is None:
            args.append(parse_value(word))
        elif keyword[1] in kwargs:
            raise UsageError(f"The argument {keyword[1]} is given twice.")
        else:
            kwargs[keyword[1]] = parse_value(keyword[2])
    return args, kwargs


def parse_value(text: str) -> Any:
    """Return what a text says as JSON, or the text itself when it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is Python's, not JSON.")
