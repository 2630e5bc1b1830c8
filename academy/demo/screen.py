"""What people see of the demo: a live screen, or plain lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_MOST_EVENTS = 9
_FEWEST_EVENTS = 3
_FRAME_LINES = 6  # borders, blank lines, the head of a table, the reference
_BAR_WIDTH = 32
_STATE_STYLES = {
    "active": "green",
    "killed": "bold red",
    "starting": "yellow",
    "training": "cyan",
}
_PATH_STYLES = {"relay": "yellow", "tcp": "green", "uds": "green"}


@dataclass(frozen=True)
class AgentRow:
    """An agent as the screen shows it.

    Attributes:
        name: Its name.
        place: Host and process, empty while it does not run.
        state: What it does.
        path: Which way messages go to it; empty while that is not known.
        answered: How many calls it has answered.
        failed: How many calls to it have failed.
        queued: How many messages wait for it in the exchange.
    """

    name: str
    place: str
    state: str
    path: str
    answered: int
    failed: int
    queued: int


@dataclass(frozen=True)
class Picture:
    """All that the screen shows besides events.

    Attributes:
        agents: The agents, in the order to show them.
        accuracies: Accuracy after each round that is over.
        rounds: How many rounds there will be.
        reference: Accuracy of the reference, once it is known.
    """

    agents: Sequence[AgentRow]
    accuracies: Sequence[float]
    rounds: int
    reference: float | None = None


class View(Protocol):
    """Shows the demo while it runs; used with `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None: ...

    def say(self, text: str) -> None:
        """Tell that something happened."""
        ...

    def show(self, picture: Picture) -> None:
        """Show how things are now."""
        ...


class Lines:
    """Prints each event as a line, with the seconds since the start.

    Args:
        stream: Where to print.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.flush()

    def say(self, text: str) -> None:
        """Print an event."""
        print(_stamped(self._start, text), file=self._stream, flush=True)

    def show(self, picture: Picture) -> None:
        """Print nothing: events tell enough."""


class Screen:
    """A table of the agents, the accuracy of each round, and the latest events.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._start = time.monotonic()
        self._events: deque[str] = deque(maxlen=_MOST_EVENTS)
        self._picture = Picture((), (), 0)
        self._live = Live(console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Add an event."""
        self._events.append(_stamped(self._start, text))
        self._draw()

    def show(self, picture: Picture) -> None:
        """Show how things are now."""
        self._picture = picture
        self._draw()

    def _latest(self) -> list[str]:
        """Return as many events as there is room for."""
        shown = len(self._picture.agents) + self._picture.rounds + _FRAME_LINES
        room = max(_FEWEST_EVENTS, self._live.console.height - shown)
        return list(self._events)[-room:]

    def _draw(self) -> None:
        self._live.update(
            Panel(
                Group(
                    agents_table(self._picture.agents),
                    Text(),
                    accuracy_chart(self._picture),
                    Text(),
                    *(
                        Text(event, no_wrap=True, overflow="ellipsis")
                        for event in self._latest()
                    ),
                ),
                title="federated learning",
            )
        )


def agents_table(agents: Sequence[AgentRow]) -> Table:
    """Return a table with one line per agent."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("agent", "host:pid", "state", "path"):
        table.add_column(title, no_wrap=True)
    for title in ("calls", "failed", "queue"):
        table.add_column(title, justify="right")
    for agent in agents:
        table.add_row(
            agent.name,
            agent.place or "-",
            Text(agent.state, _STATE_STYLES.get(agent.state, "")),
            Text(agent.path or "-", _PATH_STYLES.get(agent.path, "")),
            str(agent.answered),
            Text(str(agent.failed), "bold red" if agent.failed else ""),
            str(agent.queued),
        )
    return table


def accuracy_chart(picture: Picture) -> Table:
    """Return one bar per round, and one for the reference."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for number in range(1, picture.rounds + 1):
        done = number <= len(picture.accuracies)
        value = picture.accuracies[number - 1] if done else None
        table.add_row(f"round {number}", *_bar(value, "cyan"))
    table.add_row("all data in one place", *_bar(picture.reference, "green"))
    return table


def _bar(value: float | None, style: str) -> tuple[Text, Text]:
    filled = round(_BAR_WIDTH * (value or 0.0))
    bar = Text("█" * filled, style) + Text("·" * (_BAR_WIDTH - filled), "dim")
    return bar, Text("" if value is None else f"{value:.1%}")


def _stamped(start: float, text: str) -> str:
    return f"{time.monotonic() - start:5.1f} s  {text}"
