"""Serves the application with uvicorn, in this process or in worker processes with one socket."""

import gc
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from markethall.http_protocol import HttpProtocol, ServerConfig
from markethall.settings import Settings, read_settings
from markethall.shared.observability import log
from markethall.worker_supervisor import WorkerSupervisor

# long, because uvicorn already pings a worker during its imports, which may take many seconds
_WORKER_HEALTHCHECK_SECONDS: Final = 30


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
