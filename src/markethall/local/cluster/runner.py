"""Runs `markethall local-cluster`: starts, serves and stops all processes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from markethall import __version__
from markethall.local.cluster.app import create_cluster_app
from markethall.local.cluster.process_supervisor import Report, ServiceSupervisor, free_urls
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.local.cluster.running import recorded
from markethall.server import GracefulServer, listen_sockets, server_config
from markethall.settings import Settings
from markethall.shared.observability import log


def run(settings: Settings, host: str, port: int, report: Report) -> int:
    """Run until all processes have ended. Returns the exit code.

    Raises OSError if the port is taken.
    """
    with listen_sockets(host, port, settings.metrics_port) as sockets:
        log.configure(settings.log_format, settings.log_level)
        urls = free_urls()
        proxy = ReverseProxy(urls, settings)
        supervisor = ServiceSupervisor(settings, urls, proxy, report)

        @asynccontextmanager
        async def running() -> AsyncIterator[None]:
            task = asyncio.create_task(supervisor.supervise())
            task.add_done_callback(lambda _: stop())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await supervisor.stop()
                await proxy.close()

        def stop() -> None:
            server.should_exit = True

        app = create_cluster_app(settings, proxy, running)
        server = GracefulServer(server_config(app, settings))
        report(f"Markethall {__version__} starts {len(urls)} services behind one proxy")
        proxy_url = f"http://{host}:{sockets[0].getsockname()[1]}"
        report(f"  {'proxy':11}pid {os.getpid():<8}{proxy_url}")
        with recorded(settings.data_directory, proxy_url, urls):
            server.run(sockets)
        return supervisor.exit_code or (0 if server.started else 1)
