from __future__ import annotations

import subprocess
import sys

import pytest

from academy import __version__
from academy.cli import main

COMMANDS = tuple(
    "demo server ps links ping call describe rotate-secret".split()  # noqa: SIM905
)


@pytest.fixture(autouse=True)
def no_server_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACADEMY_REDIS_URL", raising=False)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"academy {__version__}\n"


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pss"], "No such command 'pss'. "),
        (["ps", "--frob"], "No such option: --frob. See `academy ps --help`."),
        (["ping"], "Missing argument 'AGENT'. See `academy ping --help`."),
        (["call", "x"], "Missing argument 'ACTION'. "),
        (["call", "x", "f", "--frob"], "No such option: --frob. "),
        (["call", "x", "f", "a=1", "a=2"], "The argument a is given twice."),
        (["ping", "x", "-c", "0"], "Invalid value for '--count'"),
        (["ping", "x", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["server", "--port", "65536"], "Invalid value for '--port'"),
        (["demo", "--sites", "1"], "Invalid value for '--sites'"),
        (["demo", "--seed", "-1"], "Invalid value for '--seed'"),
        (["ps"], "No server is given: set ACADEMY_REDIS_URL or use --url. `academy s"),
        (["links"], "No server is given"),
        (["ping", "x"], "No server is given"),
        (["call", "x", "f"], "No server is given"),
        (["describe", "x"], "No server is given"),
        (["ps", "--url", "http://:secret@host"], "Not a Redis URL"),
        (["ps", "--url", "redis://:secret@host:port"], "Not a Redis URL"),
        (["ps", "--url", "redis://host", "-n", "a b{"], "Not a namespace"),
        (["server", "--binary", "/nowhere/server"], "No Valkey or Redis server"),
    ],
)
def test_usage_errors_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"academy: {sentence}")
    assert captured.err.count("\n") == 1
    assert "secret" not in captured.err
    assert not captured.out


def test_debug_adds_a_traceback() -> None:
    command = [sys.executable, "-m", "academy", "ps", "--debug", "--url"]
    ended = subprocess.run(
        [*command, "ftp://:secret@host"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "Traceback" in ended.stderr
    assert "secret" not in ended.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from academy.cli import main; main(['--help']); "
        "heavy = {'redis', 'rich', 'numpy', 'sklearn', 'psutil', 'cloudpickle'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr == "[]\n"


def test_interrupted_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("academy.cli.app.invoke", interrupt)
    assert main([]) == 130
