"""Program: requests to another process through a NATS server, with pickle."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import pickle
import shutil
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import nats
from nats.aio.msg import Msg
from target import METHODS, PATIENCE, Target, measure


async def serve(url: str, pipe: Connection) -> None:
    client = await nats.connect(url)

    async def answer(message: Msg) -> None:
        method, value = pickle.loads(message.data)
        await message.respond(pickle.dumps(METHODS[method](value)))

    await client.subscribe("bench", cb=answer)
    await client.flush()
    pipe.send("ready")
    await asyncio.Event().wait()


def run_server(url: str, pipe: Connection) -> None:
    asyncio.run(serve(url, pipe))


async def run(url: str, pid: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    client = await nats.connect(url)

    async def call(method: str, value: Any = None) -> Any:
        data = pickle.dumps((method, value))
        answer = await client.request("bench", data, timeout=PATIENCE)
        return pickle.loads(answer.data)

    try:
        target = Target(
            lambda: call("noop"),
            lambda value: call("echo", value),
            lambda value: call("size", value),
            [pid],
        )
        return await measure(target, settings)
    finally:
        await client.close()


def start_server() -> tuple[subprocess.Popen[bytes], int]:
    """Start a NATS server and wait until it can be reached."""
    binary = shutil.which("nats-server")
    assert binary, "no nats-server in PATH"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [binary, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, port
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    broker, port = start_server()
    url = f"nats://127.0.0.1:{port}"
    here, there = spawn.Pipe()
    server = spawn.Process(target=run_server, args=(url, there), daemon=True)
    server.start()
    there.close()
    try:
        here.recv()
        assert server.pid is not None
        return asyncio.run(run(url, server.pid, settings))
    finally:
        server.terminate()
        server.join()
        broker.terminate()
        broker.wait()


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
