"""The process supervisor: starts each service as a process, and restarts and stops it."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final, cast

from markethall.contexts import context_names, topology
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.settings import Settings

Report = Callable[[str], None]
Urls = Mapping[str, str]

_POLL_SECONDS: Final = 0.1
_RESTART_DELAY_SECONDS: Final = 0.5
# added to the time that a service may take to stop
_STOP_MARGIN_SECONDS: Final = 5.0
# callers are stopped first, because their last requests may need the services that they call
STOP_ORDER: Final = (
    [c for c in context_names() if topology().dependencies[c]],
    [c for c in context_names() if not topology().dependencies[c]],
)
# small, so that all services and a command together need at most 100 connections, which is the
# limit of the embedded Postgres
_POOL_SIZES: Final = {"MARKETHALL_DATABASE_POOL_MIN": "1", "MARKETHALL_DATABASE_POOL_MAX": "10"}
_METRICS_PORT: Final = "MARKETHALL_METRICS_PORT"


class ServiceCannotStart(Exception):
    """The process of a service has ended before it was ready for the first time."""


class ServiceProcess:
    """The process of one service. A restart keeps the port and the environment."""

    def __init__(self, context: str, url: str, environment: Mapping[str, str]) -> None:
        self.context = context
        self.url = url
        self.process: Process | None = None
        self._environment = environment
        self._output: asyncio.Task[None] | None = None

    async def start(self) -> Process:
        serve = ["markethall", "serve", "--no-banner", "--port", self.url.rpartition(":")[2]]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "markethall.die_with_parent", str(os.getpid()), "-m", *serve),
            env=self._environment,
            stdin=DEVNULL,
            stdout=PIPE,
            # maximum length of a line of output, in bytes
            limit=2**24,
            # a new session, so that Ctrl-C does not reach the service; the supervisor stops it
            start_new_session=True,
        )
        self._output = asyncio.create_task(self._copy_output(self.process))
        return self.process

    async def stop(self, timeout_seconds: float) -> None:
        """Send SIGTERM, then SIGKILL after the timeout, and wait for the end of the process."""
        process = self.process
        if process and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), timeout_seconds)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._output:
            await self._output

    async def _copy_output(self, process: Process) -> None:
        async for line in cast("asyncio.StreamReader", process.stdout):
            # an error is ignored, because the service must continue if our output is closed
            with suppress(OSError):
                sys.stdout.buffer.write(prefix_log_line(self.context, line))
                sys.stdout.buffer.flush()


class ServiceSupervisor:
    """Runs all services. A service that ends is restarted; if one cannot start, all are stopped."""

    def __init__(self, settings: Settings, urls: Urls, proxy: ReverseProxy, report: Report) -> None:
        self._stop_seconds = settings.drain_seconds + settings.shutdown_seconds
        self._proxy = proxy
        self._report = report
        self.exit_code = 0
        self.services = {
            context: ServiceProcess(context, url, environment_of(context, settings, urls))
            for context, url in urls.items()
        }

    async def supervise(self) -> None:
        """Run the services until cancelled, or until one of them cannot start."""
        try:
            async with asyncio.TaskGroup() as group:
                for service in self.services.values():
                    group.create_task(self._keep_running(service))
        except* ServiceCannotStart as errors:
            self._report(str(errors.exceptions[0]))

    async def stop(self) -> None:
        limit = self._stop_seconds + _STOP_MARGIN_SECONDS
        for contexts in STOP_ORDER:
            await asyncio.gather(*(self.services[context].stop(limit) for context in contexts))

    async def _keep_running(self, service: ServiceProcess) -> None:
        was_ready = False
        while True:
            process = await service.start()
            waiting = asyncio.create_task(self._wait_until_ready(service, process.pid))
            code = await process.wait()
            was_ready = was_ready or waiting.done()
            waiting.cancel()
            if not was_ready:
                self.exit_code = max(code, 1)
                raise ServiceCannotStart(f"{service.context} cannot start: {_ending(code)}")
            delay = _RESTART_DELAY_SECONDS
            self._report(f"{service.context} {_ending(code)}; it starts again in {delay:g} s")
            await asyncio.sleep(delay)

    async def _wait_until_ready(self, service: ServiceProcess, pid: int) -> None:
        while await self._proxy.readiness(service.context) != "ok":  # noqa: ASYNC110 - a process
            await asyncio.sleep(_POLL_SECONDS)
        self._report(f"  {service.context:11}pid {pid:<8}{service.url}")


def environment_of(context: str, settings: Settings, urls: Urls) -> dict[str, str]:
    """Return the environment of a service.

    It is the environment of this process, with the context of the service and the URLs of the
    contexts that the service needs.
    """
    # the log format "auto" depends on the terminal. It is resolved here, because the service writes
    # to a pipe and cannot see the terminal
    auto = "pretty" if sys.stdout.isatty() else "json"
    needed = sorted(topology().dependencies[context] | topology().jwks_sources[context])
    # MARKETHALL_METRICS_PORT is for the proxy; a service serves its metrics on its only port
    inherited = {name: text for name, text in os.environ.items() if name != _METRICS_PORT}
    return {
        **_POOL_SIZES,
        **_terminal_width(),
        **inherited,
        "MARKETHALL_CONTEXTS": context,
        "MARKETHALL_CONTEXT_URLS": json.dumps({name: urls[name] for name in needed}),
        "MARKETHALL_DATA_DIR": str(settings.data_directory.absolute()),
        "MARKETHALL_TRUSTED_PROXIES": "127.0.0.1/32",
        "MARKETHALL_LOG_FORMAT": auto if settings.log_format == "auto" else settings.log_format,
    }


def _terminal_width() -> dict[str, str]:
    """Return COLUMNS: the width of the terminal, less the prefix of each log line.

    A service writes to a pipe, so it cannot ask the terminal for its width.
    """
    if not sys.stdout.isatty():
        return {}
    return {"COLUMNS": str(shutil.get_terminal_size().columns - len(prefix_log_line("", b"")))}


def prefix_log_line(context: str, line: bytes) -> bytes:
    """Add the name of the service: as a field if the line is JSON, otherwise as a prefix."""
    if line.startswith(b'{"'):
        return b'{"service":"' + context.encode() + b'",' + line[1:]
    return f"{context:10}| ".encode() + line


def free_urls() -> dict[str, str]:
    """Return a URL with a free port for each context. No port is returned twice."""
    with ExitStack() as stack:
        sockets = {
            c: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for c in context_names()
        }
        return {c: f"http://127.0.0.1:{each.getsockname()[1]}" for c, each in sockets.items()}


def _ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
