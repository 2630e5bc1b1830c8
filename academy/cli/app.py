"""The commands with their options. What they do is imported when one is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from academy import __version__
from academy.cli.error import INTERRUPTED, WRONG
from academy.cli.execute import execute
from academy.cli.output import complain
from academy.cli.url import VARIABLE

app = typer.Typer(
    name="academy",
    help="Run, look at, and call agents.",
    epilog=f"Commands that look at agents need a server: {VARIABLE} or --url.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

AgentArgument = Annotated[
    str,
    typer.Argument(
        metavar="AGENT", help="Name, or the first 4 or more characters of the id."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar=VARIABLE,
        help="URL of the server.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", metavar="NS", help="Namespace on the server."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print logs and tracebacks.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="S", min=0.001, help="Seconds to wait."),
]


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code."""
    command = typer.main.get_command(app)
    arguments = None if argv is None else list(argv)
    try:
        result: Any = command.main(
            arguments, prog_name="academy", standalone_mode=False
        )
    except typer.Abort:
        return INTERRUPTED
    except Exception as e:
        # The error classes of the option parser have no public home in all releases.
        format_message = getattr(e, "format_message", None)
        if format_message is None:
            raise
        path = getattr(getattr(e, "ctx", None), "command_path", "academy")
        complain(f"{format_message().rstrip('.')}. See `{path} --help`.")
        return WRONG
    return result if isinstance(result, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"academy {__version__}")
        raise typer.Exit


@app.callback()
def no_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Run, look at, and call agents."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(WRONG)


@app.command()
def demo(
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds", min=1, max=100, help="Rounds of training; more sites need more."
        ),
    ] = 6,
    sites: Annotated[
        int, typer.Option("--sites", min=2, max=16, help="Sites that have data.")
    ] = 4,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Determines who has which data.")
    ] = 0,
    headless: Annotated[
        bool, typer.Option("--headless", help="Print lines, not a live screen.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Have agents learn together while one of them is killed.

    Several sites train a model of handwritten digits without sharing their images.
    Half way, the process of a site is killed; the training goes on. Needs no server.
    """
    from academy.cli.demo import demo as run_demo

    execute(
        lambda: run_demo(
            rounds=rounds, sites=sites, seed=seed, headless=headless, as_json=as_json
        ),
        debug=debug,
    )


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure less, for about a minute.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="NAME", help="calls, echo ...; can be repeated."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", min=0.001, help="Time for each figure."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how fast agents are on this machine, beside bare sockets.

    Starts a server and several processes of its own. Figures depend on what else the
    machine does; compare only those of one run.
    """
    from academy.cli.bench import bench as run_bench

    execute(
        lambda: run_bench(only or [], quick=quick, seconds=seconds, as_json=as_json),
        debug=debug,
    )


@app.command()
def server(
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; 0.0.0.0 for all."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="Port to listen on; else a free one.",
            show_default=False,
        ),
    ] = None,
    persist: Annotated[
        Path | None,
        typer.Option(
            "--persist",
            metavar="DIR",
            help="Keep data, password and port in this directory.",
            show_default=False,
        ),
    ] = None,
    binary: Annotated[
        Path | None,
        typer.Option(
            "--binary", metavar="PATH", help="Server to run.", show_default=False
        ),
    ] = None,
    acl: Annotated[
        str | None,
        typer.Option(
            "--acl",
            metavar="NAMESPACE",
            help="Run no server; print a command that makes a user for a namespace.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a server for agents until Ctrl-C, and print its URL.

    The URL has a password in it. With --json the process id is that of this command:
    SIGTERM to it stops the server.
    """
    from academy.cli.server import print_acl, serve
    from academy.embedded import EmbeddedServer

    if acl is not None:
        execute(lambda: print_acl(acl, as_json=as_json), debug=debug)
    execute(
        lambda: serve(
            EmbeddedServer(host=host, port=port, persist=persist, binary=binary),
            persist=persist,
            as_json=as_json,
        ),
        debug=debug,
    )


@app.command()
def ps(
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List agents: class, state, process, and messages that wait."""
    from academy.cli.connection import Connection
    from academy.cli.ps import list_agents

    connection = Connection(url, namespace)
    execute(lambda: list_agents(connection, as_json=as_json), url=url, debug=debug)


@app.command()
def links(
    agents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[AGENT]...",
            help="Agents whose processes are meant; without, all.",
            show_default=False,
        ),
    ] = None,
    own: Annotated[
        bool, typer.Option("--self", help="Show the process of this command, too.")
    ] = False,
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List which way messages go between processes, and why not directly."""
    from academy.cli.connection import Connection
    from academy.cli.links import list_links

    connection = Connection(url, namespace)
    execute(
        lambda: list_links(connection, agents or [], own=own, as_json=as_json),
        url=url,
        debug=debug,
    )


@app.command()
def ping(
    agent: AgentArgument,
    count: Annotated[int, typer.Option("--count", "-c", min=1, help="How often.")] = 4,
    timeout: Timeout = 5.0,
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask an agent whether it is there, and how long that takes."""
    from academy.cli.connection import Connection
    from academy.cli.ping import ping as run_ping

    connection = Connection(url, namespace)
    execute(
        lambda: run_ping(
            connection, agent, count=count, timeout=timeout, as_json=as_json
        ),
        url=url,
        debug=debug,
    )


@app.command(context_settings={"ignore_unknown_options": True})
def call(
    agent: AgentArgument,
    action: Annotated[str, typer.Argument(metavar="ACTION", help="Its name.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE | NAME=VALUE]...",
            help="Values are JSON, or else strings.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="S",
            min=0.001,
            help="Seconds to wait; without, as long as it takes.",
            show_default=False,
        ),
    ] = None,
    no_pickle: Annotated[
        bool,
        typer.Option(
            "--no-pickle",
            help="Send and accept JSON only: for agents that accept nothing else, or "
            "that are not trusted.",
        ),
    ] = False,
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Call an action of an agent and print its result."""
    from academy.cli.call import call as run_call
    from academy.cli.connection import Connection

    connection = Connection(url, namespace)
    execute(
        lambda: run_call(
            connection,
            agent,
            action,
            arguments or [],
            timeout=timeout,
            pickle=not no_pickle,
            as_json=as_json,
        ),
        url=url,
        debug=debug,
    )


@app.command()
def describe(
    agent: AgentArgument,
    timeout: Timeout = 5.0,
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what an agent is and what it can do."""
    from academy.cli.connection import Connection
    from academy.cli.describe import describe as run_describe

    connection = Connection(url, namespace)
    execute(
        lambda: run_describe(connection, agent, timeout=timeout, as_json=as_json),
        url=url,
        debug=debug,
    )


@app.command("rotate-secret")
def rotate_secret(
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap", metavar="S", min=120, help="Seconds that the old one is valid."
        ),
    ] = 3600,
    url: Url = None,
    namespace: Namespace = "default",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Give the members of a namespace a new secret while they run.

    What they have signed with the old one is accepted for another hour.
    """
    from academy.cli.connection import Connection
    from academy.cli.secret import rotate

    connection = Connection(url, namespace)
    execute(
        lambda: rotate(connection, overlap=overlap, as_json=as_json),
        url=url,
        debug=debug,
    )
