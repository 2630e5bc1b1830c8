from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import re
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Generator, Mapping

import pytest

from academy.logging.context import (
    JSONHandler,
    LogFormatter,
    attach_handler,
    execute_and_log_traceback,
    initialized_log_contexts,
    log_context,
)
from tests.unit.root_logger import bare_root_logger

root = logging.getLogger()


@pytest.fixture(autouse=True)
def bare() -> Generator[None]:
    with bare_root_logger():
        yield
        assert not initialized_log_contexts


class Config:
    """Counts how often it is started and ended."""

    def __init__(self, name: str | None = None) -> None:
        self.uuid = name or str(uuid.uuid4())
        self.started = 0
        self.ended = 0

    def init_logging(self) -> Callable[[], None]:
        self.started += 1
        return self._end

    def _end(self) -> None:
        self.ended += 1


class ListHandler(logging.Handler):
    def __init__(self, level: int | str = logging.INFO) -> None:
        super().__init__(level)
        self.messages: list[str] = []
        self.closed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def close(self) -> None:
        self.closed = True
        super().close()


class TestLogContext:
    def test_none(self) -> None:
        with log_context(None):
            assert not initialized_log_contexts

    def test_once_while_contexts_overlap(self) -> None:
        config, copy = Config("same"), Config("same")
        with log_context(config):
            with log_context(copy), log_context(config):
                assert initialized_log_contexts["same"].count == 3
            assert (config.started, config.ended) == (1, 0)
        assert (config.started, config.ended) == (1, 1)
        assert (copy.started, copy.ended) == (0, 0)
        with log_context(config):
            assert config.started == 2

    def test_different_configurations(self) -> None:
        first, second = Config(), Config()
        with log_context(first), log_context(second):
            assert set(initialized_log_contexts) == {first.uuid, second.uuid}

    def test_ended_after_an_error(self) -> None:
        config = Config()
        with pytest.raises(KeyError), log_context(config):
            raise KeyError
        assert config.ended == 1

    def test_initializing_fails(self) -> None:
        class Broken(Config):
            def init_logging(self) -> Callable[[], None]:
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"), log_context(Broken()):
            pytest.fail("not reached")
        assert not initialized_log_contexts

    def test_threads_wait_for_the_first(self) -> None:
        """Whoever comes second must not log before the first has initialized."""
        entered, go_on, together = (
            threading.Event(),
            threading.Event(),
            threading.Barrier(4, timeout=10),
        )

        class Slow(Config):
            def init_logging(self) -> Callable[[], None]:
                entered.set()
                assert go_on.wait(10)
                return super().init_logging()

        config = Slow()
        seen: list[int] = []

        def use() -> None:
            with log_context(config):
                seen.append(config.started)
                together.wait()

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert entered.wait(10)
        assert not seen
        go_on.set()
        for thread in threads:
            thread.join()
        assert seen == [1, 1, 1, 1]
        assert config.ended == 1

    def test_fork_while_another_thread_initializes(self) -> None:
        script = """if True:
            import os, threading, time
            from academy.logging.context import log_context

            class Config:
                uuid = "a"
                def init_logging(self):
                    inside.set()
                    time.sleep(0.2)  # the lock is held while the fork begins
                    return lambda: None

            class Other(Config):
                uuid = "b"
                def init_logging(self):
                    return lambda: None

            def use():
                with log_context(Config()):
                    pass

            inside = threading.Event()
            thread = threading.Thread(target=use)
            thread.start()
            inside.wait()
            pid = os.fork()
            with log_context(Other()):
                pass
            if pid == 0:
                os._exit(7)
            thread.join()
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stdout == "7\n"


class TestAttachHandler:
    def test_level_follows_the_most_talkative_handler(self) -> None:
        detach_info = attach_handler(ListHandler("INFO"))
        assert root.level == logging.INFO
        detach_debug = attach_handler(ListHandler("DEBUG"))
        detach_error = attach_handler(ListHandler("ERROR"))
        assert root.level == logging.DEBUG
        detach_info()
        assert root.level == logging.DEBUG
        detach_debug()
        assert root.level == logging.WARNING
        detach_error()
        assert root.level == logging.WARNING

    def test_level_that_somebody_else_set_stands(self) -> None:
        detach = attach_handler(ListHandler("DEBUG"))
        root.setLevel(logging.CRITICAL)
        detach()
        assert root.level == logging.CRITICAL

    def test_handler_is_removed_and_closed(self) -> None:
        handler = ListHandler()
        detach = attach_handler(handler)
        logging.getLogger("some").info("one")
        detach()
        logging.getLogger("some").warning("two")
        assert handler.messages == ["one"]
        assert handler.closed

    def test_warnings_are_captured(self) -> None:
        before = warnings.showwarning
        handler = ListHandler()
        detach = attach_handler(handler)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("look out", stacklevel=1)
        detach()
        assert len(handler.messages) == 1
        assert "look out" in handler.messages[0]
        assert warnings.showwarning is before

    def test_warnings_captured_by_somebody_else_stay_captured(self) -> None:
        logging.captureWarnings(True)
        try:
            captured = warnings.showwarning
            attach_handler(ListHandler())()
            assert warnings.showwarning is captured
        finally:
            logging.captureWarnings(False)


def record(
    fields: Mapping[str, object] | None = None, level: int = logging.INFO
) -> logging.LogRecord:
    made = logging.LogRecord("some.name", level, "f.py", 3, "did %s", ("it",), None)
    vars(made).update(fields or {})
    return made


class TestLogFormatter:
    def test_plain(self) -> None:
        text = LogFormatter().format(record({"academy.tag": 5}))
        assert re.fullmatch(
            r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] INFO     \(some\.name\) did it",
            text,
        )

    @pytest.mark.parametrize("extra", [True, 2])
    def test_extra(self, extra: int) -> None:
        fields = {"academy.tag": 5, "academy.agent_id": "a b", "other": 6}
        text = LogFormatter(extra=extra).format(record(fields))
        assert re.search(r"\] \[tid=\d+ pid=\d+\] INFO ", text)
        assert text.endswith(" did it tag=5 agent_id=a b")

    def test_traceback_is_below_the_line(self) -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            failed = record({"exc_info": sys.exc_info(), "academy.tag": 5})
        lines = LogFormatter(extra=True).format(failed).splitlines()
        assert lines[0].endswith("did it tag=5")
        assert lines[1].startswith("Traceback")
        assert lines[-1] == "ValueError: broken"

    @pytest.mark.parametrize("level", [10, 20, 30, 40, 50, 35])
    def test_color(self, level: int) -> None:
        fields = {"academy.tag": 5}
        colored = LogFormatter(color=True, extra=True).format(record(fields, level))
        plain = LogFormatter(extra=True).format(record(fields, level))
        assert colored.count("\033[0m") == 5
        without = re.sub(r"\033\[\d+m", "", colored)
        assert without[26:] == plain[26:]  # the times differ

    def test_value_without_text(self) -> None:
        class Mute:
            def __str__(self) -> str:
                raise ZeroDivisionError

        text = LogFormatter(extra=True).format(record({"academy.x": Mute()}))
        assert text.endswith("x=<Mute without text: ZeroDivisionError>")


class TestJSONHandler:
    @pytest.fixture
    def path(self, tmp_path: pathlib.Path) -> pathlib.Path:
        return tmp_path / "some.jsonlog"

    def read(self, path: pathlib.Path) -> list[dict[str, str]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_records(self, path: pathlib.Path) -> None:
        handler = JSONHandler(path)
        handler.handle(record({"academy.tag": 5, "text": "ä\n\ud800"}))
        try:
            raise ValueError("broken")
        except ValueError:
            handler.handle(record({"exc_info": sys.exc_info()}, logging.ERROR))
        first, second = self.read(path)  # before it is closed
        handler.close()
        assert first["formatted"] == first["message"] == "did it"
        assert first["levelname"] == "INFO"
        assert first["levelno"] == "20"
        assert first["academy.tag"] == "5"
        assert first["text"] == "ä\n\ud800"
        assert first["os_thread"] == str(threading.get_native_id())
        assert second["formatted"].endswith("ValueError: broken")

    def test_appends(self, path: pathlib.Path) -> None:
        for _ in range(2):
            handler = JSONHandler(path)
            handler.handle(record())
            handler.close()
            handler.close()
        assert len(self.read(path)) == 2

    def test_record_after_close_is_dropped(
        self, path: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = JSONHandler(path)
        handler.close()
        handler.handle(record())
        assert not self.read(path)
        assert not capsys.readouterr().err

    def test_bad_record_is_reported(
        self, path: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = JSONHandler(path)
        handler.handle(record({"args": ("one", "too many")}))
        handler.handle(record())
        handler.close()
        assert "Logging error" in capsys.readouterr().err
        assert len(self.read(path)) == 1

    def test_missing_directory(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(FileNotFoundError):
            JSONHandler(tmp_path / "missing" / "some.jsonlog")


class TestExecuteAndLogTraceback:
    @pytest.fixture
    def handler(self) -> Generator[ListHandler]:
        handler = ListHandler("DEBUG")
        detach = attach_handler(handler)
        yield handler
        detach()

    async def test_result(self, handler: ListHandler) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(3)
        assert await execute_and_log_traceback(future) == 3
        assert not [m for m in handler.messages if "failed" in m]

    async def test_error(self, handler: ListHandler) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await execute_and_log_traceback(future)
        assert "A background operation failed." in handler.messages

    async def test_cancel(self, handler: ListHandler) -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(execute_and_log_traceback(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()
        assert not [m for m in handler.messages if "failed" in m]
