"""Worker processes: one call each, seen from the process that starts them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import academy
from academy.worker import FRAME

TERMINATE_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a worker process."""

EXIT_GRACE = 5.0
"""Seconds that a worker process has to end after it has sent its outcome."""

_TICK = 1.0

# Popen waits until a pipe is closed everywhere, so a process forked by another thread
# at that moment, which inherits it, would keep Popen waiting.
_starting = threading.Lock()
os.register_at_fork(
    before=_starting.acquire,
    after_in_parent=_starting.release,
    after_in_child=_starting.release,
)


class WorkerProcessError(RuntimeError):
    """A worker process ended before it returned.

    Attributes:
        pid: Its process identifier.
        exitcode: Its exit code, or minus the number of the signal that killed it.
    """

    def __init__(self, pid: int, exitcode: int) -> None:
        how = f"ended with exit code {exitcode}"
        if exitcode < 0:
            how = f"was killed by {signal.Signals(-exitcode).name}"
        elif exitcode == 128 + signal.SIGTERM:
            how = "was told to end, by SIGTERM,"
        super().__init__(
            f"Worker process {pid} {how} before it returned. If nobody did that on "
            "purpose, look at its standard error and at the memory of the machine."
        )
        self.pid = pid
        self.exitcode = exitcode

    def __reduce__(self) -> Any:
        return type(self), (self.pid, self.exitcode)


@dataclass(frozen=True)
class Interpreter:
    """How to start a worker process.

    Attributes:
        python: The interpreter.
        env: Environment variables in addition to those of this process.
    """

    python: str
    env: dict[str, str] = field(repr=False)

    def start(self, outcome_fd: int) -> subprocess.Popen[bytes]:
        """Start a worker that takes a call and writes its outcome to a descriptor."""
        with _starting:
            return subprocess.Popen(
                [self.python, "-P", "-m", "academy.worker", str(outcome_fd)],
                stdin=subprocess.PIPE,
                pass_fds=[outcome_fd],
                env=self._environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for this process
            )

    def import_paths(self) -> list[str]:
        """Return where a worker finds modules: as here, if it is the same Python."""
        if self.python != sys.executable:
            return []
        return [path or str(pathlib.Path.cwd()) for path in sys.path]

    def _environment(self) -> dict[str, str]:
        """Return all variables; the same interpreter must find the same package."""
        env = {**os.environ, **self.env}
        root = str(pathlib.Path(academy.__file__).parent.parent)
        installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        if self.python == sys.executable and root not in installed:
            paths = [root, env.get("PYTHONPATH", "")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return env


class WorkerProcess:
    """One call in a process of its own, and the thread that waits for it.

    Args:
        interpreter: What to start.
        call: The pickled call.
        on_end: Called from the thread when the process is gone.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        call: bytes,
        on_end: Callable[[WorkerProcess], None],
    ) -> None:
        self._interpreter = interpreter
        self._call = call
        self._on_end = on_end
        self._lock = threading.Lock()
        self._stopping = False
        self._kill_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.future = _ProcessFuture(self)

    @property
    def pid(self) -> int | None:
        """Identifier of the process, once it has been started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Run the call from a thread that does not keep this process alive."""
        name = f"worker-process-{id(self):x}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Ask the process to end; some time later it is killed."""
        with self._lock:
            self._stopping = True
            if self._process is not None and self._kill_at is None:
                self._kill_at = time.monotonic() + TERMINATE_GRACE
                self._process.terminate()

    def _run(self) -> None:
        reader, writer = os.pipe()
        try:
            try:
                process = self._start_process(writer)
            finally:
                os.close(writer)
            if process is not None:
                self._converse(process, reader)
        except Exception as e:
            self._settle(self.future.set_exception, e)
        finally:
            os.close(reader)
            if self.future.cancelled():
                self.future.set_running_or_notify_cancel()
            self._on_end(self)

    def _start_process(self, writer: int) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if not self._stopping:
                self._process = self._interpreter.start(writer)
            return self._process

    def _converse(self, process: subprocess.Popen[bytes], reader: int) -> None:
        """Send the call, receive the outcome, and see the process end."""
        assert process.stdin is not None
        message = pickle.dumps((self._interpreter.import_paths(), self._call))
        self._call = b""
        try:
            # A worker that is gone shows when the outcome is read.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(FRAME.pack(len(message)) + message)
                process.stdin.flush()
            outcome = self._receive(process, reader)
            if outcome is not None:
                self._set_outcome(outcome)
        finally:
            _reap(process)
        if outcome is None:
            raise WorkerProcessError(process.pid, process.returncode)

    def _receive(self, process: subprocess.Popen[bytes], reader: int) -> bytes | None:
        """Return the outcome, or None if the process ends without one."""
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        data = bytearray()
        while True:
            # A child of the worker may keep the pipe open, so look at both.
            ended = process.poll() is not None
            if poll.poll(_TICK * 1000):
                piece = os.read(reader, 1 << 20)
                data += piece
                if len(data) >= FRAME.size:
                    (length,) = FRAME.unpack_from(data)
                    if len(data) == FRAME.size + length:
                        return bytes(data[FRAME.size :])
                ended = not piece
            if ended:
                return None
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                process.kill()

    def _set_outcome(self, outcome: bytes) -> None:
        success, value = pickle.loads(outcome)
        if success:
            self._settle(self.future.set_result, value)
        else:
            self._settle(self.future.set_exception, value.unwrap())

    def _settle(self, settle: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            settle(value)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Let a worker process end, and end it if it does not."""
    try:
        process.wait(EXIT_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


class _ProcessFuture(Future[Any]):
    """A future whose call can be cancelled at any time.

    To that end it stays in the state in which `Future.cancel` succeeds.
    """

    def __init__(self, worker: WorkerProcess) -> None:
        super().__init__()
        self._worker = worker

    def cancel(self) -> bool:
        """Cancel the call, and end its process if it has one already."""
        if not super().cancel():
            return False
        self._worker.stop()
        return True

    def running(self) -> bool:
        """Return whether the call has a process and no outcome yet."""
        return self._worker.pid is not None and not self.done()
