from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import academy.logging


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (
            "academy.logging.helpers",
            [
                "ACADEMY_EXTRA_PREFIX",
                "JSONHandler",
                "execute_and_log_traceback",
                "initialized_log_contexts",
                "log_context",
            ],
        ),
        ("academy.logging.configs.base", ["LogConfig"]),
        ("academy.logging.configs.console", ["ConsoleLogging"]),
        ("academy.logging.configs.file", ["FileLogging"]),
        ("academy.logging.configs.jsonpool", ["JSONPoolLogging"]),
        ("academy.logging.configs.multi", ["MultiLogging"]),
        ("academy.logging.recommended", ["init_logging", "recommended_logging"]),
        (
            "academy.logging.configs",
            [
                "ConsoleLogging",
                "FileLogging",
                "JSONPoolLogging",
                "LogConfig",
                "MultiLogging",
            ],
        ),
    ],
)
def test_public_paths(path: str, names: list[str]) -> None:
    module = importlib.import_module(path)
    for name in names:
        assert getattr(module, name) is getattr(academy.logging, name)
        assert name in academy.logging.__all__


def test_import_is_light() -> None:
    script = (
        "import sys, academy.logging; "
        "print({'redis', 'rich', 'psutil', 'msgspec', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
