"""The command line: markethall serve | migrate | create-staff | demo | events | …"""

import sys
from typing import Annotated

import typer

from markethall import __version__
from markethall.cli import data, goods, serving, staff
from markethall.cli.console import out, say_what_is_wrong
from markethall.cli.events import events
from markethall.settings import BadSettings

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Markethall: users, inventory, orders and payments under one roof.",
)
for group in (serving, data, staff, goods):
    cli.add_typer(group.cli)
cli.add_typer(events, name="events")

BAD_SETTINGS = 2


def main() -> None:
    """Entry point. Bad settings: one line each on stderr, exit code 2."""
    try:
        cli()
    except BadSettings as error:
        say_what_is_wrong(error.lines)
        sys.exit(BAD_SETTINGS)
    except OSError as error:
        say_what_is_wrong([str(error)])
        sys.exit(1)
    except RuntimeError as error:
        if not _is_embedded_error(error):
            raise
        say_what_is_wrong([str(error)])
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def _is_embedded_error(error: Exception) -> bool:
    """Asked only when something has gone wrong, so the extra is not imported at every start."""
    from markethall.local.errors import EmbeddedError  # noqa: PLC0415 - large; others need not wait

    return isinstance(error, EmbeddedError)
