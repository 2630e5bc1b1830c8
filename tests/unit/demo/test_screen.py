from __future__ import annotations

import io

from rich.console import Console

from academy.demo.screen import AgentRow, Lines, Picture, Screen

AGENTS = [
    AgentRow("coordinator", "host:1", "active", "", 7, 0, 0),
    AgentRow("site-0", "", "starting", "relay", 3, 1, 2),
]


def shown(screen_height: int, events: int) -> list[str]:
    """Return the lines of the last picture on a terminal."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=True,
        color_system=None,
        width=90,
        height=screen_height,
    )
    with Screen(console) as screen:
        screen.show(Picture(AGENTS, (0.5,), 3))
        for number in range(events):
            screen.say(f"event {number} {'long ' * 20}")
        screen.show(Picture(AGENTS, (0.5, 0.925), 3, 0.95))
    text = stream.getvalue()
    return text[text.rindex("federated learning") :].splitlines()


def test_screen_shows_agents_rounds_and_events() -> None:
    lines = shown(screen_height=40, events=2)
    fields = [line.strip("│ ").split() for line in lines]
    assert ["coordinator", "host:1", "active", "-", "7", "0", "0"] in fields
    assert ["site-0", "-", "starting", "relay", "3", "1", "2"] in fields
    percents = [line.split()[-1] for line in fields_with_bars(lines)]
    assert percents == ["50.0%", "92.5%", "95.0%"]
    assert sum("event" in line for line in lines) == 2


def fields_with_bars(lines: list[str]) -> list[str]:
    return [line.strip("│ ") for line in lines if "%" in line]


def test_bar_is_as_long_as_the_accuracy() -> None:
    lines = shown(screen_height=40, events=0)
    first = next(line for line in lines if "round 1" in line)
    third = next(line for line in lines if "round 3" in line)
    assert first.count("█") == first.count("·") == 16
    assert third.count("█") == 0


def test_only_the_latest_events_are_shown() -> None:
    lines = shown(screen_height=40, events=30)
    numbers = [line.split("event ")[1].split()[0] for line in lines if "event" in line]
    assert numbers == [str(n) for n in range(21, 30)]


def test_screen_fits_a_small_terminal() -> None:
    lines = shown(screen_height=16, events=30)
    numbers = [line.split("event ")[1].split()[0] for line in lines if "event" in line]
    assert numbers == ["25", "26", "27", "28", "29"]
    frame = [line for line in lines if "│" in line or "╰" in line]
    assert len(frame) + 1 <= 16


def test_lines() -> None:
    stream = io.StringIO()
    with Lines(stream) as lines:
        lines.say("It begins.")
        lines.show(Picture(AGENTS, (), 3))
    assert stream.getvalue() == "  0.0 s  It begins.\n"
