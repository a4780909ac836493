"""Serving: uvicorn with an orderly end. Not ready first, then the door closes, then we go."""

import signal
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from markethall.main import create_app
from markethall.settings import Settings, read_settings
from markethall.shared import log


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


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Blocks until the server has ended. The workers read the settings from the environment."""
    config = uvicorn.Config(
        "markethall.server:app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        backlog=1024,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = HallServer(config, settings.drain_seconds)
    if workers == 1:
        server.run()
    else:
        Multiprocess(config, target=server.run, sockets=[config.bind_socket()]).run()


def app_from_environment() -> FastAPI:
    """For a worker process."""
    settings = read_settings()
    log.configure(settings.log_format, settings.log_level)
    return create_app(settings)
