"""A TCP proxy that injects network faults.

async with Proxy(port) as proxy:     # forwards proxy.url to 127.0.0.1:port
    await proxy.switch(Mode.BLACKHOLE)
"""

import asyncio
import re
import struct
from collections import Counter
from contextlib import suppress
from enum import Enum, auto
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, Self

_REQUEST_LINE: Final = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")
_CHUNK: Final = 65536
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)  # with this option `close` sends RST, see socket(7)

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Mode(Enum):
    PASS = auto()
    DELAY = auto()  # data in both directions arrives `delay` seconds later
    BLACKHOLE = auto()  # accepts connections and data, but forwards nothing until the mode changes
    RESET = auto()  # existing and new connections end with RST
    LOSE_ANSWERS = auto()  # requests are forwarded; the client gets RST instead of the response
    CUT = auto()  # new connections are refused, existing ones end with RST


class Proxy:
    """A proxy to the local port `target`, which a test may change at any time."""

    def __init__(self, target: int = 0, *, delay: float = 2.0) -> None:
        self.target = target
        self.delay = delay
        self.mode = Mode.PASS
        self.connections = 0
        # the number of HTTP requests by path
        self.requests: Counter[str] = Counter()
        self.port = 0
        self._is_passing = asyncio.Event()
        self._is_passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def switch(self, mode: Mode) -> None:
        """Set the mode of existing and new connections."""
        before, self.mode = self.mode, mode
        if mode is Mode.BLACKHOLE:
            self._is_passing.clear()
        else:
            self._is_passing.set()
        if mode is Mode.CUT:
            self._server.close()
        elif before is Mode.CUT:
            await self._listen()
        if mode in {Mode.CUT, Mode.RESET}:
            self._reset_all()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _reset_all(self) -> None:
        while self._writers:
            _reset(self._writers.pop())

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._connect((reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: Pair) -> None:
        if self.mode is Mode.RESET:
            _reset(client[1])
            return
        self._writers.add(client[1])
        await self._is_passing.wait()
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(client[1])
            return
        await self._forward_both_ways(client, server)

    async def _forward_both_ways(self, client: Pair, server: Pair) -> None:
        writers = {client[1], server[1]}
        self._writers |= writers
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(client, server, is_response=False))
                tasks.create_task(self._forward(server, client, is_response=True))
        finally:
            self._writers -= writers
            for writer in writers:
                writer.close()

    async def _forward(self, source: Pair, sink: Pair, *, is_response: bool) -> None:
        """Forward the data of one direction in order.

        Data is delayed if the mode is DELAY when the proxy reads it.
        """
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_into(source[0], queue, is_response=is_response))
            tasks.create_task(self._write_from(queue, source, sink, is_response=is_response))

    async def _read_into(
        self,
        reader: asyncio.StreamReader,
        queue: "asyncio.Queue[tuple[float, bytes]]",
        *,
        is_response: bool,
    ) -> None:
        data = b"begin"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""  # the end of the stream, which is queued and delayed like data
            if not is_response and (found := _REQUEST_LINE.match(data)):
                self.requests[found[1].decode("latin-1")] += 1
            delay = self.delay if self.mode is Mode.DELAY else 0.0
            await queue.put((_now() + delay, data))

    async def _write_from(
        self,
        queue: "asyncio.Queue[tuple[float, bytes]]",
        source: Pair,
        sink: Pair,
        *,
        is_response: bool,
    ) -> None:
        data = b"begin"
        while data:
            due, data = await queue.get()
            await asyncio.sleep(due - _now())
            await self._is_passing.wait()
            if is_response and self.mode is Mode.LOSE_ANSWERS:
                _reset(source[1])
                _reset(sink[1])
                return
            with suppress(OSError):
                if data:
                    sink[1].write(data)
                    await sink[1].drain()
                else:
                    sink[1].write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    socket = writer.get_extra_info("socket")
    with suppress(OSError):  # the socket is already closed
        socket.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
