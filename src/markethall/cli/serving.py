"""Commands that serve the application, or show its topology or its API."""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from markethall import __version__
from markethall.cli.console import err, fail, out
from markethall.cli.runtime import (
    exit_on_sigterm,
    migrate_if_development,
    open_database,
    redis,
    refuse_relocated,
)
from markethall.contexts import context_names
from markethall.operations.topology_report import (
    context_locations,
    describe_routes,
    invalid_remote_urls,
)
from markethall.settings import Settings, read_settings
from markethall.shared.composition.settings import SettingsError

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
    """Serve the application on an embedded Postgres, on MARKETHALL_DATABASE_URL, or in memory."""
    if memory:
        os.environ["MARKETHALL_STORAGE"] = "memory"
    settings = read_settings()
    _check_workers(settings, workers)
    if problems := invalid_remote_urls(settings, host, port):
        raise SettingsError(problems)
    is_embedded = _is_embedded(settings)
    # a process that serves only some contexts may use the embedded Postgres of another process
    with open_database(
        settings, attach_to_running=settings.contexts != set(context_names())
    ) as settings:
        migrate_if_development(settings)
        refuse_relocated(settings)
        from markethall import server

        def print_banner(bound_port: int) -> None:
            if banner:
                _print_banner(settings, f"http://{host}:{bound_port}", is_embedded=is_embedded)

        code = server.serve(settings, host, port, workers, print_banner)
    raise typer.Exit(code)


@cli.command()
def local_cluster(host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Serve each context as a process of its own, behind a reverse proxy on one port."""
    settings = read_settings()
    _check_cluster(settings)
    with exit_on_sigterm(), open_database(settings) as settings, redis(settings) as settings:
        migrate_if_development(settings)
        from markethall.local.cluster.app import run

        code = run(settings, host, port, partial(err.print, markup=False))
    raise typer.Exit(code)


@cli.command("openapi")
def print_openapi() -> None:
    """Print the OpenAPI document of the contexts that this process serves, as JSON."""
    from markethall.app import create_app

    # the document needs no database
    settings = read_settings(storage="memory", environment="development")
    sys.stdout.write(json.dumps(create_app(settings).app.openapi(), indent=2) + "\n")


@cli.command("topology")
def show_topology() -> None:
    """Show where each context runs, and the transport of calls and events between them.

    While a local cluster runs with the same data directory, show its processes instead.
    """
    from markethall.local.cluster.running import running_members

    settings = read_settings()
    if members := running_members(settings.data_directory):
        for member in members:
            state = f"pid {member.pid}" if member.pid else "not running"
            out.print(f"{member.name:10}{state:13}{member.url}".rstrip())
        return
    for location in context_locations(settings):
        out.print(
            f"{location.context:10}{'here' if location.is_local else 'remote':8}{location.location}"
        )
    for route in describe_routes(settings):
        out.print(f"{route.source} -> {route.target}: {route.kind} {route.transport}")


def _check_cluster(settings: Settings) -> None:
    """Raises SettingsError for settings that a local cluster does not support."""
    wrong = []
    if settings.contexts != set(context_names()) or settings.context_urls:
        wrong.append("MARKETHALL_CONTEXTS, MARKETHALL_CONTEXT_URLS: local-cluster sets them itself")
    if settings.storage == "memory":
        wrong.append("MARKETHALL_STORAGE: memory cannot be shared by several processes")
    if settings.environment == "production":
        wrong.append("MARKETHALL_ENVIRONMENT: for development only; see docs/deployment.md")
    if wrong:
        raise SettingsError(wrong)


def _check_workers(settings: Settings, workers: int) -> None:
    if settings.storage == "memory" and workers > 1:
        fail("--workers: memory storage serves one process and one worker")
    if workers > 1 and not settings.redis_url.get_secret_value():
        err.print(
            "[yellow]note[/] without MARKETHALL_REDIS_URL each worker has its own cache and limits"
        )


def _is_embedded(settings: Settings) -> bool:
    return settings.storage == "sql" and not all(
        settings.database_url_of(c) for c in settings.contexts
    )


def _program() -> str:
    """Return the shell command that starts this program from the current directory."""
    script = Path(sys.argv[0]).absolute()
    if script.name != "markethall":
        return f"{sys.executable} -m markethall"
    if shutil.which("markethall") == str(script):
        return "markethall"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _print_banner(settings: Settings, address: str, *, is_embedded: bool) -> None:
    """Print the addresses, the location of the data, and the first steps."""
    if settings.environment == "production":
        return
    if settings.storage == "memory":
        data_text = "in memory: lost when this process ends"
        staff_hint = "set MARKETHALL_ADMIN_EMAIL and MARKETHALL_ADMIN_PASSWORD, then start again"
        catalogue_hint = (
            f"set them and POST /products, or run without --memory and `{_program()} demo`"
        )
    else:
        data_text = (
            f"an embedded Postgres in {settings.data_directory}" if is_embedded else "your Postgres"
        )
        staff_hint = f"{_program()} create-staff you@example.com --role admin"
        catalogue_hint = f"{_program()} demo"
    lines = {
        "API": address,
        "Docs": f"{address}/docs" if settings.serves_docs else "switched off",
        "Data": data_text,
        "Become staff": staff_hint,
        "Fill the shop": catalogue_hint,
    }
    err.print(f"[bold]Markethall {__version__}[/] serves {', '.join(sorted(settings.contexts))}")
    if settings.metrics_port is not None:
        lines["Metrics"] = f"port {settings.metrics_port}, /metrics"
    remote_contexts = [
        f"{place.context} at {place.location}"
        for place in context_locations(settings)
        if not place.is_local
    ]
    if remote_contexts:
        lines["Elsewhere"] = ", ".join(remote_contexts)
    for name, value in lines.items():
        err.print(f"  {name + ':':15}{value}", markup=False)
