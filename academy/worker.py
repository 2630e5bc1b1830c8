"""Running agents where an executor put them.

`run_capsule` is the one function that is submitted to executors. Run as a module,
``python -m academy.worker FD``, this is the worker process of a
[`SubprocessExecutor`][academy.executor.SubprocessExecutor].
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

from academy.capsule import RunSpec, WorkerFailure, unseal
from academy.debug import set_academy_debug
from academy.event_loop import LoopFactory, loop_factory
from academy.logging.context import log_context
from academy.runtime import Runtime

logger = logging.getLogger(__name__)

FRAME = struct.Struct("!Q")
"""Length of what follows, on the pipes between a parent and its worker process."""

EXIT_ORPHANED = 70
"""Exit code of a worker process whose parent is gone."""

_ORPHAN_GRACE = 3.0
_PARENT_POLL_MS = 1000


_NO_LOGGING = contextlib.nullcontext()

_running: dict[Runtime[Any], asyncio.AbstractEventLoop] = {}
"""The agents that run in this process, with their event loops."""


async def run_agent(spec: RunSpec, /, **submit_kwargs: Any) -> None:
    """Run an agent in the current event loop until it has shut down.

    Args:
        spec: The agent and its arguments, as they are.
        submit_kwargs: Options for the executor that it handed on; not used.

    Raises:
        Exception: The agent could not be made or started, or it failed.
    """
    logging_ = _NO_LOGGING if spec.log_config is None else log_context(spec.log_config)
    with logging_:
        runtime = Runtime(
            spec.create_agent(),
            exchange_factory=spec.exchange_factory,
            registration=spec.registration,
            config=spec.config,
        )
        _running[runtime] = asyncio.get_running_loop()
        try:
            await runtime.run_until_complete()
        finally:
            del _running[runtime]


def run_live(spec: RunSpec, /, **submit_kwargs: Any) -> None:
    """Run an agent in an event loop of its own, in a thread of this process.

    Args:
        spec: The agent and its arguments, as they are.
        submit_kwargs: Options for the executor that it handed on; not used.

    Raises:
        Exception: As `run_agent` does.
    """
    contextvars.Context().run(_run, spec, asyncio.new_event_loop)


def run_capsule(capsule: bytes, /, **submit_kwargs: Any) -> None:
    """Run the agent in a capsule until it has shut down.

    It uses an event loop of its own (uvloop's where that is installed and the
    environment variable ``ACADEMY_UVLOOP`` is not ``0``), handles no signals, and so
    may run in any thread of a worker.

    Args:
        capsule: What `academy.capsule.seal` returned.
        submit_kwargs: Options for the executor that it handed on; not used.

    Raises:
        WorkerFailure: It failed. Call `unwrap` for the exception itself.
    """
    contextvars.Context().run(_run_capsule, capsule)


def _run_capsule(capsule: bytes) -> None:
    try:
        spec = unseal(capsule)
        if spec.debug:
            set_academy_debug(True)
        _spare_collector()
        _run(spec, loop_factory())
    except Exception as e:
        logger.exception("An agent failed on its worker.")
        raise WorkerFailure.wrap(e) from e


def _spare_collector() -> None:
    """Keep the garbage collector from what was loaded: it stays to the end anyway.

    To look at all modules again takes it tens of milliseconds, while agents wait. Only
    in a process that is ours: where a worker is a thread, objects are the program's.
    """
    if threading.current_thread() is threading.main_thread():
        _freeze_once()


@functools.cache
def _freeze_once() -> None:
    # Not by the count of what is frozen: CPython 3.12 begins with some hundreds.
    gc.freeze()


def _run(spec: RunSpec, new_loop: LoopFactory) -> None:
    # With a factory the runner leaves the thread's current event loop alone, and its
    # own run() is avoided because that handles SIGINT.
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        task = loop.create_task(run_agent(spec))
        try:
            loop.run_until_complete(task)
        except BaseException:
            # After a Ctrl-C: let the agent end while the tasks of its exchange, which
            # the runner cancels next, still work.
            if task.cancel():
                loop.run_until_complete(asyncio.wait([task]))
            raise


def main() -> int:
    """Take a function call from standard input, run it, and send back its outcome.

    The descriptor to send it to is the only argument of the command line. The process
    ends by itself when its parent is gone, for the parent keeps standard input open.
    """
    outcome_fd = int(sys.argv[1])
    os.set_inheritable(outcome_fd, False)
    ending = _Ending()
    signal.signal(signal.SIGTERM, ending.on_signal)
    parent = _take_stdin()
    call = _read_call(parent)
    threading.Thread(
        target=_end_with_parent, args=(parent, ending), daemon=True
    ).start()
    outcome = _outcome_of(call)
    if ending.exitcode is not None:
        return ending.exitcode
    with os.fdopen(outcome_fd, "wb") as stream:
        stream.write(FRAME.pack(len(outcome)) + outcome)
    return 0


class _Ending:
    """Whether a worker process was told to end, and how it goes about it."""

    def __init__(self) -> None:
        self.exitcode: int | None = None
        self.orphaned = False

    def on_signal(self, number: int, frame: object) -> None:
        """Shut the agents down, or, if there is none, leave the function that runs.

        Whoever started the worker decides what becomes of the mailboxes; when nobody
        is left to do that, the agents' configurations do.
        """
        self.exitcode = EXIT_ORPHANED if self.orphaned else 128 + number
        if not _running:
            sys.exit(self.exitcode)
        terminate = None if self.orphaned else False
        for runtime, loop in list(_running.items()):
            end = functools.partial(
                runtime.signal_shutdown, expected=False, terminate=terminate
            )
            loop.call_soon_threadsafe(end)


def _take_stdin() -> BinaryIO:
    """Move standard input out of the reach of what runs here."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return os.fdopen(parent, "rb", buffering=0)


def _read_call(parent: BinaryIO) -> bytes:
    (length,) = FRAME.unpack(_read_exactly(parent, FRAME.size))
    paths, call = pickle.loads(_read_exactly(parent, length))
    if paths:
        sys.path[:] = paths
    payload: bytes = call
    return payload


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise EOFError("the parent process ended before it had sent the call")
        data += piece
    return bytes(data)


def _end_with_parent(parent: BinaryIO, ending: _Ending) -> None:
    """Wait until the parent is gone; then end, in good order if that is possible."""
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    started_by = os.getppid()
    # The pipe does not close while a fork of the parent has it, so look at both.
    while not poll.poll(_PARENT_POLL_MS) and os.getppid() == started_by:
        continue
    ending.orphaned = True
    # In this thread, a signal would not wake the one that handles it.
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE)
    os._exit(EXIT_ORPHANED)


def _outcome_of(call: bytes) -> bytes:
    """Return the pickled outcome of a call: whether it succeeded, and with what."""
    from academy import by_value

    try:
        function, args, kwargs = pickle.loads(call)
        outcome = by_value.dumps((True, function(*args, **kwargs)))
    except WorkerFailure as e:
        outcome = by_value.dumps((False, e))
    except Exception as e:
        outcome = by_value.dumps((False, WorkerFailure.wrap(e)))
    return outcome


if __name__ == "__main__":
    # This module as the one that capsules refer to, of which there is one only.
    from academy.worker import main

    sys.exit(main())
