from __future__ import annotations

import io
import json
import logging
import os
import pathlib
import pickle
import sys
from collections.abc import Callable, Generator

import pytest

from academy.logging.config import (
    ConsoleLogging,
    FileLogging,
    JSONPoolLogging,
    LogConfig,
    MultiLogging,
)
from academy.logging.context import initialized_log_contexts, log_context
from tests.unit.root_logger import bare_root_logger

root = logging.getLogger()
logger = logging.getLogger("some.name")


@pytest.fixture(autouse=True)
def bare() -> Generator[None]:
    with bare_root_logger():
        yield
        assert not initialized_log_contexts


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(LogConfig):
    def init_logging(self) -> Callable[[], None]:
        raise OSError("disk full")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (ConsoleLogging(), "ConsoleLogging(level=20, color=True, extra=False)"),
        (
            FileLogging(logfile=pathlib.Path("a.log"), level="DEBUG", extra=1),
            "FileLogging(logfile='a.log', level='DEBUG', extra=1)",
        ),
        (MultiLogging([]), "MultiLogging([])"),
    ],
)
def test_value(config: LogConfig, text: str) -> None:
    copy = pickle.loads(pickle.dumps(config))
    assert copy.uuid == config.uuid
    assert vars(copy) == vars(config)
    assert repr(copy) == repr(config) == text


def test_json_pool_value() -> None:
    config = JSONPoolLogging()
    copy = pickle.loads(pickle.dumps(config))
    assert copy.uuid == config.uuid
    assert config.uuid in repr(copy)


def test_each_configuration_has_its_own_identity() -> None:
    assert ConsoleLogging().uuid != ConsoleLogging().uuid


def test_log_config_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        LogConfig()  # type: ignore[abstract]


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match=r"no log level 'LOUD'\. .* WARNING"):
        ConsoleLogging(level="LOUD")
    with pytest.raises(ValueError, match="no log level 'LOUD'"):
        FileLogging(logfile="x", level="LOUD")


class TestConsole:
    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        with log_context(ConsoleLogging(level="INFO")):
            logger.info("one", extra={"academy.tag": 5})
            logger.debug("two")
        logger.warning("three")
        [line] = capsys.readouterr().out.splitlines()
        assert line.endswith("INFO     (some.name) one")

    def test_extra(self, capsys: pytest.CaptureFixture[str]) -> None:
        with log_context(ConsoleLogging(extra=True)):
            logger.info("one", extra={"academy.tag": 5})
        assert capsys.readouterr().out.endswith(") one tag=5\n")

    @pytest.mark.parametrize(
        ("color", "terminal", "no_color", "colored"),
        [
            (True, True, "", True),
            (False, True, "", False),
            (True, False, "", False),
            (True, True, "1", False),
        ],
    )
    def test_color(
        self,
        monkeypatch: pytest.MonkeyPatch,
        color: bool,
        terminal: bool,
        no_color: str,
        colored: bool,
    ) -> None:
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("NO_COLOR", no_color)
        with log_context(ConsoleLogging(color=color)):
            logger.info("one")
        assert ("\033[" in stream.getvalue()) is colored


class TestFile:
    def test_appends_and_creates_directories(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "one" / "two" / "some.log"
        for config in (FileLogging(logfile=path), FileLogging(logfile=str(path))):
            with log_context(config):
                logger.info("ä", extra={"academy.tag": 5})
                logger.debug("two")
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line.split(") ")[1] for line in lines] == ["ä", "ä"]

    def test_extra(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "some.log"
        with log_context(FileLogging(logfile=path, level=logging.DEBUG, extra=2)):
            logger.debug("one", extra={"academy.tag": 5})
        assert path.read_text().endswith(") one tag=5\n")

    def test_home_directory(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with log_context(FileLogging(logfile="~/some.log")):
            logger.info("one")
        assert (tmp_path / "some.log").exists()

    def test_no_file(self, tmp_path: pathlib.Path) -> None:
        with (
            pytest.raises(IsADirectoryError),
            log_context(FileLogging(logfile=tmp_path)),
        ):
            pytest.fail("not reached")


class TestJSONPool:
    def test_one_file_per_initialization(self, home: pathlib.Path) -> None:
        config = JSONPoolLogging()
        copy = pickle.loads(pickle.dumps(config))
        with log_context(config), log_context(copy):
            logger.debug("one %d", 1, extra={"academy.tag": 5})
        with log_context(copy):
            pass
        files = sorted((home / "logs" / config.uuid).iterdir())
        assert len(files) == 2
        host, pid = os.uname().nodename, os.getpid()
        assert all(f.name.startswith(f"{host}-{pid}-") for f in files)
        assert {f.suffix for f in files} == {".jsonlog"}
        entries = [json.loads(x) for f in files for x in f.read_text().splitlines()]
        assert [e["message"] for e in entries if e["name"] == "some.name"] == ["one 1"]
        assert [e["academy.tag"] for e in entries if "academy.tag" in e] == ["5"]

    def test_says_where(self, home: pathlib.Path) -> None:
        config = JSONPoolLogging()
        with log_context(config):
            pass
        [file] = (home / "logs" / config.uuid).iterdir()
        [entry] = [json.loads(line) for line in file.read_text().splitlines()]
        assert entry["message"] == f"Logging to {file}."


class TestMulti:
    def test_all_members(
        self, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "some.log"
        config = MultiLogging([ConsoleLogging(), FileLogging(logfile=path)])
        with log_context(pickle.loads(pickle.dumps(config))), log_context(config):
            logger.info("one")
        assert not root.handlers
        assert capsys.readouterr().out == path.read_text()
        assert path.read_text().count("one") == 1

    def test_member_in_force_already(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "some.log"
        file = FileLogging(logfile=path)
        with log_context(MultiLogging([file, file])):
            with log_context(file):
                logger.info("one")
            logger.info("two")
        assert [x.split(") ")[1] for x in path.read_text().splitlines()] == [
            "one",
            "two",
        ]

    def test_failing_member(self, tmp_path: pathlib.Path) -> None:
        file = FileLogging(logfile=tmp_path / "some.log")
        with (
            pytest.raises(OSError, match="disk full"),
            log_context(MultiLogging([file, Broken()])),
        ):
            pytest.fail("not reached")
        assert not root.handlers
        assert root.level == logging.WARNING
