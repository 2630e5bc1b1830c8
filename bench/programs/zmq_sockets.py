"""Program: requests to another process with pyzmq (asyncio) and pickle.

A DEALER asks a ROUTER; what is large travels out of band, without being copied.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import pickle
import sys
import tempfile
from typing import Any

import zmq
import zmq.asyncio
from target import METHODS, Target, measure

Frames = list[Any]


def pack(value: Any) -> Frames:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [head, *buffers]


def unpack(frames: Frames) -> Any:
    return pickle.loads(frames[0].buffer, buffers=[f.buffer for f in frames[1:]])


async def serve(url: str) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(url)
        while True:
            who, number, *frames = await router.recv_multipart(copy=False)
            method, value = unpack(frames)
            result = METHODS[method](value)
            await router.send_multipart([who, number, *pack(result)], copy=False)


def run_server(url: str) -> None:
    asyncio.run(serve(url))


class Caller:
    """Sends requests with numbers, and gives the answers to those who wait."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[Any]] = {}

    async def call(self, method: str, value: Any = None) -> Any:
        number = next(self._numbers).to_bytes(8)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        frames = [number, *pack((method, value))]
        await self._socket.send_multipart(frames, copy=False)
        return await future

    async def receive(self) -> None:
        while True:
            number, *frames = await self._socket.recv_multipart(copy=False)
            self._waiting.pop(number.bytes).set_result(unpack(frames))


async def run(url: str, pid: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(url)
        caller = Caller(dealer)
        receiver = asyncio.create_task(caller.receive())
        try:
            target = Target(
                lambda: caller.call("noop"),
                lambda value: caller.call("echo", value),
                lambda value: caller.call("size", value),
                [pid],
            )
            await target.noop()
            return await measure(target, settings)
        finally:
            receiver.cancel()


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        url = f"ipc://{directory}/s"
        server = spawn.Process(target=run_server, args=(url,), daemon=True)
        server.start()
        try:
            assert server.pid is not None
            return asyncio.run(run(url, server.pid, settings))
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
