import asyncio
from contextlib import nullcontext
from typing import Annotated

import typer

from markethall.cli import runtime
from markethall.cli.console import fail, out, print_errors, print_note
from markethall.settings import read_settings

cli = typer.Typer()


@cli.command()
def migrate(
    context: Annotated[
        list[str] | None, typer.Option(help="Only these contexts; default: all served")
    ] = None,
) -> None:
    """Migrate the schema to the newest revision."""
    for name in context or ():
        runtime.check_context(name)
    with runtime.open_database(read_settings(), attach_to_running=True) as settings:
        runtime.migrate(settings, context or sorted(settings.contexts))
        out.print("The schema is up to date.")


@cli.command()
def relocate(
    context: str,
    to: Annotated[
        str, typer.Option(help="A Postgres address, or a name for a new database on this server")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Even if a process seems to serve the context")
    ] = False,
) -> None:
    """Move one context's data into another database. Print the address of a new database."""
    from markethall import relocation

    runtime.check_context(context)
    settings = read_settings()
    if settings.storage == "memory":
        fail("MARKETHALL_STORAGE: memory cannot be relocated")
    given = nullcontext(settings) if settings.database_url_of(context) else None
    with given or runtime.open_database(settings, attach_to_running=True) as settings:
        source = settings.database_url_of(context)
        try:
            url = asyncio.run(
                relocation.relocate(context, source, to, force=force, report=print_note)
            )
        except relocation.RelocationFailed as error:
            print_errors([str(error)])
            raise typer.Exit(1) from None
    # an address given in `to` is not printed, because the log of a Kubernetes Job would then
    # contain its password
    if "://" not in to:
        print(url)
