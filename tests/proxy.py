"""A TCP proxy that breaks a line in the ways that lines break, as the test says and when it says.

async with Proxy(port) as line:     # whoever calls line.url reaches 127.0.0.1:port
    await line.switch(Mode.BLACKHOLE)
"""

import asyncio
import re
import struct
from collections import Counter
from contextlib import suppress
from enum import Enum, auto
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, Self

_ASKED: Final = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")
_CHUNK: Final = 65536
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # linger 0: closing sends RST (socket(7))

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Mode(Enum):
    PASS = auto()
    DELAY = auto()  # whatever is said arrives later, each way
    BLACKHOLE = auto()  # takes connections and words, which wait until the line is whole again
    RESET = auto()  # connections end with RST, those that stand and those to come
    LOSE_ANSWERS = auto()  # what is asked arrives; instead of the answer comes RST
    CUT = auto()  # connections are refused, those that stand end with RST


class Proxy:
    """The line to one port. `target` may be named later, and changed."""

    def __init__(self, target: int = 0, *, delay: float = 2.0) -> None:
        self.target = target
        self.delay = delay
        self.mode = Mode.PASS
        self.connections = 0
        # HTTP requests that were sent into the line, by path
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
        """From now on, for connections that stand and for those to come."""
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

    async def _connect(self, here: Pair) -> None:
        if self.mode is Mode.RESET:
            _reset(here[1])
            return
        self._writers.add(here[1])
        await self._is_passing.wait()
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(here[1])
            return
        await self._carry_both(here, there)

    async def _carry_both(self, here: Pair, there: Pair) -> None:
        ends = {here[1], there[1]}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(here, there, answers=False))
                ways.create_task(self._carry(there, here, answers=True))
        finally:
            self._writers -= ends
            for writer in ends:
                writer.close()

    async def _carry(self, source: Pair, sink: Pair, *, answers: bool) -> None:
        """One way: words arrive in their order, each as late as the mode of its time says."""
        words: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self._listen_to(source[0], words, answers=answers))
            ends.create_task(self._say(words, source, sink, answers=answers))

    async def _listen_to(
        self,
        reader: asyncio.StreamReader,
        words: "asyncio.Queue[tuple[float, bytes]]",
        *,
        answers: bool,
    ) -> None:
        part = b"begin"
        while part:
            try:
                part = await reader.read(_CHUNK)
            except OSError:
                part = b""  # its reset must get through as late as its words
            if not answers and (found := _ASKED.match(part)):
                self.requests[found[1].decode("latin-1")] += 1
            late = self.delay if self.mode is Mode.DELAY else 0.0
            await words.put((_now() + late, part))

    async def _say(
        self,
        words: "asyncio.Queue[tuple[float, bytes]]",
        source: Pair,
        sink: Pair,
        *,
        answers: bool,
    ) -> None:
        part = b"begin"
        while part:
            due, part = await words.get()
            await asyncio.sleep(due - _now())
            await self._is_passing.wait()
            if answers and self.mode is Mode.LOSE_ANSWERS:
                _reset(source[1])
                _reset(sink[1])
                return
            with suppress(OSError):
                if part:
                    sink[1].write(part)
                    await sink[1].drain()
                else:
                    sink[1].write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    socket = writer.get_extra_info("socket")
    with suppress(OSError):  # it may be closed already
        socket.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
    writer.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
