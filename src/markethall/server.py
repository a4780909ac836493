"""Serving: uvicorn with an orderly end. Not ready first, then the door closes, then we go.

With several workers a parent holds the listening socket and starts processes that share it.
"""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from functools import lru_cache
from types import FrameType
from typing import Final, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from markethall.die_with_parent import die_with_parent
from markethall.main import create_app
from markethall.settings import Settings, read_settings
from markethall.shared import log
from markethall.shared.hatch import Handed, Hatch
from markethall.shared.warm import Header, written

# a worker that ends sooner than this after its start would end again
_TOO_SOON: Final = 5.0
# twice what the front takes, so that it is the front that refuses where it can
_HEAD_LIMIT: Final = 64 * 1024
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class HallConfig(uvicorn.Config):
    head_timeout = 10.0


class HallProtocol(HttpToolsProtocol):
    """Waits only so long for the head of a request, and takes only so much of it.

    uvicorn knows neither limit: a client that sends a byte a minute, or headers without end,
    would keep its connection, and us all that it sent, for ever.
    """

    _in_head = True
    _in_message = False
    _head_size = 0
    _patience: asyncio.TimerHandle | None = None
    # what is ready is handed out here, or nowhere
    _hatch: Hatch | None = None
    _peer = ""
    # messages that began in the bytes at hand, and what was handed out for the last of them
    _begun = 0
    _handed: Handed | None = None
    _upgrades = False
    _used_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        front = getattr(self.app, "front", None)
        # who may be turned away for the crowd takes the long way
        if front is not None and self.client and self.limit_concurrency is None:
            self._peer = self.client[0]
            self._hatch = None if self.root_path else front.hatch
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._begun += 1
        self._handed = None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_size = 0
        # what comes after it is not for the parser
        self._upgrades = self._upgrades or self.parser.should_upgrade()
        if self._hatch is None or not self._hand_out(self._hatch):
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        # uvicorn has heard nothing of one that was handed out
        if self._handed is None:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._hatch is not None and self._hand_out_again(self._hatch, data):
            return
        at_rest = not self._in_message
        self._handed = None
        self._begun = 0
        super().data_received(data)
        if self._handed is not None and not self._in_message:
            self._stop_waiting()
            if at_rest and self._begun == 1 and self._hatch is not None:
                self._hatch.heads.keep(data, self._handed.asked)
        # not idle: half a head, or what nobody reads, as the rest of a body that was refused
        elif self._in_head or not self._is_answering():
            self._await_head()
            self._limit_head(len(data))
        else:
            self._stop_waiting()

    def _hand_out_again(self, hatch: Hatch, data: bytes) -> bool:
        """Very bytes that were a whole request before are one again, where a request may begin.

        The parser need not hear of it: it stands between two messages before and after.
        """
        asked = hatch.heads.find(data)
        if (
            asked is None
            or self._in_message
            or self._upgrades
            or self._is_answering()
            or not self._is_writable()
        ):
            return False
        return self._give(hatch, hatch.again(asked, self._peer))

    def _give(self, hatch: Hatch, handed: Handed | None) -> bool:
        if handed is None:
            return False
        self._handed = handed
        self.transport.write(handed.message(_lines(tuple(self.server_state.default_headers))))
        hatch.tell(handed)
        self._answered()
        return True

    def _is_writable(self) -> bool:
        return not self.flow.write_paused and not self.transport.is_closing()

    def _answered(self) -> None:
        """As after any other answer, except that the timer of an idle connection runs on."""
        self._stop_waiting()
        self.server_state.total_requests += 1
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._end_when_idle(self.timeout_keep_alive)

    def _end_when_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        if self._is_answering():
            # what came behind the last answer in the same bytes: its end sets the timer anew
            return
        left = self._used_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._end_when_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def _hand_out(self, hatch: Hatch) -> bool:
        """What is ready is written at once: a task and an application cost more than it does."""
        parser = self.parser
        if (
            self._is_answering()
            or not self._is_writable()
            or parser.get_method() != b"GET"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
        ):
            return False
        return self._give(hatch, hatch.read(self.url, self.headers, self._peer))

    def _limit_head(self, more: int) -> None:
        self._head_size += more if self._in_head else 0
        if self._head_size > _HEAD_LIMIT and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _await_head(self) -> None:
        if self._patience is None:
            seconds = cast("HallConfig", self.config).head_timeout
            self._patience = self.loop.call_later(seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        if self._is_answering():
            self._await_head()
        elif not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


@lru_cache(maxsize=2)
def _lines(headers: tuple[Header, ...]) -> bytes:
    """Those that the server adds; every second they are others."""
    return written(headers)


class HallServer(uvicorn.Server):
    """On SIGTERM: readiness turns false at once; after `drain_seconds` uvicorn's own shutdown."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._leave_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal API
        if self._leave_at is None:
            self._leave_at = time.monotonic() + self._drain_seconds
        elif sig == signal.SIGINT:
            self.force_exit = True
            self._leave_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        if self._leave_at is not None:
            self._stop_being_ready()
            self.should_exit = time.monotonic() >= self._leave_at
        return await super().on_tick(counter)

    def _stop_being_ready(self) -> None:
        app = self.config.loaded_app
        while not isinstance(app, FastAPI):
            app = app.app
        app.state.readiness.draining = True


def serve(settings: Settings, host: str, port: int, workers: int) -> int:
    """Blocks until the server has ended; its exit code. Raises OSError when the port is taken."""
    with listening(host, port) as door:
        if workers == 1:
            return _serve_here(settings, door)
        log.configure(settings.log_format, settings.log_level)
        return Workers(door, workers).run()


def listening(host: str, port: int) -> socket.socket:
    """The door: bound before anything is told to the user."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def _serve_here(settings: Settings, door: socket.socket) -> int:
    config = hall_config("markethall.server:app_from_environment", settings, factory=True)
    server = HallServer(config, settings.drain_seconds)
    server.run([door])
    return 0 if server.started else 1


def hall_config(app: str | ASGIApp, settings: Settings, *, factory: bool = False) -> HallConfig:
    """How the hall, and whatever stands before it, is served."""
    config = HallConfig(
        app,
        factory=factory,
        loop="uvloop",
        http=HallProtocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    config.head_timeout = settings.body_timeout
    return config


def app_from_environment() -> FastAPI:
    """What a server process serves."""
    settings = read_settings()
    log.configure(settings.log_format, settings.log_level)
    app = create_app(settings)
    _spare_the_collector()
    return app


def _spare_the_collector() -> None:
    """What is there now stays: the collector need not look at it again, nor look so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Workers:
    """Keeps so many processes on one door; passes SIGTERM and SIGINT on, and waits for them."""

    def __init__(self, door: socket.socket, count: int) -> None:
        self._door = door
        self._count = count
        self._ending = False
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> int:
        """Blocks. 1 when a worker could not even start."""
        before = {sig: signal.signal(sig, self._end) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            for _ in range(self._count):
                self._start()
            return self._watch()
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _start(self) -> None:
        if self._ending:
            return
        door = self._door.fileno()
        command = [sys.executable, "-m", "markethall.server", str(door), str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603 - this very program
            command, pass_fds=[door], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._running[process.pid] = (process, time.monotonic())
        if self._ending:
            # told to go between the two lines above
            process.terminate()

    def _watch(self) -> int:
        code = 0
        while self._running:
            pid, status = os.wait()
            ended = self._running.pop(pid, None)
            if ended is None or self._ending:
                continue
            if time.monotonic() - ended[1] < _TOO_SOON:
                code = 1
                self._end()
            else:
                log.get_logger("markethall.server").error("worker.died", pid=pid, status=status)
                self._start()
        return code

    def _end(self, *_: object) -> None:
        self._ending = True
        # ours as well, or whoever knocks would wait until the last worker has gone
        self._door.close()
        for process, _started in self._running.values():
            process.terminate()


def _worker(door: int, parent: int) -> int:
    """A worker ends with its parent, also when that is killed."""
    die_with_parent(parent, signal.SIGTERM)
    return _serve_here(read_settings(), socket.socket(fileno=door))


if __name__ == "__main__":
    sys.exit(_worker(int(sys.argv[1]), int(sys.argv[2])))
