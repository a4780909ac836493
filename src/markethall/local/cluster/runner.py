"""The whole of `markethall apart`: what is refused, what is started, what is said."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Final

from markethall import __version__
from markethall.apart.front import create_front
from markethall.apart.relay import Relay
from markethall.apart.stalls import Say, Stalls, owned
from markethall.server import HallServer, hall_config, listening
from markethall.settings import BadSettings, Settings, read_settings
from markethall.shared import log
from markethall.topology import Context

FRONTS_OWN: Final = "/health /ready /stats /docs /openapi.json /metrics"


def check(settings: Settings) -> None:
    """Raises BadSettings for what does not go together with four services on one machine."""
    wrong = []
    if settings.serve != set(Context) or settings.remotes:
        wrong.append("MARKETHALL_SERVE, MARKETHALL_REMOTES: `apart` sets them for each service")
    if settings.storage == "memory":
        wrong.append("MARKETHALL_STORAGE: memory is not shared by four processes")
    if settings.environment == "production":
        wrong.append("MARKETHALL_ENVIRONMENT: `apart` is for trying; see docs/deployment.md")
    if wrong:
        raise BadSettings(wrong)


def where_the_data_lies(settings: Settings) -> str:
    """For the banner: what of it is ours. Asked before anything embedded is started."""
    embedded = not all(settings.database_of(context) for context in Context)
    postgres = "an embedded Postgres" if embedded else "your Postgres"
    redis = "your Redis" if settings.redis_url.get_secret_value() else "an embedded Valkey"
    return f"{postgres} and {redis}; keys and logs in {settings.home}"


@contextmanager
def broker(settings: Settings) -> Iterator[Settings]:
    """The settings with a Redis in them: an embedded Valkey, where none is named."""
    if settings.redis_url.get_secret_value():
        yield settings
        return
    from markethall.embedded import EmbeddedValkey  # noqa: PLC0415 - an extra

    with EmbeddedValkey(settings.home) as url:
        os.environ["MARKETHALL_REDIS_URL"] = url
        yield read_settings()


def serve(settings: Settings, host: str, port: int, data: str, say: Say) -> int:
    """Blocks until all have ended; the exit code. Raises OSError when the port is taken.

    `data` is for the banner, see `where_the_data_lies`.
    """
    with listening(host, port) as door:
        log.configure(settings.log_format, settings.log_level)
        stalls = Stalls(settings, say)
        relay = Relay(stalls.addresses, settings)
        address = f"http://{host}:{door.getsockname()[1]}"

        def welcome() -> None:
            docs = f"{address}/docs" if settings.shows_docs else "switched off"
            _banner(stalls, {"API": address, "Docs": docs, "Data": data}, say)

        def running() -> AbstractAsyncContextManager[None]:
            return _looked_after(stalls, relay, welcome, stop)

        def stop() -> None:
            server.should_exit = True

        front = create_front(settings, relay, stalls, running)
        server = HallServer(hall_config(front, settings), settings.drain_seconds)
        try:
            stalls.start()
            server.run([door])
        finally:
            stalls.end()
        return stalls.code or (0 if server.started else 1)


@asynccontextmanager
async def _looked_after(
    stalls: Stalls, relay: Relay, welcome: Callable[[], None], stop: Callable[[], None]
) -> AsyncIterator[None]:
    async def is_ready(context: Context) -> bool:
        return await relay.state_of(context) == "ok"

    looking = asyncio.create_task(stalls.look_after(is_ready, welcome))
    looking.add_done_callback(lambda _: stop())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


def _banner(stalls: Stalls, lines: Mapping[str, str], say: Say) -> None:
    """In plain words: where everything is, how to become staff, who runs where."""
    ways = {
        "Become staff": "markethall create-staff you@example.com --role admin",
        "Fill the shop": "markethall demo",
    }
    say(f"Markethall {__version__}, apart: four services behind one front")
    for name, value in {**lines, **ways}.items():
        say(f"  {name + ':':15}{value}")
    say(f"  {'front':11}pid {os.getpid():<8}{lines['API']}  {FRONTS_OWN}")
    for context, seat in stalls.seats().items():
        say(f"  {context:11}pid {seat.pid:<8}{seat.at}  {owned(context)}")
