"""Waiting for the first of several events."""

from __future__ import annotations

import asyncio


async def wait_event_async(
    *events: asyncio.Event,
    timeout: float | None = None,
) -> asyncio.Event:
    """Wait until one of the events is set, and return that event.

    When several are set, the first in the order of the arguments is returned. No
    event is cleared. However the call ends, by an event, the timeout, or
    cancellation, it leaves no task behind.

    Args:
        *events: One or more events.
        timeout: Seconds to wait; None waits for ever.

    Raises:
        TimeoutError: If no event was set within `timeout` seconds.
        ValueError: If there are no events to wait for.
    """
    if not events:
        raise ValueError("wait_event_async() needs at least one event to wait for.")
    for event in events:
        if event.is_set():
            return event
    waiting = {asyncio.create_task(event.wait()): event for event in events}
    try:
        done, _ = await asyncio.wait(
            waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    for task, event in waiting.items():
        if task in done:
            task.result()  # raises when the event belongs to another loop
            return event
    raise TimeoutError(f"None of {len(events)} event(s) was set in {timeout} s.")
