"""Serves the application with uvicorn, in this process or in worker processes with one socket."""

import gc
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from markethall.http_protocol import HttpProtocol, ServerConfig
from markethall.settings import Settings, read_settings
from markethall.shared.observability import log

# long, because uvicorn already pings a worker during its imports, which may take many seconds
_WORKER_HEALTHCHECK_SECONDS: Final = 30
_MAX_PAUSE_SECONDS: Final = 30.0
# the pause doubles with each death of a worker within this time
_MEMORY_SECONDS: Final = 60.0

logger = log.get_logger("markethall.server")


class GracefulServer(uvicorn.Server):
    """Returns after a signal; uvicorn's own server would raise the signal again."""

    def handle_exit(self, sig: int, _: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(
    settings: Settings,
    host: str,
    port: int,
    workers: int,
    on_listen: Callable[[int], None] = lambda _: None,
) -> int:
    """Serve until a signal and return the exit code. Raises OSError if the port is taken.

    `on_listen` is called with the port when it is bound.
    """
    with listen_sockets(host, port, settings.metrics_port) as listeners:
        on_listen(listeners[0].getsockname()[1])
        config = server_config("markethall.server:create_served_app", settings, factory=True)
        if workers == 1:
            server = GracefulServer(config)
            server.run(listeners)
            return 0 if server.started else 1
        log.configure(settings.log_format, settings.log_level)
        config.workers = workers
        supervisor = WorkerSupervisor(config, listeners)
        supervisor.run()
        return supervisor.exit_code


@contextmanager
def listen_sockets(host: str, port: int, metrics_port: int | None) -> Iterator[list[socket.socket]]:
    """Listen on the port of the application and, if it is set, on the port of the metrics.

    Raises OSError; its text is one line for the terminal.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(listen_socket(host, port))]
        if metrics_port is not None:
            advice = "choose a port with MARKETHALL_METRICS_PORT"
            sockets.append(stack.enter_context(listen_socket(host, metrics_port, advice)))
        yield sockets


def listen_socket(
    host: str, port: int, advice: str = "choose an address with --host and a port with --port"
) -> socket.socket:
    """Return a socket that listens on this address.

    Raises OSError; its text is one line for the terminal and ends with `advice`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}: {advice}") from error


def server_config(app: str | ASGIApp, settings: Settings, *, factory: bool = False) -> ServerConfig:
    """Build the configuration of uvicorn; `app` is an application, or the name of its factory."""
    config = ServerConfig(
        app,
        factory=factory,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        timeout_worker_healthcheck=_WORKER_HEALTHCHECK_SECONDS,
    )
    config.header_timeout_seconds = settings.body_timeout
    return config


def create_served_app() -> ASGIApp:
    """Create the application of a server process, with settings from the environment."""
    # Importing and creating the application leaves little garbage, but each collection would search
    # all of its objects, which takes a sixth of the start.
    gc.disable()
    from markethall.app import create_app

    settings = read_settings()
    log.configure(settings.log_format, settings.log_level)
    app = create_app(settings)
    _freeze_gc()
    gc.enable()
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    return app


def _freeze_gc() -> None:
    """Exclude all existing objects from garbage collection, and collect less often, for speed."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _end_with_parent() -> None:
    """Shut this worker down when its supervisor ends, even if SIGKILL ends the supervisor."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class RestartPauses:
    """Computes the pause before a restart: 0, 1, 2, 4 … 30 s for deaths within one minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: deque[float] = deque(maxlen=100)

    def next_pause(self) -> float:
        """Count the death of a worker, and return the seconds to wait before its restart."""
        now = self._clock()
        while self._deaths and self._deaths[0] <= now - _MEMORY_SECONDS:
            self._deaths.popleft()
        self._deaths.append(now)
        earlier = len(self._deaths) - 1
        return min(2.0 ** (earlier - 1), _MAX_PAUSE_SECONDS) if earlier else 0.0


class WorkerSupervisor(Multiprocess):
    """Restarts workers that end, while the other workers continue to serve.

    If a worker fails before any worker has served, the supervisor ends with exit code 1: the cause
    is probably a wrong setting, and a restarted worker would fail too.
    """

    exit_code = 0

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._pauses = RestartPauses()
        self._restart_at: dict[Process, float] = {}
        self._has_served = False

    def keep_subprocess_alive(self) -> None:
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            # close this process's copy of the worker's end of the pipe; otherwise a ping of a dead
            # worker would not fail, but wait for the timeout
            process.child_conn.close()
            if process not in self._restart_at and not self._is_alive(process):
                self._note_death(process)
            if time.monotonic() >= self._restart_at.get(process, float("inf")):
                self._restart(index)

    def terminate_all(self) -> None:
        super().terminate_all()
        # otherwise the kernel would still accept connections, which no worker would serve
        for listener in self.sockets:
            listener.close()

    def _is_alive(self, process: Process) -> bool:
        timeout = self.config.timeout_worker_healthcheck
        is_alive = process.is_alive(timeout)
        if is_alive and not self._has_served:
            self._has_served = process.is_ready(timeout)
        return is_alive

    def _note_death(self, process: Process) -> None:
        process.kill()  # a worker that does not respond is still running
        process.join()
        logger.error("worker.died", pid=process.pid, exit_code=process.exitcode)
        if process.exitcode and process.exitcode > 0 and not self._has_served:
            self.exit_code = 1
            self.should_exit.set()
        self._restart_at[process] = time.monotonic() + self._pauses.next_pause()

    def _restart(self, index: int) -> None:
        del self._restart_at[self.processes[index]]
        self.processes[index] = Process(self.config, self.sockets)
        self.processes[index].start()
