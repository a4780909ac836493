"""Serving the hall, and saying where everything is."""

import os
from functools import partial
from typing import Annotated

import typer

from markethall import __version__
from markethall.cli.console import err, out, refuse
from markethall.cli.hall import database, ending_on_sigterm, prepare, redis
from markethall.settings import BadSettings, Settings, read_settings
from markethall.topology import Context
from markethall.whereabouts import places, ways, wrong_addresses

cli = typer.Typer()

Host = Annotated[str, typer.Option(help="Address to listen on", envvar="MARKETHALL_HOST")]
Port = Annotated[
    int, typer.Option(help="Port to listen on", min=0, max=65535, envvar="MARKETHALL_PORT")
]


@cli.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(help="Processes", min=1)] = 1,
    memory: Annotated[bool, typer.Option("--memory", help="Keep everything in memory")] = False,
    banner: Annotated[bool, typer.Option(help="Print addresses and first steps")] = True,
) -> None:
    """Serve the hall: on an embedded Postgres, on MARKETHALL_DATABASE_URL, or in memory."""
    if memory:
        os.environ["MARKETHALL_STORAGE"] = "memory"
    settings = read_settings()
    _check_workers(settings, workers)
    if wrong := wrong_addresses(settings, host, port):
        raise BadSettings(wrong)
    embedded = _is_embedded(settings)
    # a stall that has moved out may stand beside the hall, on the hall's own Postgres
    with database(settings, beside=settings.serve != set(Context)) as settings:
        prepare(settings)
        if banner:
            _banner(settings, f"http://{host}:{port}", embedded=embedded)
        from markethall import server  # noqa: PLC0415 - large; others need not wait

        code = server.serve(settings, host, port, workers)
    raise typer.Exit(code)


@cli.command()
def local_cluster(
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Serve each context as a process of its own, behind a reverse proxy on one port."""
    settings = read_settings()
    _check_cluster(settings)
    with ending_on_sigterm(), database(settings) as settings, redis(settings) as settings:
        prepare(settings)
        from markethall.local.cluster import runner  # noqa: PLC0415 - large; others need not wait

        code = runner.run(settings, host, port, partial(err.print, markup=False))
    raise typer.Exit(code)


@cli.command()
def topology() -> None:
    """Show who runs where, and what carries calls and events between them, by these settings."""
    settings = read_settings()
    for place in places(settings):
        out.print(f"{place.context:10}{'here' if place.here else 'remote':8}{place.at}")
    for way in ways(settings):
        out.print(f"{way.source} -> {way.target}: {way.what} {way.by}")


def _check_cluster(settings: Settings) -> None:
    """Raises BadSettings for settings that do not fit several services on one machine."""
    wrong = []
    if settings.serve != set(Context) or settings.remotes:
        wrong.append("MARKETHALL_SERVE, MARKETHALL_REMOTES: local-cluster sets them itself")
    if settings.storage == "memory":
        wrong.append("MARKETHALL_STORAGE: memory cannot be shared by several processes")
    if settings.environment == "production":
        wrong.append("MARKETHALL_ENVIRONMENT: for development only; see docs/deployment.md")
    if wrong:
        raise BadSettings(wrong)


def _check_workers(settings: Settings, workers: int) -> None:
    if settings.storage == "memory" and workers > 1:
        refuse("--workers: memory storage serves one process and one worker")
    if workers > 1 and not settings.redis_url.get_secret_value():
        err.print(
            "[yellow]note[/] without MARKETHALL_REDIS_URL each worker has its own cache and limits"
        )


def _is_embedded(settings: Settings) -> bool:
    return settings.storage == "sql" and not all(settings.database_of(c) for c in settings.serve)


def _banner(settings: Settings, address: str, *, embedded: bool) -> None:
    """In plain words: where the data lies, where the API is, how to become staff."""
    if settings.environment == "production":
        return
    if settings.storage == "memory":
        data = "in memory: nothing is kept when this process ends"
        staff = "set MARKETHALL_ADMIN_EMAIL and MARKETHALL_ADMIN_PASSWORD, then start again"
        goods = "set them and POST /products, or run without --memory and `markethall demo`"
    else:
        data = f"an embedded Postgres in {settings.home}" if embedded else "your Postgres"
        staff = "markethall create-staff you@example.com --role admin"
        goods = "markethall demo"
    lines = {
        "API": address,
        "Docs": f"{address}/docs" if settings.shows_docs else "switched off",
        "Data": data,
        "Become staff": staff,
        "Fill the shop": goods,
    }
    err.print(f"[bold]Markethall {__version__}[/] serves {', '.join(sorted(settings.serve))}")
    elsewhere = [f"{place.context} at {place.at}" for place in places(settings) if not place.here]
    if elsewhere:
        lines["Elsewhere"] = ", ".join(elsewhere)
    for name, value in lines.items():
        err.print(f"  {name + ':':15}{value}", markup=False)
