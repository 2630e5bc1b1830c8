"""Hosts that do not exist: network namespaces around a router that loses packets.

```
this host (the server, the caller) ---- router ---- a
                                          |-------- b
```

Each host is a network namespace of its own, joined to the router by a pair of virtual
devices. A process is started there with `Host.prefix`, in a mount namespace of its own,
too, so that it counts as one of another host. The router drops what a test says. Names
and addresses are those of this process alone.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BENCHMARK = ipaddress.ip_network("198.18.0.0/15")
"""Addresses for tests of networks (RFC 2544): nobody has them, and none is private."""
BLOCK = 27
"""Length of the prefix of a test's own addresses: eight hosts."""
ROOT = Path(__file__).parents[2]
NAMESPACES = Path("/run/netns")
TUN = Path("/dev/net/tun")
PREFIX = "academy-"
_counter = itertools.count(1)


@functools.cache
def missing() -> str:
    """Return why there can be no networks here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are a thing of Linux"
    if os.geteuid() != 0:
        return "network namespaces need the rights of root"
    for tool in ("ip", "iptables-restore"):
        if shutil.which(tool) is None:
            return f"there is no {tool!r} here: install iproute2 and iptables"
    if not TUN.exists():
        return f"there is no {TUN} here"
    try:
        with Network():
            pass
    except (CommandError, OSError) as e:
        return f"no network namespaces can be made here: {e}"
    return ""


class CommandError(Exception):
    """A command that arranges the network has failed."""


def command(*words: str, text: str = "", check: bool = True) -> str:
    """Run a command and return what it says.

    Raises:
        CommandError: It has failed.
    """
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=20, check=False
    )
    if check and done.returncode:
        raise CommandError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A network namespace, and how the router sees it.

    Attributes:
        name: Name of the namespace; empty for this host.
        address: Its address.
        device: The device of the router that leads there.
        own_device: Its own device.
    """

    name: str
    address: str
    device: str
    own_device: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command there, as the process that was started."""
        return ("ip", "netns", "exec", self.name) if self.name else ()

    def run(self, *words: str) -> str:
        """Run a command there."""
        return command(*self.prefix, *words)


class Network:
    """A router, this host, and any number of further ones; a context manager.

    Args:
        server_port: Port of the server: what is dropped between two hosts does not
            touch it.
    """

    def __init__(self, server_port: int = 0) -> None:
        self.server_port = server_port
        self._serial = next(_counter)
        self._tag = f"{os.getpid()}-{self._serial}"
        self.router = f"{PREFIX}{self._tag}-router"
        self._hosts: list[Host] = []
        self._rules: list[str] = []
        self._wires: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        sweep()
        try:
            self._subnets = list(_free_block().subnets(new_prefix=30))
            command("ip", "netns", "add", self.router)
            self._forward()
            self.here = self._join("")
            way = ("default", "via", self.here.address)
            command(*_ip(self.router), "route", "add", *way)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.close()

    def host(self, name: str, *, delay: float = 0.0) -> Host:
        """Add a host.

        Args:
            name: Its name; one letter will do.
            delay: Seconds that each packet from and to it takes.
        """
        namespace = f"{PREFIX}{self._tag}-{name}"
        command("ip", "netns", "add", namespace)
        return self._join(namespace, delay)

    def ipv6_host(self, name: str) -> tuple[Host, str]:
        """Add a host that has no IPv4, joined to this host by a cable.

        Returns:
            The host, and the address of this host on that cable.
        """
        namespace = f"{PREFIX}{self._tag}-{name}"
        number = len(self._hosts)
        mine, theirs = (f"fdac:ade:{os.getpid() & 0xFFFF:x}::{n}" for n in (1, 2))
        host = Host(namespace, theirs, self._device("r", number), self._device("h", 9))
        command("ip", "netns", "add", namespace)
        self._make_devices(host, 0.0)
        command("ip", "link", "set", host.own_device, "netns", namespace)
        for where, device, address in (
            ("", host.device, mine),
            (namespace, host.own_device, theirs),
        ):
            new = ("address", "add", f"{address}/64", "dev", device, "nodad")
            command(*_ip(where), *new)
            command(*_ip(where), "link", "set", device, "up")
        command(*_ip(namespace), "link", "set", "lo", "up")
        return host, mine

    def host_in_place_of(self, host: Host) -> Host:
        """Let another host have the address of one, whose cable is pulled out."""
        number = self._hosts.index(host)
        command(*_ip(self.router), "link", "del", host.device)
        _remove(host.name)
        namespace = f"{host.name}x"
        command("ip", "netns", "add", namespace)
        return self._join(namespace, number=number)

    def close(self) -> None:
        """Remove everything, with what still runs there. Idempotent."""
        for wire in self._wires:
            assert wire.stdin is not None
            assert wire.stdout is not None
            wire.stdin.close()
            wire.wait(10)
            wire.stdout.close()
        self._wires.clear()
        for namespace in sorted(NAMESPACES.glob(f"{PREFIX}{self._tag}-*")):
            _remove(namespace.name)
        # The other end was in a namespace, whose devices are removed some time later.
        command("ip", "link", "del", self._device("h", 0), check=False)

    # What is lost

    def block(self, source: Host, target: Host) -> None:
        """Drop what goes from one host to another, but for the server's traffic."""
        self._between(source, target, "-j DROP")

    def block_both(self, one: Host, other: Host) -> None:
        """Drop what goes between two hosts, but for the server's traffic."""
        self._between(one, other, "-j DROP")
        self._between(other, one, "-j DROP")

    def refuse(self, source: Host, target: Host) -> None:
        """Refuse connections from one host to another, as many firewalls do."""
        self._between(source, target, "-p tcp -j REJECT --reject-with tcp-reset")

    def shield(self, host: Host) -> None:
        """Let nobody connect to a host, but let it connect to others, as NAT does."""
        port = self.server_port
        self._rules[:0] = [
            f"-o {host.device} -p tcp --syn --dport {port} -j ACCEPT",
            f"-o {host.device} -p tcp --syn -j DROP",
        ]
        self._apply()

    def lose(self, one: Host, other: Host, share: float) -> None:
        """Drop that share of the packets between two hosts, in each direction."""
        what = f"-m statistic --mode random --probability {share} -j DROP"
        self._between(one, other, what)
        self._between(other, one, what)

    def isolate(self, host: Host) -> None:
        """Drop everything from and to a host."""
        self._rules[:0] = [f"-i {host.device} -j DROP", f"-o {host.device} -j DROP"]
        self._apply()

    def cut_server(self, host: Host) -> None:
        """Drop what goes between a host and the server, and nothing else."""
        port = self.server_port
        self._rules[:0] = [
            f"-i {host.device} -p tcp --dport {port} -j DROP",
            f"-o {host.device} -p tcp --sport {port} -j DROP",
        ]
        self._apply()

    def forget(self, *flows: tuple[int, int]) -> None:
        """Drop what belongs to these pairs of ports for good, as a firewall does that
        has forgotten a connection on which nothing was said for long.
        """
        for one, other in flows:
            for source, target in ((one, other), (other, one)):
                self._rules.append(f"-p tcp --sport {source} --dport {target} -j DROP")
        self._apply()

    def heal(self) -> None:
        """Drop nothing any more."""
        self._rules.clear()
        self._apply()

    def _between(self, source: Host, target: Host, what: str) -> None:
        way = f"-i {source.device} -o {target.device}"
        self._rules += [
            *(
                f"{way} -p tcp --{side} {self.server_port} -j ACCEPT"
                for side in ("sport", "dport")
            ),
            f"{way} {what}",
        ]
        self._apply()

    def _apply(self) -> None:
        rules = "".join(f"-A FORWARD {rule}\n" for rule in self._rules)
        table = f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n"
        command("ip", "netns", "exec", self.router, "iptables-restore", text=table)

    # How it is built

    def _join(
        self, namespace: str, delay: float = 0.0, number: int | None = None
    ) -> Host:
        """Join a namespace, or this host, to the router."""
        if number is None:
            number = len(self._hosts)
        subnet = self._subnets[number]
        theirs, mine = (str(address) for address in subnet.hosts())
        host = Host(
            namespace, mine, self._device("r", number), self._device("h", number)
        )
        self._hosts[number:] = [host]
        self._make_devices(host, delay)
        command("ip", "link", "set", host.device, "netns", self.router)
        _start(host.device, self.router, theirs)
        if namespace:
            command("ip", "link", "set", host.own_device, "netns", namespace)
        _start(host.own_device, namespace, mine)
        target = "default"
        if namespace:
            command(*_ip(namespace), "link", "set", "lo", "up")
        else:
            target = str(subnet.supernet(new_prefix=BLOCK))
        command(*_ip(namespace), "route", "add", target, "via", theirs)
        return host

    def _make_devices(self, host: Host, delay: float) -> None:
        names = (host.device, host.own_device)
        if not delay:
            command(*("ip", "link", "add", names[0], "type", "veth", "peer", names[1]))
            return
        wire = subprocess.Popen(
            [sys.executable, "-m", "tests.network.wire", *names, str(delay)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._wires.append(wire)
        assert wire.stdout is not None
        if wire.stdout.readline() != "ready\n":
            raise CommandError("tap devices cannot be made")

    def _device(self, side: str, number: int) -> str:
        # At most 15 characters, of which a process number may take 7.
        return f"{side}{number}-{self._tag}"

    def _forward(self) -> None:
        switch = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        command("ip", "netns", "exec", self.router, "sh", "-c", switch)


def _ip(namespace: str) -> tuple[str, ...]:
    return ("ip", "-n", namespace) if namespace else ("ip",)


def _start(device: str, namespace: str, address: str) -> None:
    command(*_ip(namespace), "address", "add", f"{address}/30", "dev", device)
    command(*_ip(namespace), "link", "set", device, "up")


def sweep() -> None:
    """Remove the networks of processes that were killed."""
    for namespace in NAMESPACES.glob(f"{PREFIX}*-*-*"):
        pid = namespace.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(CommandError):
                _remove(namespace.name)


def _remove(namespace: str) -> None:
    deadline = time.monotonic() + 5
    while (pids := command("ip", "netns", "pids", namespace).split()) and (
        time.monotonic() < deadline
    ):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.02)
    command("ip", "netns", "del", namespace)


def _free_block() -> ipaddress.IPv4Network:
    """Return addresses that no interface or route of this host has."""
    taken = set(_routed())
    first = int(BENCHMARK.network_address)
    size = 1 << (32 - BLOCK)
    count = BENCHMARK.num_addresses // size
    start = (os.getpid() * 61 + next(_counter)) % count
    for number in range(count):
        address = first + (start + number) % count * size
        block = ipaddress.IPv4Network((address, BLOCK))
        if not any(block.overlaps(other) for other in taken):
            return block
    raise CommandError("no addresses are left for tests")


def _routed() -> Iterator[ipaddress.IPv4Network]:
    lines: Iterable[str] = command("ip", "-4", "route", "show").splitlines()
    for line in lines:
        with contextlib.suppress(ValueError):
            network = ipaddress.IPv4Network(line.split()[0])
            if network.overlaps(BENCHMARK) and network.prefixlen > BENCHMARK.prefixlen:
                yield network
