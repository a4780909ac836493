"""Four services as four processes: started, looked after, ended."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from threading import Thread
from typing import IO, Final, cast

from markethall.apart.front import Seat
from markethall.settings import Settings
from markethall.topology import KEYS, NEEDS, OWNED, Context

Say = Callable[[str], None]
IsReady = Callable[[Context], Awaitable[bool]]

BAD_SETTINGS: Final = 2

# of the last words of a service that could not start
_MOST_WORDS: Final = 50
_LOOK_EVERY: Final = 0.1
# who dies younger than this would soon die again: each time it is left alone twice as long
_OLD_ENOUGH: Final = 10.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
# before it was ever ready. More than one: another program may have taken its port meanwhile
_ATTEMPTS: Final = 3
# seconds over the time that a service gives itself
_GRACE: Final = 5.0
# who calls others ends first: for its last answers it may need them
ENDING: Final = (
    [context for context in Context if NEEDS[context]],
    [context for context in Context if not NEEDS[context]],
)
# four services on a Postgres that takes 100 connections, and somebody's `markethall demo` beside
_POOLS: Final = {"MARKETHALL_DATABASE_POOL_MIN": "1", "MARKETHALL_DATABASE_POOL_MAX": "10"}
_THE_FRONT: Final = "127.0.0.1/32"


class Stall:
    """One service in a process of its own. It keeps its port and its settings."""

    def __init__(self, context: Context, port: int, environment: Mapping[str, str]) -> None:
        self.context = context
        self.port = port
        self.ready = False
        self.starts = 0
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[Thread] = []
        self._held: deque[bytes] = deque(maxlen=_MOST_WORDS)

    @property
    def url(self) -> str:
        return _url(self.port)

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        self.ready = False
        self.starts += 1
        self._held.clear()
        serve = ["-m", "markethall", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "markethall.apart.tether", str(os.getpid()), *serve],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # away from our terminal: Ctrl-C is for us, and what is being served needs them still
            start_new_session=True,
        )
        self._readers = [
            _reading(process.stdout, self._show),
            _reading(process.stderr, self._hold_or_show),
        ]

    def last_words(self) -> str:
        """Why it cannot start, as it said on stderr; all that it said there, if that is unclear."""
        self._join()
        said = b"".join(self._held).decode(errors="replace").splitlines()
        return "\n".join([line for line in said if line.startswith("error:")] or said)

    def terminate(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """At most so long."""
        if self._process:
            try:
                self._process.wait(max(0.0, seconds))
            except subprocess.TimeoutExpired:
                return

    def kill(self) -> None:
        """Dead, if it was not already, and all that it said is shown."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._join()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join()

    def _hold_or_show(self, line: bytes) -> None:
        """Four banners say less than ours: they are kept for the case that it cannot start."""
        if self.ready:
            self._show(line)
        else:
            self._held.append(line)

    def _show(self, line: bytes) -> None:
        sys.stdout.buffer.write(marked(self.context, line))
        sys.stdout.buffer.flush()


