"""TOML files that may have a password in them."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
import tomllib
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return the tables of a file; warn of a password that others may read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not TOML.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    _warn_if_open(path, tables)
    return tables


def write(path: pathlib.Path, tables: Mapping[str, Any]) -> None:
    """Replace a file in one step. A new one can be read by its owner only.

    Raises:
        OSError: It cannot be written.
        TypeError: Something has no notation in TOML.
    """
    _replace(path, _toml(tables))


def append(path: pathlib.Path, tables: Mapping[str, Any]) -> None:
    """Append tables to a file, in one step; raises as `write` does."""
    _replace(path, f"{path.read_text('utf-8').rstrip()}\n\n{_toml(tables)}")


def _warn_if_open(path: pathlib.Path, tables: Mapping[str, Any]) -> None:
    if _has_password(tables) and path.stat().st_mode & 0o077:
        logger.warning(
            "There is a password in %s, and others may read it. Run `chmod 600`, or "
            "write password_file or password_env instead.",
            path,
        )


def _has_password(table: Any) -> bool:
    return isinstance(table, Mapping) and any(
        _has_password(value)
        or ("password" in key and not key.endswith(("_file", "_env")))
        for key, value in table.items()
    )


def _toml(tables: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(_without_none(tables))


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what has no notation in TOML and is the default anyway."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _replace(path: pathlib.Path, text: str) -> None:
    """Replace a file in one step; its permissions stay."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch(mode=0o600)
        temporary.write_text(text, "utf-8")
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
