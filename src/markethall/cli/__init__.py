import sys
from typing import Annotated

import typer

from markethall import __version__
from markethall.cli import catalogue, database, doctor, serving, staff
from markethall.cli.console import out, print_errors
from markethall.cli.events import events
from markethall.cli.ledger import ledger
from markethall.cli.payments import payments
from markethall.settings import load_environment_files
from markethall.shared.composition.settings import SettingsError
from markethall.shared.composition.topology import InvalidManifest

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Markethall: a commerce backend of users, inventory, orders and payments.",
)
for group in (serving, database, staff, catalogue, doctor):
    cli.add_typer(group.cli)
cli.add_typer(events, name="events")
cli.add_typer(payments, name="payments")
cli.add_typer(ledger, name="ledger")

EXIT_INVALID_SETTINGS = 2


def main() -> None:
    """Run the command line. Invalid settings are printed to stderr, and the exit code is 2."""
    try:
        load_environment_files()
        cli()
    except (SettingsError, InvalidManifest) as error:
        print_errors(str(error).splitlines())
        sys.exit(EXIT_INVALID_SETTINGS)
    except OSError as error:
        print_errors([str(error)])
        sys.exit(1)
    except RuntimeError as error:
        if not _is_embedded_error(error):
            raise
        print_errors([str(error)])
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def version(
    is_requested: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    if is_requested:
        out.print(__version__)
        raise typer.Exit


def _is_embedded_error(error: Exception) -> bool:
    """Tell whether the error is an EmbeddedError.

    The import is here, so that commands without an embedded server do not import `local`.
    """
    from markethall.local.errors import EmbeddedError

    return isinstance(error, EmbeddedError)