class Stalls:
    """All four. Who dies is started again; one that cannot even start ends the whole."""

    def __init__(self, settings: Settings, say: Say) -> None:
        ports = dict(zip(Context, _free_ports(len(Context)), strict=True))
        self.addresses = {context: _url(port) for context, port in ports.items()}
        self.code = 0
        self._been_ready: set[Context] = set()
        self._welcomed = False
        self._settings = settings
        self._say = say
        self.all = {
            context: Stall(context, port, environment_of(context, settings, self.addresses))
            for context, port in ports.items()
        }

    def seats(self) -> dict[Context, Seat]:
        return {
            context: Seat(at=stall.url, pid=stall.pid, starts=stall.starts)
            for context, stall in self.all.items()
        }

    def start(self) -> None:
        for stall in self.all.values():
            stall.start()

    async def look_after(self, is_ready: IsReady, welcome: Callable[[], None]) -> None:
        """Returns when one of them cannot start. `welcome` is called once, when all are ready."""
        keeping = [
            asyncio.create_task(self._keep(stall, is_ready, welcome)) for stall in self.all.values()
        ]
        try:
            done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    def end(self) -> None:
        """In order, each within its time; whatever happens here, none of them is left."""
        try:
            for together in ENDING:
                self._end([self.all[context] for context in together])
        finally:
            for stall in self.all.values():
                stall.kill()

    def _end(self, stalls: Sequence[Stall]) -> None:
        grace = self._settings.drain_seconds + self._settings.shutdown_seconds + _GRACE
        until = time.monotonic() + grace
        for stall in stalls:
            stall.terminate()
        for stall in stalls:
            stall.wait(until - time.monotonic())

    async def _keep(self, stall: Stall, is_ready: IsReady, welcome: Callable[[], None]) -> None:
        """Starts it again whenever it dies. Returns when that is in vain."""
        pause = _FIRST_PAUSE
        while True:
            lived = await self._until_it_dies(stall, is_ready, welcome)
            if self._is_hopeless(stall):
                self.code = BAD_SETTINGS if stall.exit_code == BAD_SETTINGS else 1
                self._say(f"{stall.context} cannot start:\n{stall.last_words()}")
                return
            pause = _FIRST_PAUSE if lived > _OLD_ENOUGH else min(2 * pause, _LONGEST_PAUSE)
            self._say(f"{stall.context} {_how_it_ended(stall)}; it starts again in {pause:g} s")
            await asyncio.sleep(pause)
            stall.start()

    async def _until_it_dies(
        self, stall: Stall, is_ready: IsReady, welcome: Callable[[], None]
    ) -> float:
        """How many seconds it lived."""
        began = time.monotonic()
        while stall.exit_code is None:
            if not stall.ready and await is_ready(stall.context):
                stall.ready = True
                self._note_ready(stall, welcome)
            await asyncio.sleep(_LOOK_EVERY)
        return time.monotonic() - began

    def _note_ready(self, stall: Stall, welcome: Callable[[], None]) -> None:
        self._been_ready.add(stall.context)
        if self._welcomed:
            self._say(f"{stall.context} is back: pid {stall.pid}")
        elif len(self._been_ready) == len(self.all):
            self._welcomed = True
            welcome()

    def _is_hopeless(self, stall: Stall) -> bool:
        if stall.context in self._been_ready:
            return False
        return stall.exit_code == BAD_SETTINGS or stall.starts >= _ATTEMPTS


def environment_of(
    context: Context, settings: Settings, addresses: Mapping[Context, str]
) -> dict[str, str]:
    """Ours, with what makes it one service of four: it is told the addresses that it needs."""
    neighbours = sorted(NEEDS[context] | KEYS[context])
    return {
        **_POOLS,
        **os.environ,
        "MARKETHALL_SERVE": context.value,
        "MARKETHALL_REMOTES": json.dumps({name: addresses[name] for name in neighbours}),
        "MARKETHALL_DATA_DIR": str(settings.home.absolute()),
        "MARKETHALL_TRUSTED_PROXIES": ",".join((_THE_FRONT, *settings.trusted_proxies)),
        "MARKETHALL_LOG_FORMAT": _log_format(settings),
    }


def marked(context: Context, line: bytes) -> bytes:
    """Who said it: a field in front of a JSON object, a prefix in front of anything else."""
    if line.startswith(b'{"'):
        return b'{"service":"' + context.value.encode() + b'",' + line[1:]
    return f"{context.value:10}| ".encode() + line


def owned(context: Context) -> str:
    return " ".join(f"/{segment}" for segment in OWNED[context])


def _log_format(settings: Settings) -> str:
    """A service sees a pipe, whatever we see."""
    if settings.log_format == "auto":
        return "pretty" if sys.stdout.isatty() else "json"
    return settings.log_format


def _how_it_ended(stall: Stall) -> str:
    code = stall.exit_code or 0
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _free_ports(count: int) -> list[int]:
    """All are held until the last is found, or one might be offered twice."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for door in held:
            door.bind(("127.0.0.1", 0))
        return [door.getsockname()[1] for door in held]


def _reading(pipe: IO[bytes] | None, show: Callable[[bytes], None]) -> Thread:
    """A thread, so that no service ever waits for somebody to read what it says."""
    thread = Thread(target=_read, args=(cast("IO[bytes]", pipe), show), daemon=True)
    thread.start()
    return thread


def _read(pipe: IO[bytes], show: Callable[[bytes], None]) -> None:
    with pipe:
        for line in pipe:
            # nobody may be reading what we say; that is no reason to stop listening
            with suppress(OSError):
                show(line)
