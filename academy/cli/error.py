"""Errors of the command line, and the sentence and exit code for any other."""

from __future__ import annotations

import asyncio
import signal
import traceback

from academy.cli.url import redacted

FAILED = 1
WRONG = 2
INTERRUPTED = 128 + signal.SIGINT


class CommandError(Exception):
    """The command failed; its text is the sentence to print."""

    exit_code = FAILED


class UsageError(CommandError):
    """The command was given wrongly."""

    exit_code = WRONG


def explain(error: BaseException, url: str | None = None) -> tuple[str, int]:
    """Return the text to print for an error, without secrets, and the exit code.

    Args:
        error: What was raised.
        url: The URL in use; its password is taken out of the text.
    """
    error = cause_of(error)
    if isinstance(error, CommandError):
        text, code = str(error), error.exit_code
    elif isinstance(error, _wrong_usage()):
        text, code = str(error), WRONG
    else:
        text = str(error) if speaks_for_itself(error) else named(error)
        code = FAILED
    return redacted(text, url), code


def full_traceback(error: BaseException, url: str | None = None) -> str:
    """Return the traceback of an error, without secrets."""
    return redacted("".join(traceback.format_exception(error)), url)


def speaks_for_itself(error: BaseException) -> bool:
    """Tell whether the text of an error is a sentence that needs no class name."""
    ours = type(error).__module__.split(".")[0] in {"academy", "redis"}
    return ours and bool(str(error))


def named(error: BaseException) -> str:
    """Return the class of an error and its text; what the system said, as it is."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, (error.filename, error.strerror)))
    name, text = type(error).__name__, str(error).strip()
    return f"{name}: {text}" if text else f"{name}."


def cause_of(error: BaseException) -> BaseException:
    """Return an error, or of a group the first real one: the others follow from it."""
    while isinstance(error, BaseExceptionGroup):
        real = [
            e for e in error.exceptions if not isinstance(e, asyncio.CancelledError)
        ]
        error = real[0] if real else error.exceptions[0]
    return error


def _wrong_usage() -> tuple[type[BaseException], ...]:
    from academy.embedded import ServerNotFoundError

    return (ServerNotFoundError,)
