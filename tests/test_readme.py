"""What the documents say is true: examples run, links lead somewhere, commands exist.

A Python block below the line `<!-- no-run -->` is compiled, not run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main

from academy.cli.app import app
from academy.embedded import EmbeddedServer

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<skip><!-- no-run -->\s*)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)
SHELL = {"sh", "bash", "shell", "console"}
TIMEOUT = 60


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: pathlib.Path
    line: int
    language: str
    runs: bool
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: pathlib.Path, source: str) -> Iterator[Block]:
    for found in FENCE.finditer(source):
        line = source.count("\n", 0, found.start("text")) + 1
        yield Block(
            document, line, found["language"], found["skip"] is None, found["text"]
        )


BLOCKS = [b for document in DOCUMENTS for b in blocks(document, document.read_text())]
EXAMPLES = [block for block in BLOCKS if block.language in {"python", "py"}]


def prose(document: pathlib.Path) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def anchors(document: pathlib.Path) -> set[str]:
    """Return the names of the headings, as links write them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(document), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {word.replace(" ", "-") for word in words}


def commands(name: str, text: str) -> set[str]:
    """Return the first words that follow the name of a program."""
    return set(re.findall(rf"(?:^|[\s`;|&(]){name} +([a-z][\w-]*)", text, re.MULTILINE))


def shell_of(document: pathlib.Path) -> str:
    """Return what a document tells people to type, without comments."""
    text = "\n".join(
        block.text
        for block in BLOCKS
        if block.document == document and block.language in SHELL
    )
    spans = re.findall(r"`([^`\n]+)`", prose(document))
    return "\n".join([re.sub(r"(^|\s)#.*", "", text), *spans])


@pytest.mark.timeout(TIMEOUT + 30)
@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_examples_run(
    block: Block, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    compile(block.text, str(block), "exec")
    if not block.runs:
        return
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("ACADEMY_REDIS_URL", None)
    if "ACADEMY_REDIS_URL" in block.text or "from_url()" in block.text:
        # A server of its own, so that nobody else is in its namespace.
        server: EmbeddedServer = request.getfixturevalue("fresh_server")
        environment["ACADEMY_REDIS_URL"] = server.url
    program = tmp_path / "example.py"
    program.write_text(block.text)
    returncode, output = run([sys.executable, program.name], tmp_path, environment)
    assert returncode == 0, f"{block} ended with exit code {returncode}:\n{output}"
    assert "Traceback" not in output, f"{block} printed:\n{output}"


def run(
    command: list[str], directory: pathlib.Path, environment: dict[str, str]
) -> tuple[int, str]:
    """Run a program in a directory; end it, and what it started, after a minute."""
    with subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: pathlib.Path) -> None:
    dead = []
    for target in re.findall(r"\]\(<?([^)\s>]+)", prose(document)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", path):
            continue
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in anchors(file)
        ):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: pathlib.Path) -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M)
    assert commands("make", shell_of(document)) <= set(targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: pathlib.Path) -> None:
    group = typer.main.get_command(app)
    known = set(group.commands)  # type: ignore[attr-defined]
    assert {"demo", "ps"} <= known
    assert commands("academy", shell_of(document)) <= known


def test_the_readme_has_examples_and_commands() -> None:
    """Guards the patterns above: they find what is there."""
    readme = shell_of(ROOT / "README.md")
    assert any(block.document.name == "README.md" for block in EXAMPLES)
    assert {"demo", "test", "check"} <= commands("make", readme)
    assert {"ps", "call", "server"} <= commands("academy", readme)


def test_what_counts_as_a_block() -> None:
    source = (
        "# A\n```python\nx = 1\n```\ntext\n<!-- no-run -->\n\n```python\ny\n```\n"
        "```sh\nmake it  # make fun\nacademy ps | academy call\n```\n"
    )
    found = list(blocks(ROOT / "README.md", source))
    assert [(b.language, b.line, b.runs, b.text) for b in found[:2]] == [
        ("python", 3, True, "x = 1\n"),
        ("python", 9, False, "y\n"),
    ]
    assert commands("academy", found[2].text) == {"ps", "call"}
