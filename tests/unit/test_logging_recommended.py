from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Generator

import pytest

from academy.logging import recommended
from academy.logging.config import ConsoleLogging, FileLogging, MultiLogging
from academy.logging.recommended import init_logging, recommended_logging
from tests.unit.root_logger import bare_root_logger

root = logging.getLogger()
logger = logging.getLogger("some.name")


@pytest.fixture(autouse=True)
def bare() -> Generator[None]:
    with bare_root_logger():
        yield
        for handler in root.handlers[:]:
            if isinstance(handler, logging.NullHandler):
                root.removeHandler(handler)
        recommended._started.close()


class TestRecommendedLogging:
    def test_console(self) -> None:
        config = recommended_logging("DEBUG", color=False, extra=True)
        assert isinstance(config, ConsoleLogging)
        assert (config.level, config.color, config.extra) == ("DEBUG", False, True)

    @pytest.mark.parametrize(
        ("logfile_level", "expected"),
        [(None, logging.INFO), ("DEBUG", "DEBUG"), (0, 0)],
    )
    def test_file(self, logfile_level: int | str | None, expected: int | str) -> None:
        config = recommended_logging(logfile="a.log", logfile_level=logfile_level)
        assert isinstance(config, MultiLogging)
        console, file = config.configs
        assert isinstance(console, ConsoleLogging)
        assert isinstance(file, FileLogging)
        assert console.level == logging.INFO
        assert (file.logfile, file.level) == ("a.log", expected)


class TestInitLogging:
    def test_console(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert init_logging() is root
        logger.info("one")
        logger.debug("two")
        assert capsys.readouterr().out.endswith(") one\n")

    def test_nothing_where_there_are_handlers(self) -> None:
        handler = logging.NullHandler()
        root.addHandler(handler)
        assert init_logging("DEBUG") is root
        assert root.handlers == [handler]
        assert root.level == logging.WARNING

    def test_force(self, capsys: pytest.CaptureFixture[str]) -> None:
        root.addHandler(logging.NullHandler())
        init_logging("DEBUG", force=True)
        init_logging("ERROR", force=True)
        logger.error("one")
        assert len(root.handlers) == 1
        assert root.level == logging.WARNING
        assert capsys.readouterr().out.count("one") == 1

    def test_bad_level_changes_nothing(self) -> None:
        init_logging()
        handlers = root.handlers[:]
        with pytest.raises(ValueError, match="no log level 'LOUD'"):
            init_logging("LOUD", force=True)
        assert root.handlers == handlers

    def test_files(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "logs" / "some.log"
        init_logging(logfile=path, logfile_level="DEBUG", extra=2)
        logger.debug("one", extra={"academy.tag": 5})
        assert path.read_text().endswith(") one tag=5\n")
        [entry] = path.with_suffix(".jsonlog").read_text().splitlines()
        assert json.loads(entry)["academy.tag"] == "5"

    def test_json_file_has_the_level_of_the_file(self, tmp_path: pathlib.Path) -> None:
        init_logging("WARNING", logfile=tmp_path / "some.log", extra=2)
        logger.info("one")
        assert not (tmp_path / "some.jsonlog").read_text()

    def test_no_json_file_unless_asked_for(self, tmp_path: pathlib.Path) -> None:
        init_logging(logfile=tmp_path / "some.log", extra=True)
        assert [f.name for f in tmp_path.iterdir()] == ["some.log"]
